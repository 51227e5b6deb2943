"""`sitq worker`: a worker in a process of its own, and what signals do to it.

The first SIGTERM, SIGINT or SIGHUP drains, the second interrupts, the third kills. The first two
are heard by the event loop, the third where it arrives: see `stop_signals`.
"""

import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any, Final

import anyio
import anyio.abc
import click

from sitq.adapters import calls
from sitq.adapters.current import current_loop
from sitq.cli import stop_signals
from sitq.cli.terminal import shown
from sitq.exceptions import SitqError, StoreUnreachableError, ValidationError
from sitq.queue import TaskQueue
from sitq.sync import SyncTaskQueue
from sitq.worker import Worker

GRACE: Final = 30.0
"""Seconds that running tasks have after the first signal, where nobody says otherwise."""
OPEN_AGAIN: Final = 0.5
"""Seconds until a server is asked again that was away for as long as its backend waits."""
OPENS_WITHIN: Final = 1.0
"""Seconds that opening may still take when a signal has overtaken it: enough for any file."""
LEAVE_AFTER: Final = 2.0
"""Seconds that threads of tasks may still take once the worker has stopped."""
WAKES_THE_LOOP: Final = signal.SIGCONT
"""A loop that listens to any signal is woken by all of them. This one ends nobody who does not."""
OPTIONS: Final = {
    "max_concurrency": "--concurrency",
    "queues": "--queues",
    "poll_interval": "--poll-interval",
    "lease_for": "--lease",
}
"""What a Worker says itself."""


# -- loading ---------------------------------------------------------------------------


def load(target: str, app_dir: str | None, options: Mapping[str, Any]) -> Worker:
    """Return the worker that *target* names, or one for the queue that it names.

    Raises `click.UsageError` if there is none.
    """
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise click.UsageError(f"{target!r} is not MODULE:OBJECT, as in 'shop.tasks:queue'")
    found = _imported(module_name, app_dir)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise click.UsageError(f"{module_name!r} has no {path!r}") from None
    match found:
        case TaskQueue() | SyncTaskQueue():
            try:
                return Worker(found.backend, found.serializer, **options)
            except ValidationError as error:
                raise click.UsageError(str(error)) from None
        case Worker() if options:
            raise click.UsageError(
                f"{target} is a Worker, which says itself what these options would:"
                f" {', '.join(OPTIONS[name] for name in options)}"
            )
        case Worker():
            return found
        case _:
            kind = type(found).__name__
            raise click.UsageError(
                f"{target} is of type {kind}; it must be a TaskQueue, a SyncTaskQueue or a Worker"
            )


def _imported(name: str, app_dir: str | None) -> Any:
    if app_dir is not None:
        sys.path.insert(0, os.path.abspath(app_dir))  # noqa: PTH100
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error
        hint = "" if app_dir else "; where it lies is said by --app-dir, as in --app-dir ."
        raise click.UsageError(f"there is no module {error.name!r}{hint}") from None
    except Exception as error:
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> click.UsageError:
    """Say in a line what went wrong while a module was imported, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}, line {last.lineno}"
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
    what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    return click.UsageError(f"{name!r} could not be imported: {shown(what)} ({shown(where)})")


def require_loop(*, trio: bool) -> None:
    """Refuse trio where it is not installed."""
    if trio and importlib.util.find_spec("trio") is None:
        raise click.UsageError(
            "--trio needs trio, which is not installed; from a clone of the repository:"
            " pip install '.[trio]'"
        )


# -- running ---------------------------------------------------------------------------


def say(text: str) -> None:
    """Tell on the standard error what the worker does; if nobody reads it, it works all the same."""
    with contextlib.suppress(OSError):
        click.echo(f"sitq: {text}", err=True)


def run(
    worker: Worker,
    *,
    grace: float,
    drain: bool = False,
    trio: bool,
    say: Callable[[str], None] = say,
    ready: Callable[[], None] | None = None,
) -> None:
    """Run *worker* until it has stopped; where threads of tasks do not end, end the process.

    *ready* is called once its store is open.
    """
    with stop_signals.installed():
        _run_heard(partial(_run, worker, grace, drain, say, ready), worker, trio=trio, say=say)


def _run_heard(
    main: Callable[[], Awaitable[None]],
    worker: Worker,
    *,
    trio: bool,
    say: Callable[[str], None],
) -> None:
    stop_signals.hand_to(stop_signals.count)  # from here on a loop is told, and not interrupted
    say(
        f"worker {os.getpid()} on {worker.backend!r}, queues {', '.join(worker.queues)},"
        f" {worker.max_concurrency} at a time"
    )
    try:
        anyio.run(main, backend="trio" if trio else "asyncio")
    finally:
        stop_signals.hand_to(stop_signals.count)
    stuck = _wait_for_threads()
    if not stuck:
        say(f"worker {os.getpid()} has stopped")
        return
    say(
        f"worker {os.getpid()} has stopped, and leaves behind what does not end:"
        f" {', '.join(stuck)}; what ran there was handed back"
    )
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _run(
    worker: Worker,
    grace: float,
    drain: bool,
    say: Callable[[str], None],
    ready: Callable[[], None] | None,
) -> None:
    error: SitqError | None = None
    async with anyio.create_task_group() as tasks:
        opening = anyio.CancelScope()
        await tasks.start(_listen, worker, grace, say, opening)
        try:
            if await _open(worker, say, opening):
                _keep_for_good()
                if ready is not None:
                    ready()
                await (worker.drain() if drain else worker.start())
        except SitqError as raised:
            error = raised  # outside, where no task group wraps it
        if not opening.cancelled_caught or await _has_opened(worker):
            await worker.backend.close()  # the last one on a file takes its -wal away
        tasks.cancel_scope.cancel()
    if error is not None:
        raise error


async def _open(worker: Worker, say: Callable[[str], None], opening: anyio.CancelScope) -> bool:
    """Open the store, and return True; False if *opening* was cancelled.

    A server that is away is waited for as long as it takes.
    """
    attempt, told_at = 0, 1
    with opening:
        while True:
            try:
                await worker.backend.session()
            except StoreUnreachableError as error:
                attempt += 1
                if attempt == told_at:  # it has taken twice as long as when it was told last
                    told_at *= 2
                    waits = "waits for the server" if attempt == 1 else "still waits"
                    say(f"worker {os.getpid()} {waits}: {shown(str(error))}")
            else:
                return True
            await anyio.sleep(OPEN_AGAIN)
    return False


def _keep_for_good() -> None:
    """Have the garbage collector leave alone what was imported: it stays until the end.

    At full pace it looks at everything twice a second. Without a single module of an application,
    each time takes 8 ms in which no task goes on, and 0.4 if it need not look at what is here now.
    """
    gc.collect()
    gc.freeze()


async def _has_opened(worker: Worker) -> bool:
    """Whether a store opens that nobody waits for any more: a file does, at once."""
    with anyio.move_on_after(OPENS_WITHIN), contextlib.suppress(SitqError):
        await worker.backend.session()
        return True
    return False


async def _listen(
    worker: Worker,
    grace: float,
    say: Callable[[str], None],
    opening: anyio.CancelScope,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    """Do what the signals say, those included that came before."""
    loop, bell, done = current_loop(), anyio.Event(), 0

    def ring() -> None:
        bell.set()  # the one of then

    def heard(number: int) -> None:
        stop_signals.count(number)
        loop.soon_from_thread(ring)

    with anyio.open_signal_receiver(WAKES_THE_LOOP):
        stop_signals.hand_to(heard)
        task_status.started()
        async with anyio.create_task_group() as stops:
            while True:
                bell = anyio.Event()
                for number in stop_signals.heard[done:2]:
                    done += 1
                    name = stop_signals.name_of(number)
                    opening.cancel()  # nobody waits for a server that is away
                    if done == 1:
                        say(f"{name}: no new tasks; running ones have {grace:g} s to end")
                        stops.start_soon(worker.stop, grace)
                    else:
                        say(f"{name} again: running tasks are interrupted and handed back")
                        stops.start_soon(worker.stop, 0)
                await bell.wait()


def _wait_for_threads() -> list[str]:
    """Give threads of interrupted tasks a while; return where those stand that do not end."""
    until = time.monotonic() + LEAVE_AFTER
    while (stuck := _task_threads()) and time.monotonic() < until:
        time.sleep(0.02)
    return stuck


def _task_threads() -> list[str]:
    """Return where each thread stands that runs a task's function."""
    places: list[str] = []
    for ident, top in sys._current_frames().items():  # noqa: SLF001  # documented; to look only
        frame: FrameType | None = top
        while frame is not None and frame.f_code.co_filename != calls.__file__:
            frame = frame.f_back
        if frame is not None and ident != threading.get_ident():
            code = top.f_code
            places.append(f"{code.co_name} ({code.co_filename}, line {top.f_lineno})")
    return places
