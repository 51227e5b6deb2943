"""`sitq worker`: a worker in a process of its own, and what signals do to it."""

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
import click

from sitq.backends.sqlite import SQLiteBackend
from sitq.queue import TaskQueue
from sitq.sync import SyncTaskQueue
from sitq.worker import Worker

GRACE: Final = 30.0
"""Seconds that running tasks have after the first signal, where nobody says otherwise."""
LEAVE_AFTER: Final = 2.0
"""Seconds that threads of tasks may still take once the worker has stopped."""


def load(target: str, app_dir: str | None, options: Mapping[str, Any]) -> Worker:
    """Return the worker that *target* names, or one for the queue that it names."""
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise click.UsageError(f"{target!r} is not MODULE:OBJECT, as in 'shop.tasks:queue'")
    if app_dir is not None:
        sys.path.insert(0, os.path.abspath(app_dir))  # noqa: PTH100
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        hint = "" if app_dir else "; where it lies is said by --app-dir, as in --app-dir ."
        raise click.UsageError(f"there is no module {module_name!r}{hint}") from None
    for name in path.split("."):
        if not hasattr(found, name):
            raise click.UsageError(f"{module_name!r} has no {path!r}")
        found = getattr(found, name)
    match found:
        case TaskQueue() | SyncTaskQueue():
            return Worker(found.backend, found.serializer, **options)
        case Worker() if options:
            raise click.UsageError(f"{target} is a Worker, which has its own {', '.join(options)}")
        case Worker():
            return found
        case _:
            kind = type(found).__name__
            raise click.UsageError(f"{target} is a {kind}; it must be a TaskQueue or a Worker")


def run(worker: Worker, *, grace: float, drain: bool, log_level: str, trio: bool) -> None:
    """Run *worker* until it has stopped, and leave the process."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    _say(f"worker {os.getpid()} on {worker.backend!r}, {worker.max_concurrency} at a time")
    anyio.run(partial(_run, worker, grace, drain=drain), backend="trio" if trio else "asyncio")
    _say(f"worker {os.getpid()} has stopped")
    leave()


async def _run(worker: Worker, grace: float, *, drain: bool) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_listen, worker, grace, tasks.start_soon)
        await (worker.drain() if drain else worker.start())
        tasks.cancel_scope.cancel()


async def _listen(worker: Worker, grace: float, start_soon: Callable[..., object]) -> None:
    heard = 0
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            heard += 1
            name = signal.Signals(number).name
            if heard == 1:
                _say(f"{name}: no new tasks; running ones have {grace:g} s to end")
                start_soon(worker.stop, grace)
            elif heard == 2:
                _say(f"{name} again: running tasks are interrupted and handed back")
                start_soon(worker.stop, 0)
            else:
                _say(f"{name} once more: killed")
                os._exit(128 + number)


def run_until_input_closes(path: str, *, slots: int, trio: bool) -> None:
    """Work on the file until the standard input ends: so does whoever started us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the one who started us
    worker = Worker(SQLiteBackend(path), max_concurrency=slots, poll_interval=0.1)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.start)
            await anyio.to_thread.run_sync(sys.stdin.buffer.read)
            await worker.stop(grace=5)

    anyio.run(run, backend="trio" if trio else "asyncio")
    leave()


def leave() -> None:
    """End the process, also where a thread of a task that was interrupted does not end."""
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.daemon
    ]
    for thread in others:
        thread.join(LEAVE_AFTER / len(others))
    stuck = [thread for thread in others if thread.is_alive()]
    if stuck:
        _say(f"left without {len(stuck)} threads of interrupted tasks, which do not end")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _say(text: str) -> None:
    click.echo(f"sitq: {text}", err=True)
