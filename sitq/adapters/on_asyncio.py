"""asyncio's own calls, and SQLite through aiosqlite.

aiosqlite gives the connection a thread and takes care of opening and closing it. A batch is
one function put into that thread's queue: one hop for each transaction instead of one for
each statement, and no asyncio task that a cancellation could reach.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import aiosqlite
import anyio

from sitq.adapters.base import Answer, apply_in_thread
from sitq.adapters.hints import Heard, told_nobody
from sitq.adapters.sqlite import SqliteSettings, SqliteStore
from sitq.exceptions import BackendClosedError
from sitq.protocol.ops import Op

F = TypeVar("F")
T = TypeVar("T")


def is_here() -> bool:
    """Say whether the caller runs in an asyncio event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class AsyncioTaskGroup(asyncio.TaskGroup):
    """asyncio's own, with the face that trio's has."""

    def start_soon(
        self, function: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any, name: str
    ) -> None:
        self.create_task(function(*args), name=name)


class AsyncioLoop:
    name = "asyncio"

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._scope: type[anyio.CancelScope] | None = None

    def time(self) -> float:
        return self._loop.time()

    def soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon(function)

    def soon_from_thread(self, function: Callable[[], object]) -> None:
        try:  # noqa: SIM105  # as below
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop is closed: nobody listens any more

    def task_group(self) -> AsyncioTaskGroup:
        return AsyncioTaskGroup()

    def answer(self, ask: Callable[[Callable[[T], object]], object]) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self._loop.create_future()

        def give(answer: T) -> None:
            if not future.done():  # it is if its task was cancelled
                future.set_result(answer)

        ask(give)
        return future

    def scope(self) -> anyio.CancelScope:
        if self._scope is None:
            self._scope = type(anyio.CancelScope())  # to ask anyio itself has each made twice
        return self._scope(shield=True)

    def watch(self, descriptor: int, readable: Callable[[], object]) -> Callable[[], object]:
        def end() -> None:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)

        self._loop.add_reader(descriptor, readable)
        return end

    def when_writable(self, descriptor: int, function: Callable[[], object]) -> None:
        def writable() -> None:
            self._loop.remove_writer(descriptor)
            function()

        self._loop.add_writer(descriptor, writable)

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        self._loop.call_later(seconds, function)

    def is_over(self) -> bool:
        return self._loop.is_closed()

    def is_current(self) -> bool:
        return asyncio._get_running_loop() is self._loop  # noqa: SLF001  # what drivers may use

    def cancelled_outside(self) -> Callable[[], bool]:
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        return lambda: task.cancelling() > before

    async def clear_own_cancellation(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        if task.cancelling():
            while task.uncancel():
                pass
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # before 3.13, uncancel() leaves it to be thrown here

    def guard(self, function: F) -> F:
        return function  # here Ctrl-C reaches the main task, never the one that happens to run


class AiosqliteDriver:
    """Applies batches on the thread of one aiosqlite connection.

    While tasks keep the loop busy, that thread waits for the interpreter, which they need not give up
    for 5 ms at a time (`sys.getswitchinterval`). So what it is told of is better told at once. (On trio
    that was found to gain nothing: there, each turn of the loop costs more.)
    """

    quick = 150e-6

    def __init__(self, loop: AsyncioLoop, settings: SqliteSettings) -> None:
        self._loop = loop
        self._store = SqliteStore(settings)
        self._db = _Connection(self._store.open, iter_chunk_size=64)
        self._opening: asyncio.Task[None] | None = None  # asyncio itself holds tasks weakly

    def begin_open(self, done: Callable[[Exception | None], None]) -> None:
        async def connect() -> None:
            try:
                await self._db
            finally:
                # aiosqlite ends its thread if it could not connect; that thread still speaks to
                # the loop, which may be over once the error is out.
                if self._db.stopped is not None:
                    await self._db.stopped

        def opened(task: asyncio.Task[None]) -> None:
            self._opening = None
            if task.cancelled():
                done(BackendClosedError("the event loop ended while the file was being opened"))
            else:
                error = task.exception()
                assert error is None or isinstance(error, Exception)
                done(error)

        self._opening = asyncio.get_running_loop().create_task(connect())
        self._opening.add_done_callback(opened)

    def begin(
        self, ops: Sequence[Op], done: Callable[[Answer], None], told: Heard = told_nobody
    ) -> None:
        self._db.submit(partial(apply_in_thread, self._store, ops, self._loop, done, told))

    def begin_close(self, done: Callable[[], None]) -> None:
        self._db.submit(self._store.close)
        stopped = self._db.stop()
        assert stopped is not None, "a loop runs here"
        stopped.add_done_callback(lambda _: done())

    def abandon(self) -> None:
        self._db.submit(self._store.close)
        self._db.submit(self._db.end)


class _Connection(aiosqlite.Connection):
    """aiosqlite's connection, with a way to hand its thread a function and not wait.

    This is the one place that touches what aiosqlite keeps protected: `_thread` and `_tx`, as
    they are since 0.22. A test holds them to it.
    """

    def __init__(self, connector: "Callable[[], object]", iter_chunk_size: int) -> None:
        super().__init__(connector, iter_chunk_size)  # type: ignore[arg-type]
        self.stopped: asyncio.Future[object] | None = None
        self._thread.daemon = True  # a program that never closes us must still be able to end

    def stop(self) -> "asyncio.Future[object] | None":
        self.stopped = super().stop()
        return self.stopped

    def end(self) -> None:
        """End the thread; called in it, where no loop is, so there is nobody to be told."""
        super().stop()

    def submit(self, function: Callable[[], None]) -> None:
        self._tx.put_nowait((None, function))

    def __del__(self) -> None:
        """Say nothing: a program need not close its backends."""
