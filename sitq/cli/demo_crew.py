"""The demo's worker processes: how they are started, watched and ended.

The promises: a worker that dies is replaced; and whatever kills the parent, its workers end by
themselves, because the pipe that is their standard input then ends. They are started anew,
never forked, in a session of their own: a Ctrl-C is for the parent alone.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import click

from sitq.backends.sqlite import SQLiteBackend
from sitq.cli import queue_file, worker as worker_
from sitq.cli.queue_file import WorkerRow
from sitq.cli.supervision import how_it_ended
from sitq.exceptions import SitqError
from sitq.protocol.ops import Rescue
from sitq.worker import Worker

GRACE: Final = 5.0
"""Seconds that a worker gives its tasks when it is told to stop, or finds itself orphaned."""
DEATHS_PER_WORKER: Final = 20
"""A crew that loses more without anything getting done is given up."""


def backend(path: str) -> SQLiteBackend:
    """Return the demo's backend: what was done stays known, however late it goes on."""
    return SQLiteBackend(path, retention=None)


class Crew:
    """*workers* processes that work on the file at *path*, from `look_after` to `dismiss`."""

    def __init__(self, path: str, workers: int, slots: int, *, trio: bool) -> None:
        # `-m` puts the current folder on the path, where anything may lie; unless it was there.
        safe = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]  # noqa: PTH109
        self._command = [sys.executable, *safe, "-m", "sitq.cli", "demo-worker", path]
        self._command += ["--concurrency", str(slots), *(["--trio"] if trio else [])]
        self._workers = workers
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lost_in_a_row = 0

    def look_after(self, *, got_on: bool) -> list[str]:
        """Start what is missing; return how each process ended that should not have.

        *got_on* says whether anything was done since the last look.
        """
        dead = [process for process in self._processes if process.poll() is not None]
        for process in dead:
            self._processes.remove(process)
            _close(process)
        self._lost_in_a_row = len(dead) + (0 if got_on else self._lost_in_a_row)
        if self._lost_in_a_row > DEATHS_PER_WORKER * self._workers:
            raise click.ClickException("the worker processes keep dying; they say why above")
        while len(self._processes) < self._workers:
            self._processes.append(
                subprocess.Popen(  # noqa: S603  # ourselves
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        return [f"{process.pid} {how_it_ended(process.returncode)}" for process in dead]

    def dismiss(self) -> None:
        """Have all of them stop, and wait for that."""
        for process in self._processes:
            _close(process)
        for process in self._processes:
            try:
                process.wait(4 * GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def tidy(path: str) -> None:
    """Clear away what killed workers have left, once nobody is at work on the file."""
    rows: list[WorkerRow] = queue_file.look(path, queue_file.workers)
    if any(worker.alive is not False for worker in rows):
        return
    if rows:
        store, presence = backend(path).open_store(), backend(path).presence()
        ids = tuple(worker.id for worker in rows)
        with contextlib.closing(store), contextlib.suppress(SitqError):
            store.apply([Rescue(ids)])
            presence.sweep(ids)
    folder = Path(f"{path}-workers")
    for name in queue_file.orphans(path, ()):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or somebody has just come in
        folder.rmdir()


# -- in the worker's process -----------------------------------------------------------


def work(path: str, *, slots: int, trio: bool) -> None:
    """Work on the file until the standard input ends: so does whoever started us."""
    logging.getLogger("sitq").setLevel(logging.ERROR)  # the parent tells of the dead
    threading.Thread(target=_stop_when_orphaned, daemon=True).start()
    worker = Worker(
        backend(path), max_concurrency=slots, poll_interval=0.1, lease_for=10, grace=GRACE
    )
    worker_.run(worker, grace=GRACE, trio=trio, say=lambda _: None)


def _stop_when_orphaned() -> None:
    while os.read(0, 1024):
        pass
    for _ in range(3):  # drain, interrupt, kill: as the signals of any worker do
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
