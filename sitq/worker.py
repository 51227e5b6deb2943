"""`Worker`: runs the tasks of a backend's queues, on asyncio or trio, until it is stopped."""

import math
import os
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

import anyio
from anyio.abc import TaskGroup

from sitq import validation
from sitq.adapters import clocks
from sitq.adapters.worker import WorkerDriver
from sitq.backends.base import Backend, checked_backend
from sitq.exceptions import WorkerRunningError
from sitq.protocol.heartbeat import BLOCKED_AFTER
from sitq.protocol.lease import RENEWALS_PER_LEASE, UPKEEP_EVERY, WATCH_EVERY, LeaseConfig
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
            are told of at once, by whichever process of this host; this is for what was not heard.
        queues: the queues it serves (default: `"default"`). By priority, whatever the queue.
        lease_for: seconds that the worker may be out of touch with the store before others may
            take its tasks (default: 30). It is renewed three times in that, in a thread of its own.
        grace: seconds that `stop()` waits for running tasks before it interrupts them, where it
            is not told itself (default: None, for as long as they take).
        blocked_after: seconds after which a task that keeps the event loop busy is named in the
            log, with the line at which it stands (default: 2; None: never).
        record: a file for what the worker hears and decides, which `sitq replay` and
            `sitq.testing.replay` step through (default: None). It has no payloads, no results and
            no texts of errors, and takes 16 MiB at most, half of them in *record*.2.

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
        blocked_after: float | None = BLOCKED_AFTER,
        record: str | os.PathLike[str] | None = None,
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
        self.blocked_after = None
        if blocked_after is not None:
            self.blocked_after = validation.seconds("blocked_after", blocked_after, zero=False)
        self.record = None if record is None else validation.path("record", record)
        self._running = False
        self._driver: WorkerDriver | None = None
        self._starts: WeakSet[_Start] = WeakSet()  # calls of start() that have not ended
        self._was_started = False
        self._early_stops: list[float | None] = []  # asked before the first start()
        self._group: TaskGroup | None = None

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
        # between is meant for this start, and must not be lost. Only the coroutine holds the
        # note, so one that never runs is forgotten.
        start = _Start(drain, self._early_stops)
        self._early_stops = []
        self._was_started = True
        self._starts.add(start)
        return self._run(start)

    async def _run(self, start: "_Start") -> None:
        if self._running:
            raise _running_already()
        if start.stops:
            return
        self._running = True
        start.over = anyio.Event()
        try:
            await self._drive(start)
        finally:
            self._running = False
            start.over.set()

    async def _drive(self, start: "_Start") -> None:
        session = await self.backend.session()
        # Where everything is told there is nothing to look for: days of a virtual run pass without
        # a poll.
        told = session.hints.are_complete
        renewed_every = self.lease_for / RENEWALS_PER_LEASE
        driver = WorkerDriver(
            config=WorkerConfig(
                queues=self.queues,
                max_concurrency=self.max_concurrency,
                poll_interval=math.inf if told else self.poll_interval,
                drain=start.drain,
                quick=session.quick,
            ),
            lease=LeaseConfig(
                host=clocks.host(),
                pid=clocks.pid(),
                queues=self.queues,
                max_concurrency=self.max_concurrency,
                lease_for=self.lease_for,
                retention=self.backend.retention,
                stamps=self.serializer.stamps(),
                watch_every=max(WATCH_EVERY, renewed_every) if told else WATCH_EVERY,
                upkeep_every=max(UPKEEP_EVERY, renewed_every) if told else UPKEEP_EVERY,
            ),
            session=session,
            serializer=self.serializer,
            blocked_after=self.blocked_after,
            record=self.record,
        )
        for grace in start.stops:
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
            return
        starts = list(self._starts)
        if not self._was_started:
            self._early_stops.append(limit)
        for start in starts:
            start.stops.append(limit)
        for start in starts:
            if start.over is not None:  # it is connecting
                await start.over.wait()

    async def __aenter__(self) -> Self:
        """Start in the background; raise at once if the backend cannot be used, or it runs already."""
        if self._running or self._group is not None:
            raise _running_already()
        await self.backend.session()
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self.start)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Stop, with the worker's *grace*; at once if the block was left by an exception."""
        group, self._group = self._group, None
        assert group is not None
        error = exc
        if exc is None:
            try:
                await self.stop()
            except BaseException as raised:  # noqa: BLE001  # the task group has the last word
                error = raised
        elif not _holds_cancellation(exc):
            # It is the caller's, and leaves the block as it is; a task group would wrap it.
            group.cancel_scope.cancel()
            error = None
        try:
            swallowed = await group.__aexit__(
                type(error) if error is not None else None, error, traceback
            )
        except BaseExceptionGroup as raised_together:
            causes = list(raised_together.exceptions)
            if len(causes) > 1:
                raise
            raise causes[0] from None
        if error is not None and error is not exc and not swallowed:
            raise error
        return swallowed if error is exc else False

    def __repr__(self) -> str:
        return f"Worker({self.backend!r}, max_concurrency={self.max_concurrency})"


class _Start:
    """One call of `start()`, from then until it has ended."""

    def __init__(self, drain: bool, stops: list[float | None]) -> None:
        self.drain = drain
        self.stops = stops  # asked since, while there was no driver to hear of them
        self.over: anyio.Event | None = None  # there once it runs


def _holds_cancellation(error: BaseException) -> bool:
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(cancelled) is not None
    return isinstance(error, cancelled)


def _running_already() -> WorkerRunningError:
    return WorkerRunningError(
        "this worker is running already; await stop() first, or make another Worker on the same"
        " backend"
    )
