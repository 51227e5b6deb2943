"""`TaskQueue`: hand over work, and get its results.

A queue holds no connection: it speaks through its backend, which connects on first use. Any
number of queues may share a backend.
"""

from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from sitq.adapters.waiting import wait_for_end
from sitq.adapters.within import OwnAsyncConnection, Within
from sitq.backends.base import Backend, checked_backend
from sitq.core import Result, TaskId
from sitq.exceptions import CommitUnknownError, ValidationError
from sitq.protocol.ops import Cancel, Fetch
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


class Enqueuer:
    """Enqueues with some options changed: what `queue.using(...)` and `queue.within(...)` give."""

    def __init__(
        self, queue: "TaskQueue", changes: OptionFields, within: Within | None = None
    ) -> None:
        self._queue = queue
        self._changes = changes
        self._within = within

    def using(self, **options: Unpack[OptionFields]) -> "Enqueuer":
        """Return one with more options changed."""
        return Enqueuer(self._queue, added(self._changes, options), self._within)

    @overload
    async def enqueue(
        self,
        function: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskId[T]: ...
    @overload
    async def enqueue(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskId[T]: ...
    async def enqueue(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> TaskId[Any]:
        """Store a call of *function*; return its id once it is durable.

        Every argument belongs to *function*, also one that is named as an option is. Raises as
        `TaskQueue.enqueue` does.
        """
        (task_id,) = await self.enqueue_many([Task(function, *args, **kwargs)])
        return task_id

    async def enqueue_many(self, tasks: Iterable[Task[T]]) -> list[TaskId[T]]:
        """Store all of *tasks*, or none; return their ids in the same order."""
        return await self._queue._store(tasks, self._changes, self._within)  # noqa: SLF001


class QueuedFunction(TaskFunction[P, R_co, T_co]):
    """A function that can be enqueued: what `@queue.task` makes. Calling it just calls it."""

    def __init__(self, function: Callable[P, R_co], options: Options, queue: "TaskQueue") -> None:
        super().__init__(function, options)
        self._queue = queue

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskId[T_co]:
        """Store a call; return its id once it is durable. Raises as `TaskQueue.enqueue` does."""
        (task_id,) = await self._queue._store([self.call(*args, **kwargs)], {})  # noqa: SLF001
        return task_id

    def using(self, **options: Unpack[OptionFields]) -> "QueuedFunction[P, R_co, T_co]":
        """Return the same function with other options."""
        changed = self.__sitq_options__.using(**options)
        return QueuedFunction(self.__sitq_function__, changed, self._queue)


class TaskDecorator(Protocol):
    """What `@queue.task(...)` is when it is given options."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> QueuedFunction[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> QueuedFunction[P, T, T]: ...


class TaskQueue:
    """Tasks on a backend.

    Args:
        backend: where the tasks are kept.
        serializer: how calls and results become bytes (default: `CloudpickleSerializer`).
        **defaults: options of all tasks that say nothing else, as in `Options`.

    Raises:
        ValidationError: an argument is wrong.
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

    # -- handing over ----------------------------------------------------------------------

    @overload
    async def enqueue(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        eta: datetime,
        **kwargs: Any,
    ) -> TaskId[T]: ...
    @overload
    async def enqueue(
        self, function: Callable[..., T], /, *args: Any, eta: datetime, **kwargs: Any
    ) -> TaskId[T]: ...
    @overload
    async def enqueue(
        self,
        function: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskId[T]: ...
    @overload
    async def enqueue(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskId[T]: ...
    async def enqueue(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> TaskId[Any]:
        """Store a call of *function*; return its id once it is durable.

        Args:
            function: a function, coroutine function or other callable.
            *args: its arguments.
            eta: an aware datetime before which it does not start. All other options are given
                by `using(...)`, so that none can be taken for an argument.
            **kwargs: its keyword arguments.

        Raises:
            ValidationError: an argument is wrong; nothing was stored.
            SerializationError: an argument cannot be turned into bytes; nothing was stored.
            TaskConflictError: the chosen id is taken by another call; nothing was stored.
            StoreError: the store refused; nothing was stored.
            EnqueueUnknown: it was cut off inside COMMIT; ask again under the id it bears.

        Cancelling gives up the wait, never half of the write.
        """
        (task_id,) = await self._store([one_call(function, args, kwargs)], {})
        return task_id

    async def enqueue_many(self, tasks: Iterable[Task[T]]) -> list[TaskId[T]]:
        """Store all of *tasks* in one transaction, or none; return their ids in the same order.

        Raises as `enqueue` does.
        """
        return await self._store(tasks, {})

    def using(self, **options: Unpack[OptionFields]) -> Enqueuer:
        """Return a way to enqueue with these options: `queue.using(delay=5).enqueue(f, 1)`."""
        return Enqueuer(self, added({}, options))

    def within(self, connection: OwnAsyncConnection) -> Enqueuer:
        """Return a way to enqueue within the transaction that is open on *connection*, of yours.

        The tasks are there if you commit, and were never there if you do not. Its `enqueue` can
        raise `StoreError` as well, after which your transaction has failed. Only a PostgresBackend
        can do this, with a psycopg AsyncConnection.

        Raises:
            ValidationError: no transaction can be open on this connection.
            BackendError: the backend cannot do this.
        """
        within = self.backend.within(connection)
        if not within.is_async:
            raise ValidationError(
                f"a TaskQueue awaits, and {connection!r} cannot be awaited: give an"
                " AsyncConnection; a SyncTaskQueue takes the other"
            )
        return Enqueuer(self, {}, within)

    @overload
    def task(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> QueuedFunction[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def task(self, function: Callable[P, T], /) -> QueuedFunction[P, T, T]: ...
    @overload
    def task(self, /, **options: Unpack[OptionFields]) -> TaskDecorator: ...
    def task(
        self, function: Callable[..., Any] | None = None, /, **options: Unpack[OptionFields]
    ) -> Any:
        """Make a function enqueueable: `@queue.task`, or with options `@queue.task(retry=...)`."""
        if function is not None:
            return QueuedFunction(function, self._defaults, self)
        changed = self._defaults.using(**options)
        return lambda function: QueuedFunction(function, changed, self)

    async def _store(
        self, tasks: Iterable[Task[T]], changes: OptionFields, within: Within | None = None
    ) -> list[TaskId[T]]:
        op = self._desk.op(tasks, changes)
        if not op.tasks:
            return []
        if within is not None:
            return enqueued(op, await within.apply_async(op))
        session = await self.backend.session()
        try:
            (outcome,) = await session.writer.submit(op)
        except CommitUnknownError as error:
            raise not_known(op, error) from error
        return enqueued(op, outcome)

    # -- asking back -----------------------------------------------------------------------

    async def get_result(
        self,
        task_id: str,
        timeout: float | timedelta | None = None,
    ) -> Result | None:
        """Wait until the task has ended; return how, or None if it has not in time.

        Args:
            task_id: what `enqueue` returned.
            timeout: seconds or a timedelta; 0 looks once; None waits for as long as it takes.

        Raises:
            TaskNotFoundError: no timeout was given, and the store has no such task; or it was pruned,
                after its retention, while it was waited for.
        """
        task_id, limit = checked_wait(task_id, timeout)
        session = await self.backend.session()
        end = await wait_for_end(task_id, limit, session.fetch, session.hints)
        return awaited(task_id, end)

    async def get_results(self, task_ids: Iterable[str]) -> dict[str, Result]:
        """Look once at many tasks; return how those ended that have, by id."""
        fetch = Fetch(checked_ids(task_ids))
        session = await self.backend.session()
        (outcome,) = await session.reader.submit(fetch)
        return ended(outcome)

    @overload
    async def result(self, task_id: TaskId[T], timeout: float | timedelta | None = None) -> T: ...
    @overload
    async def result(self, task_id: str, timeout: float | timedelta | None = None) -> Any: ...
    async def result(
        self,
        task_id: str,
        timeout: float | timedelta | None = None,
    ) -> Any:
        """Wait until the task has ended; return what its function returned.

        Raises:
            TaskFailed: it failed; the error tells why.
            TaskCancelled: it was cancelled.
            ResultTimeout: it has not ended in *timeout*.
            TaskNotFoundError: no timeout was given, and the store has no such task; or it was pruned,
                after its retention, while it was waited for.
        """
        task_id, limit = checked_wait(task_id, timeout)
        return value_of(self._desk, task_id, limit, await self.get_result(task_id, limit))

    def deserialize_result(self, result: Result) -> Any:
        """Return the value that *result* holds.

        Raises `SerializationError` if it holds none, because the task did not succeed.
        """
        return self._desk.deserialize(result)

    async def cancel(self, task_id: str) -> bool:
        """Cancel a task; return False if it has ended already.

        One that waits is cancelled at once. One that runs is interrupted by its worker, at once
        or within a second if that is another process; a plain function in a thread cannot be
        interrupted, and whatever it returns is no longer wanted.

        Raises:
            TaskNotFoundError: the store has no such task.
        """
        task_id, _ = checked_wait(task_id, None)
        session = await self.backend.session()
        (outcome,) = await session.writer.submit(Cancel(task_id))
        return cancelled(task_id, outcome)

    def __repr__(self) -> str:
        return f"TaskQueue({self.backend!r})"
