"""`ManualQueue`: a queue for one test, which moves its time and runs its tasks by hand.

The promises: nothing runs but in `drain()`, nothing becomes due but by `clock`, and no drain
starts a thread. The worker is the real one, and calls are serialised as for a file.
"""

import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from datetime import timedelta
from typing import Any, Final, NoReturn, Unpack

import anyio

from sitq import validation
from sitq.adapters.base import Store
from sitq.adapters.current import current_loop
from sitq.adapters.hints import Heard
from sitq.adapters.virtual import Virtual, run_of_caller, virtual
from sitq.backends.memory import MemoryBackend
from sitq.core import Result
from sitq.exceptions import CheckFailed, NoEventLoopError, ResultTimeout
from sitq.queue import TaskQueue
from sitq.serialization import Call, Serializer
from sitq.sync import SyncTaskQueue
from sitq.task import OptionFields
from sitq.testing.manual.clock import ManualClock
from sitq.testing.manual.expectation import Asked, Expectation
from sitq.testing.manual.witness import EnqueuedTask, Witness
from sitq.testing.replaced_calls import ReplacedCalls
from sitq.testing.virtual.running import LoopName, run
from sitq.validation import name_of
from sitq.worker import Worker

LEASE: Final = 86400.0
"""Seconds: no other worker is there to take over, so it need not be looked after often."""


class ManualQueue(SyncTaskQueue):
    """A `SyncTaskQueue` in memory that also works its tasks off.

    It never blocks, so it can be used in async tests as it is. `queue` is the same as a
    `TaskQueue`, for code that awaits; both stand on `backend`.

    Args:
        serializer: how calls and results become bytes (default: `CloudpickleSerializer`).
        loop: where tasks run if the test is a plain function, `"asyncio"` or `"trio"`.
        **defaults: options of all tasks that say nothing else, as in `Options`.
    """

    def __init__(
        self,
        serializer: Serializer | None = None,
        *,
        loop: LoopName = "asyncio",
        **defaults: Unpack[OptionFields],
    ) -> None:
        self.clock = ManualClock()
        backend = _WatchedMemory(self.clock)
        super().__init__(backend, serializer, **defaults)
        self.queue = TaskQueue(backend, self.serializer, **defaults)
        self._witness = backend.watch(self.serializer)
        self._loop: LoopName = loop
        self._drains = 0
        self._failures: dict[str, deque[BaseException | type[BaseException]]] = {}

    # -- running ---------------------------------------------------------------------------

    def drain(self) -> Awaitable[None]:
        """Run all that is due, and what that enqueues, one task after the other.

        In a plain test it is done when this returns; time that tasks sleep passes at once. Where
        an event loop runs, await it: tasks run on that loop.
        """
        self._drains += 1
        try:
            current_loop()
        except NoEventLoopError:
            run(self._work, seed=self._drains, backend=self._loop, start=self.clock.now())
            return _Done()
        return self._work_here()

    def fail_next(
        self, task: Callable[..., Any], error: BaseException | type[BaseException]
    ) -> None:
        """Have the next run of *task*, a function, raise *error* instead. Say it twice for two."""
        validation.function(task)
        self._failures.setdefault(name_of(task), deque()).append(error)

    async def _work(self) -> None:
        worker = ReplacedCalls(self.serializer, self._failing)
        served: list[str] = []
        while served != (queues := self._witness.queues()):  # a task may have begun another queue
            served = queues
            await Worker(self.backend, worker, queues=served, lease_for=LEASE).drain()

    async def _work_here(self) -> None:
        await self.backend.session()  # the loop's own, of use before and after
        if virtual() is not None:
            await self._work()
            return
        here = Virtual(
            start_ms=self.clock.moment().wall_ms - math.floor(1000 * anyio.current_time()),
            epoch="by hand",
            seconds=anyio.current_time,
            skip=_refuse_to_block,
            unit=random.Random(self._drains).random,  # noqa: S311
        )
        token = run_of_caller.set(here)
        try:
            await self._work()
        finally:
            run_of_caller.reset(token)

    def _failing(self, call: Call) -> Call:
        waiting = self._failures.get(name_of(call.function))
        if not waiting:
            return call
        return Call(_raise, (waiting.popleft(),), {})

    # -- asking ----------------------------------------------------------------------------

    def get_result(self, task_id: str, timeout: float | timedelta | None = None) -> Result | None:
        """Look once, whatever the timeout: nothing can happen meanwhile."""
        result = super().get_result(task_id, 0)
        if result is None and timeout is None:
            raise ResultTimeout(
                f"task {task_id} has not ended, and nothing runs here but in drain(); if it is"
                " scheduled for later, clock.advance(...) first",
                task_id,
            )
        return result

    def enqueued(self) -> list[EnqueuedTask]:
        """Return all tasks that wait to be run, in the order in which they were enqueued."""
        return [task for task in self._witness.tasks() if task.waits]

    def assert_enqueued(self, task: Callable[..., Any], **asked: Unpack[Asked]) -> EnqueuedTask:
        """Return the first task that waits and is a call of *task*, a function, as it was *asked*.

        Args:
            task: the function.
            **asked: any of `args`, `kwargs`, `queue`, `priority`, `eta` and `task_id`.

        Raises:
            CheckFailed: there is none. It is an `AssertionError`.
        """
        __tracebackhide__ = True
        wanted = _expectation(task, asked)
        found = wanted.among(self.enqueued())
        if not found:
            raise CheckFailed(wanted.why_none(self._witness.tasks(), self.clock.now()))
        return found[0]

    def refute_enqueued(self, task: Callable[..., Any], **asked: Unpack[Asked]) -> None:
        """Raise `CheckFailed`, an `AssertionError`, if such a call waits as for `assert_enqueued`."""
        __tracebackhide__ = True
        wanted = _expectation(task, asked)
        found = wanted.among(self.enqueued())
        if found:
            raise CheckFailed(wanted.why_some(found, self.clock.now()))

    def __repr__(self) -> str:
        return f"<ManualQueue at {self.clock.now()}>"


class _WatchedMemory(MemoryBackend):
    """A store in memory with a clock of its own, of which all is known that goes into it."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(moment=clock.moment)
        self._witness: Witness | None = None

    def watch(self, serializer: Serializer) -> Witness:
        self._witness = Witness(self._store, serializer)
        return self._witness

    def open_store(self) -> Store:
        assert self._witness is not None, "watched from the beginning"
        return self._witness

    def listen(self, heard: Heard) -> bool:
        """In a plain test's drain nobody else is there to change anything."""
        hears_all = virtual() is not None
        self._store.heard = heard if hears_all else None
        return hears_all


class _Done:
    """A drain that is over, for whoever awaits it all the same."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


def _expectation(task: Callable[..., Any], asked: Asked) -> Expectation:
    validation.function(task)
    return Expectation(name=name_of(task), **asked)


def _raise(error: BaseException | type[BaseException]) -> NoReturn:
    raise error


def _refuse_to_block(seconds: float) -> NoReturn:  # pragma: no cover
    raise AssertionError(f"nobody sleeps for {seconds} s in a drain")
