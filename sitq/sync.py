"""`SyncTaskQueue`: the same queue for code that has no event loop, or does not want one.

It runs the same storage programs on a plain connection of its own, in the thread that calls:
no event loop, no thread. It may be used from several threads, and inside an event loop too,
where it blocks for as long as a commit takes.
"""

import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

from sitq.adapters import clocks
from sitq.adapters.base import BatchError, Store, answer_of, in_doubt, refused, tidy_up
from sitq.adapters.doorbell import ring
from sitq.adapters.virtual import virtual
from sitq.adapters.within import OwnConnection, Within
from sitq.backends.base import Backend, checked_backend
from sitq.core import Result, TaskId
from sitq.exceptions import BackendClosedError, CommitUnknownError, ValidationError
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Cancel, Fetch, Fetched, Op, Outcome
from sitq.protocol.waiter import (
    Answered,
    Ask,
    Deliver,
    GiveUp,
    Miss,
    Tick,
    WaiterMachine,
    WaitStarted,
)
from sitq.request import (
    Desk,
    awaited,
    cancelled,
    checked_ids,
    checked_wait,
    ended,
    enqueued,
    not_known,
    one_call,
    value_of,
)
from sitq.serialization import Serializer, checked_serializer
from sitq.task import DEFAULTS, OptionFields, Options, Task, TaskFunction, added

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SyncEnqueuer:
    """Enqueues with some options changed: what `queue.using(...)` and `queue.within(...)` give."""

    def __init__(
        self, queue: "SyncTaskQueue", changes: OptionFields, within: Within | None = None
    ) -> None:
        self._queue = queue
        self._changes = changes
        self._within = within

    def using(self, **options: Unpack[OptionFields]) -> "SyncEnqueuer":
        """Return one with more options changed."""
        return SyncEnqueuer(self._queue, added(self._changes, options), self._within)

    @overload
    def enqueue(
        self,
        function: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskId[T]: ...
    @overload
    def enqueue(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskId[T]: ...
    def enqueue(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskId[Any]:
        """Store a call of *function*; return its id. Raises as `TaskQueue.enqueue` does."""
        (task_id,) = self.enqueue_many([Task(function, *args, **kwargs)])
        return task_id

    def enqueue_many(self, tasks: Iterable[Task[T]]) -> list[TaskId[T]]:
        """Store all of *tasks*, or none; return their ids in the same order."""
        return self._queue._store(tasks, self._changes, self._within)  # noqa: SLF001


class SyncQueuedFunction(TaskFunction[P, R_co, T_co]):
    """A function that can be enqueued: what `@queue.task` makes. Calling it just calls it."""

    def __init__(
        self, function: Callable[P, R_co], options: Options, queue: "SyncTaskQueue"
    ) -> None:
        super().__init__(function, options)
        self._queue = queue

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskId[T_co]:
        """Store a call; return its id. Raises as `TaskQueue.enqueue` does."""
        (task_id,) = self._queue._store([self.call(*args, **kwargs)], {})  # noqa: SLF001
        return task_id

    def using(self, **options: Unpack[OptionFields]) -> "SyncQueuedFunction[P, R_co, T_co]":
        """Return the same function with other options."""
        changed = self.__sitq_options__.using(**options)
        return SyncQueuedFunction(self.__sitq_function__, changed, self._queue)


class SyncTaskDecorator(Protocol):
    """What `@queue.task(...)` is when it is given options."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> SyncQueuedFunction[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> SyncQueuedFunction[P, T, T]: ...


class SyncTaskQueue:
    """Tasks on a backend, for code without an event loop.

    Args, errors and methods are those of `TaskQueue`, without `await`.
    """

    def __init__(
        self,
        backend: Backend,
        serializer: Serializer | None = None,
        **defaults: Unpack[OptionFields],
    ) -> None:
        self.backend = checked_backend(backend)
        self.serializer = checked_serializer(serializer)
        self._defaults = DEFAULTS.using(**defaults)
        self._desk = Desk(self.serializer, backend.max_payload, self._defaults)
        self._locks: dict[int, threading.Lock] = {}
        self._store_of: tuple[int, Store] | None = None  # with the process that opened it
        self._bells = backend.bells()
        self._closed = False

    # -- handing over ----------------------------------------------------------------------

    @overload
    def enqueue(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        eta: datetime,
        **kwargs: Any,
    ) -> TaskId[T]: ...
    @overload
    def enqueue(
        self, function: Callable[..., T], /, *args: Any, eta: datetime, **kwargs: Any
    ) -> TaskId[T]: ...
    @overload
    def enqueue(
        self,
        function: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskId[T]: ...
    @overload
    def enqueue(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskId[T]: ...
    def enqueue(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskId[Any]:
        """Store a call of *function*; return its id once it is durable."""
        (task_id,) = self._store([one_call(function, args, kwargs)], {})
        return task_id

    def enqueue_many(self, tasks: Iterable[Task[T]]) -> list[TaskId[T]]:
        """Store all of *tasks* in one transaction, or none; return their ids."""
        return self._store(tasks, {})

    def using(self, **options: Unpack[OptionFields]) -> SyncEnqueuer:
        """Return a way to enqueue with these options."""
        return SyncEnqueuer(self, added({}, options))

    def within(self, connection: OwnConnection) -> SyncEnqueuer:
        """Return a way to enqueue within the transaction that is open on *connection*, of yours."""
        within = self.backend.within(connection)
        if within.is_async:
            raise ValidationError(
                f"a SyncTaskQueue cannot await, and {connection!r} must be awaited: give a"
                " Connection; a TaskQueue takes the other"
            )
        return SyncEnqueuer(self, {}, within)

    @overload
    def task(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> SyncQueuedFunction[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def task(self, function: Callable[P, T], /) -> SyncQueuedFunction[P, T, T]: ...
    @overload
    def task(self, /, **options: Unpack[OptionFields]) -> SyncTaskDecorator: ...
    def task(
        self, function: Callable[..., Any] | None = None, /, **options: Unpack[OptionFields]
    ) -> Any:
        """Make a function enqueueable: `@queue.task`, or with options `@queue.task(retry=...)`."""
        if function is not None:
            return SyncQueuedFunction(function, self._defaults, self)
        changed = self._defaults.using(**options)
        return lambda function: SyncQueuedFunction(function, changed, self)

    def _store(
        self, tasks: Iterable[Task[T]], changes: OptionFields, within: Within | None = None
    ) -> list[TaskId[T]]:
        op = self._desk.op(tasks, changes)
        if not op.tasks:
            return []
        if within is not None:
            return enqueued(op, within.apply(op))
        try:
            outcome = self._apply(op)
        except CommitUnknownError as error:
            raise not_known(op, error) from error
        return enqueued(op, outcome)

    # -- asking back -----------------------------------------------------------------------

    def get_result(self, task_id: str, timeout: float | timedelta | None = None) -> Result | None:
        """Wait until the task has ended; return how, or None if it has not in time."""
        task_id, limit = checked_wait(task_id, timeout)
        machine = WaiterMachine(limit)
        effects = machine.receive(WaitStarted(), clocks.monotonic())
        while True:
            match effects:
                case [Ask()]:
                    outcome = self._apply(Fetch((task_id,)))
                    assert isinstance(outcome, Fetched)
                    row = outcome.rows.get(task_id)
                    effects = machine.receive(Answered(row), clocks.monotonic())
                case [Deliver() | GiveUp() | Miss() as end]:
                    return awaited(task_id, end)
                case _:
                    clocks.wait_until(machine.next_deadline())
                    effects = machine.receive(Tick(), clocks.monotonic())

    def get_results(self, task_ids: Iterable[str]) -> dict[str, Result]:
        """Look once at many tasks; return how those ended that have, by id."""
        return ended(self._apply(Fetch(checked_ids(task_ids))))

    @overload
    def result(self, task_id: TaskId[T], timeout: float | timedelta | None = None) -> T: ...
    @overload
    def result(self, task_id: str, timeout: float | timedelta | None = None) -> Any: ...
    def result(self, task_id: str, timeout: float | timedelta | None = None) -> Any:
        """Wait until the task has ended; return what its function returned."""
        task_id, limit = checked_wait(task_id, timeout)
        return value_of(self._desk, task_id, limit, self.get_result(task_id, limit))

    def deserialize_result(self, result: Result) -> Any:
        """Return the value that *result* holds."""
        return self._desk.deserialize(result)

    def cancel(self, task_id: str) -> bool:
        """Cancel a task; return False if it has ended already."""
        task_id, _ = checked_wait(task_id, None)
        return cancelled(task_id, self._apply(Cancel(task_id)))

    # -- the connection --------------------------------------------------------------------

    def _apply(self, op: Op) -> Outcome:
        with self._lock:
            store = self._open()
            answer = answer_of(store, (op,))
            if not isinstance(answer, BatchError):
                if virtual() is None:
                    ring(self._bells, (op,), answer)
                tidy_up(store)
        if isinstance(answer, BatchError):
            if answer.blame is Blame.UNKNOWN:
                raise in_doubt(answer.error) from answer
            raise refused(answer.error) from answer
        return answer[0]

    @property
    def _lock(self) -> threading.Lock:
        """The lock of this process: another thread may have held the parent's at a fork."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _open(self) -> Store:
        if self._closed:
            raise BackendClosedError("this SyncTaskQueue was closed; make another one")
        if self._store_of is None or self._store_of[0] != os.getpid():
            # After a fork the child connects anew; the parent's connection is not touched.
            self._store_of = os.getpid(), self.backend.open_store()
        return self._store_of[1]

    def close(self) -> None:
        """Close the connection. What comes later raises `BackendClosedError`."""
        with self._lock:
            self._closed = True
            if self._store_of is not None and self._store_of[0] == os.getpid():
                self._store_of[1].close()
            self._store_of = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.backend, self.serializer, self._defaults)

    def __repr__(self) -> str:
        return f"SyncTaskQueue({self.backend!r})"


def _again(backend: Backend, serializer: Serializer, defaults: Options) -> SyncTaskQueue:
    """Make a queue with a connection of its own, in whichever process unpickles it."""
    queue = SyncTaskQueue(backend, serializer)
    queue._defaults = defaults  # noqa: SLF001
    queue._desk = Desk(serializer, backend.max_payload, defaults)  # noqa: SLF001
    return queue
