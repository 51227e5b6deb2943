"""`sitq demo`: real work, done durably, and a proof that all of it was done.

One task for each file, done by worker processes on one queue file. The same command on the
same files enqueues nothing twice, and goes on wherever it was cut off: what is done is known
from the queue file alone.
"""

import os
import signal
import sqlite3
import sysconfig
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

import click
from rich.console import Console

from sitq.adapters import sqlite_file
from sitq.cli import demo_files, demo_report as report, queue_file, worker as worker_
from sitq.cli.demo_crew import Crew, backend, tidy
from sitq.cli.demo_files import File
from sitq.cli.demo_report import Run
from sitq.cli.demo_tasks import examine
from sitq.cli.progress import progress
from sitq.cli.terminal import console, shown
from sitq.sync import SyncTaskQueue
from sitq.task import Task

CHUNK: Final = 500
"""Tasks enqueued, or results fetched, in one transaction."""
LOOK_EVERY: Final = 0.1
LOOK_AT: Final = 2000
"""Tasks at the front of those that are left: they end about in the order in which they came."""
MOST_SHARES: Final = 4
"""Workers whose shares fit on a line."""
MOST_CRASHES: Final = 1000
"""Whoever tries the demo may well kill its workers often."""


def run(
    directory: str | None, path: str, *, workers: int, slots: int, fresh: bool, trio: bool
) -> int:
    """Run the demo; return its exit code."""
    worker_.require_loop(trio=trio)
    out = console()
    root = Path(directory or sysconfig.get_path("stdlib")).resolve()
    path = os.path.realpath(sqlite_file.checked_path(path))
    found = demo_files.below(root, path)
    if not found.files:
        raise click.ClickException(f"there are no files below {shown(root)} to work on")
    if fresh:
        demo_files.forget(path)
    demo_files.require_ours(path)
    run = Run(root, path, found.files)
    out.print(
        f"{len(run.files):,} files below {shown(root)}, one task for each, in {shown(path)}",
        soft_wrap=True,
    )
    if found.unreadable:
        names = demo_files.relative(found.unreadable, root, 5)
        out.print(f"not readable, and left out: {names}", soft_wrap=True)
    try:
        with _sigterm_as_ctrl_c():
            return _work(out, run, Crew(path, workers, slots, trio=trio))
    except KeyboardInterrupt as stop:
        done, total = len(run.results), len(run.files)
        out.print(f"stopped: {done:,} of {total:,} done; the same command goes on")
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


def _work(out: Console, run: Run, crew: Crew) -> int:
    with SyncTaskQueue(backend(run.path)) as queue:
        _enqueue(queue, run.files)
        left = dict(run.files)
        _collect(queue, run, left, most=len(left))
        run.done_before = len(run.results)
        if run.results:
            out.print(f"going on: {len(run.results):,} of {len(run.files):,} done already")
        try:
            _watch(out, queue, crew, run, left)
        finally:
            crew.dismiss()
            _collect(queue, run, left, most=len(left))
            tidy(run.path)
        report.summary(out, run, queue)
        found = report.compare(out, run, queue)
    return report.verdict(out, run, found)


def _enqueue(queue: SyncTaskQueue, files: dict[str, File]) -> None:
    tasks = (
        Task(examine, file.path).using(task_id=id_, max_crashes=MOST_CRASHES)
        for id_, file in files.items()
    )
    while chunk := list(islice(tasks, CHUNK)):
        queue.enqueue_many(chunk)


def _collect(
    queue: SyncTaskQueue, run: Run, left: dict[str, File], *, most: int = LOOK_AT
) -> list[str]:
    """Take those that have ended off the first *most* that are *left*; return their ids."""
    ids, ended = list(islice(left, most)), list[str]()
    for start in range(0, len(ids), CHUNK):
        results = queue.get_results(ids[start : start + CHUNK])
        run.results.update(results)
        ended += results
    for id_ in ended:
        del left[id_]
    return ended


def _watch(out: Console, queue: SyncTaskQueue, crew: Crew, run: Run, left: dict[str, File]) -> None:
    """Show how the work goes, until none is left."""
    total = len(run.files)
    began = said = time.monotonic()
    pids: dict[str, int] = {}
    db = queue_file.connected(run.path)
    with closing(db), progress(out, "examining", total, len(run.results)) as show:
        ended: list[str] = []
        while left:
            for end in crew.look_after(got_on=bool(ended)):
                run.deaths += 1
                out.print(f"worker process {end}; another one takes its place")
            time.sleep(LOOK_EVERY)
            ended = _collect(queue, run, left)
            _note_shares(db, run, ended, pids)
            now = time.monotonic()
            run.seconds = now - began
            shares = run.shares if len(run.done_by) <= MOST_SHARES else ""
            show(len(run.results), f"{run.rate}  {shares}")
            if not out.is_interactive and now - said >= 1:
                said = now
                out.print(f"{len(run.results):,} of {total:,} done, {run.rate}")


def _note_shares(db: sqlite3.Connection, run: Run, ended: list[str], pids: dict[str, int]) -> None:
    pids.update(queue_file.pids(db))
    for worker_id, count in queue_file.done_by(db, ended):
        if worker_id in pids:  # else it came and went between two looks
            run.done_by[f"pid {pids[worker_id]}"] += count


@contextmanager
def _sigterm_as_ctrl_c() -> Generator[None]:
    def stop(number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
