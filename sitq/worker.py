"""`Worker`: runs the tasks of a backend's queues, on asyncio or trio, until it is stopped."""

import os
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import anyio

from sitq import validation
from sitq.adapters import clocks
from sitq.adapters.worker import WorkerDriver
from sitq.backends.base import Backend, checked_backend
from sitq.exceptions import WorkerRunningError
from sitq.protocol.lease import LeaseConfig
from sitq.protocol.worker import WorkerConfig
from sitq.serialization import Serializer, checked_serializer

SHORTEST_LEASE: Final = 1.0


class Worker:
    """Runs tasks, at most *max_concurrency* at a time.

    Args:
        backend: where the tasks are kept. `stop()` does not close it: others may use it.
        serializer: how calls are read and results written (default: `CloudpickleSerializer`).
        max_concurrency: tasks at a time, 1 to 1,000 (default: 1). Coroutine functions run on the
            event loop, others in as many threads.
        poll_interval: seconds between looks for tasks when there are none (default: 1). New tasks
            of the same process are seen at once.
        queues: the queues it serves (default: `"default"`). By priority, whatever the queue.
        lease_for: seconds that the worker may be out of touch with the store before others may
            take its tasks (default: 30). It is renewed three times in that, in a thread of its own.
        grace: seconds that `stop()` waits for running tasks before it interrupts them, where it
            is not told itself (default: None, for as long as they take).

    Raises:
        ValidationError: an argument is wrong.
    """

    def __init__(
        self,
        backend: Backend,
        serializer: Serializer | None = None,
        max_concurrency: int = 1,
        poll_interval: float = 1.0,
        *,
        queues: Sequence[str] = ("default",),
        lease_for: float = 30.0,
        grace: float | None = None,
    ) -> None:
        self.backend = checked_backend(backend)
        self.serializer = checked_serializer(serializer)
        self.max_concurrency = validation.whole(
            "max_concurrency", max_concurrency, 1, validation.MAX_CONCURRENCY
        )
        self.poll_interval = validation.seconds("poll_interval", poll_interval, zero=False)
        self.queues = validation.queues(queues)
        self.lease_for = validation.number("lease_for", lease_for, SHORTEST_LEASE, 86400.0)
        self.grace = None if grace is None else validation.seconds("grace", grace)
        self._running = False
        self._driver: WorkerDriver | None = None
        self._starts = 0  # calls of start() that have not ended
        self._was_started = False
        self._stops: list[float | None] = []  # asked while no driver was there to hear them
        self._context: AbstractAsyncContextManager[None] | None = None

    # -- starting --------------------------------------------------------------------------

    def start(self) -> Coroutine[Any, Any, None]:
        """Run until `stop()` is called.

        Cancelling it is `stop(grace=0)`: running tasks are interrupted and handed back, and the
        cancellation goes on.

        Raises:
            WorkerRunningError: it is running already.
            BackendError: the backend cannot be used.
        """
        return self._called(drain=False)

    def drain(self) -> Coroutine[Any, Any, None]:
        """Work until nothing is due, then return. Tasks that are scheduled for later stay.

        Raises as `start()` does.
        """
        return self._called(drain=True)

    def _called(self, *, drain: bool) -> Coroutine[Any, Any, None]:
        # Noted here and not in the coroutine, which begins to run later: a stop() that comes in
        # between is meant for this start, and must not be lost.
        self._starts += 1
        self._was_started = True
        return self._run(drain=drain)

    async def _run(self, *, drain: bool) -> None:
        try:
            if self._running:
                raise WorkerRunningError(
                    "this worker is running already; await stop() first, or make another Worker on"
                    " the same backend"
                )
            if not self._stops:
                self._running = True
                await self._drive(drain=drain)
        finally:
            self._starts -= 1
            if self._driver is None:
                self._running = False
                self._stops.clear()

    async def _drive(self, *, drain: bool) -> None:
        driver = WorkerDriver(
            config=WorkerConfig(
                queues=self.queues,
                max_concurrency=self.max_concurrency,
                poll_interval=self.poll_interval,
                drain=drain,
            ),
            lease=LeaseConfig(
                host=clocks.host(),
                pid=os.getpid(),
                queues=self.queues,
                max_concurrency=self.max_concurrency,
                lease_for=self.lease_for,
                retention=self.backend.retention,
                stamps=self.serializer.stamps(),
            ),
            session=await self.backend.session(),
            serializer=self.serializer,
        )
        for grace in self._stops:
            driver.stop(grace)
        self._driver = driver
        try:
            await driver.run()
        finally:
            self._driver = None

    # -- stopping --------------------------------------------------------------------------

    async def stop(self, grace: float | timedelta | None = None) -> None:
        """Reserve nothing more, let running tasks end, and return once the worker has stopped.

        It may be called from any task, more than once, and before `start()`, which then returns
        at once. Called by a task that this worker runs, it does not wait for itself to end.

        Args:
            grace: seconds or a timedelta after which running tasks are interrupted and handed
                back, without an attempt being charged (default: the worker's *grace*).
        """
        limit = self.grace if grace is None else validation.seconds("grace", grace)
        if self._driver is not None:
            self._driver.stop(limit)
            await self._driver.wait_ended()
        elif self._starts or not self._was_started:
            self._stops.append(limit)

    async def __aenter__(self) -> Self:
        """Start in the background; raise at once if the backend cannot be used."""
        await self.backend.session()
        self._context = self._in_background()
        await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Stop, with the worker's *grace*; at once if the block was left by an exception."""
        context, self._context = self._context, None
        assert context is not None
        try:
            return await context.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            # A task group wraps what is raised in it; the caller raised it in a plain block.
            causes = list(group.exceptions)
            if len(causes) > 1:
                raise
            if causes[0] is exc:
                return False
            raise causes[0] from None

    @asynccontextmanager
    async def _in_background(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.start)
            yield
            await self.stop()

    def __repr__(self) -> str:
        return f"Worker({self.backend!r}, max_concurrency={self.max_concurrency})"
