"""From what a caller asks to an op, and from storage's answer to what a caller is told.

Pure, and the same for `TaskQueue` and `SyncTaskQueue`: they differ in how they wait.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sitq import validation
from sitq.adapters.ids import new_id
from sitq.core import STATUS_OF, Result, TaskId, TaskStatus
from sitq.exceptions import (
    EnqueueUnknown,
    ResultTimeout,
    SerializationError,
    TaskCancelled,
    TaskConflictError,
    TaskFailed,
    TaskNotFoundError,
    ValidationError,
)
from sitq.protocol.lifecycle import FINAL
from sitq.protocol.ops import Cancelled, Conflict, Enqueue, Enqueued, Fetched, Outcome, TaskRow
from sitq.protocol.waiter import Deliver, GiveUp, Miss
from sitq.serialization import Serializer, unseal
from sitq.task import OptionFields, Options, Task, Terms

T = TypeVar("T")

MOST_TERMS: Final = 128
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Desk:
    """What one queue needs to turn calls into ops."""

    serializer: Serializer
    max_payload: int
    defaults: Options
    _terms: dict[int, tuple[Options, Terms]] = field(default_factory=dict, compare=False)
    """Of options that have been met: most tasks have those of their function or of the queue."""

    def op(self, tasks: Iterable[Task[Any]], changes: OptionFields) -> Enqueue:
        """Return the op that enqueues *tasks*, with *changes* of the options of each."""
        new = []
        may_exist = False
        for task in tasks:
            if not isinstance(task, Task):
                raise ValidationError(
                    f"enqueue_many takes tasks, not {task!r}: make them with Task(function, ...)"
                    " or function.call(...)"
                )
            options = task.options(self.defaults)
            if changes:
                options = options.using(**changes)
            task_id = options.task_id
            if task_id is None:
                task_id = new_id()
            else:
                may_exist = True
            terms = self._terms_of(options)
            new.append(task.new(task_id, terms, self.serializer, self.max_payload))
        return Enqueue(tuple(new), may_exist)

    def _terms_of(self, options: Options) -> Terms:
        known = self._terms.get(id(options))
        if known is None:
            if len(self._terms) >= MOST_TERMS:
                self._terms.clear()
            # The options are kept as well, so that no others get their number.
            known = self._terms[id(options)] = (options, options.terms())
        return known[1]

    def deserialize(self, result: Result) -> Any:
        """Return the value in *result*. Raises `SerializationError` if it holds none."""
        if not isinstance(result, Result):
            raise ValidationError(f"deserialize_result takes a Result, not {result!r}")
        if result.value is None:
            raise SerializationError(
                f"task {result.task_id} has no value: it ended as {result.status.value!r}"
                f" ({result.error or result.reason or 'no error is known'})"
            )
        try:
            return unseal(self.serializer, result.value)
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(
                f"the value of task {result.task_id} cannot be read: {type(error).__name__}:"
                f" {error}. It is stored as it was; read it where what it is made of can be imported"
            ) from error


def one_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Task[Any]:
    """Return the task of `enqueue(function, *args, **kwargs)`, where eta= is an option."""
    if "eta" not in kwargs:
        return Task(function, *args, **kwargs)
    if _takes_eta(function):
        raise ValidationError(
            f"{getattr(function, '__qualname__', function)} has a parameter named eta, so it is not"
            " clear whose this one is; give the option as using(eta=...).enqueue(...)"
        )
    eta = kwargs.pop("eta")
    task: Task[Any] = Task(function, *args, **kwargs)
    return task.using(eta=eta)


def enqueued(op: Enqueue, outcome: Outcome) -> list[TaskId[Any]]:
    """Return the ids. Raises `TaskConflictError` if one of them was taken."""
    if isinstance(outcome, Conflict):
        raise TaskConflictError(
            f"the id {outcome.task_id!r} is taken by a task with another payload, which is"
            f" {outcome.state.value}; nothing was stored. Enqueue the same call to repeat it, or"
            " choose another id",
            outcome.task_id,
        )
    assert isinstance(outcome, Enqueued)
    return [TaskId(task.id) for task in op.tasks]


def not_known(op: Enqueue, error: Exception) -> EnqueueUnknown:
    first = op.tasks[0].id
    again = f"Enqueue it again with using(task_id={first!r}): that is safe either way"
    if len(op.tasks) > 1:
        again = (
            "Enqueue all of it again, each task with its id of task_ids: that is safe either way"
        )
    return EnqueueUnknown(f"{error}. {again}", *(task.id for task in op.tasks))


def cancelled(task_id: str, outcome: Outcome) -> bool:
    """Return whether the task is or will be stopped. Raises `TaskNotFoundError`."""
    assert isinstance(outcome, Cancelled)
    if outcome.was is None:
        raise missing(task_id)
    return outcome.was not in FINAL


def missing(task_id: str) -> TaskNotFoundError:
    return TaskNotFoundError(
        f"the store has no task {task_id!r}: it was never enqueued here, or has been pruned"
        " after its retention; to wait for it to appear, give a timeout",
        task_id,
    )


def forgotten(task_id: str) -> TaskNotFoundError:
    return TaskNotFoundError(
        f"task {task_id!r} has ended, and was pruned after its retention before anybody read how;"
        " give the backend a longer retention",
        task_id,
    )


def awaited(task_id: str, end: Deliver | GiveUp | Miss) -> Result | None:
    """Return what `get_result` returns. Raises `TaskNotFoundError`."""
    match end:
        case Deliver(row):
            return to_result(row)
        case GiveUp():
            return None
        case Miss(was_there):
            raise forgotten(task_id) if was_there else missing(task_id)


def ended(outcome: Outcome) -> dict[str, Result]:
    """Return the results of the tasks that were found, and have ended."""
    assert isinstance(outcome, Fetched)
    return {id_: to_result(row) for id_, row in outcome.rows.items() if row.state in FINAL}


def to_result(row: TaskRow) -> Result:
    return Result(
        task_id=row.id,
        status=STATUS_OF[row.state],
        value=row.value,
        error=row.error,
        error_type=row.error_type,
        traceback=row.traceback,
        reason=row.reason,
        attempt=row.attempt,
        crashes=row.crashes,
        enqueued_at=_at(row.enqueued_ms),
        started_at=None if row.started_ms is None else _at(row.started_ms),
        finished_at=None if row.finished_ms is None else _at(row.finished_ms),
    )


def value_of(desk: Desk, task_id: str, timeout: float | None, result: Result | None) -> Any:
    """Return the value of a task that succeeded; raise what stands for any other end."""
    if result is None:
        raise ResultTimeout(
            f"task {task_id} has not ended within {timeout:g} s, if it is there at all: the wait is"
            " over, and the task is not stopped by that",
            task_id,
        )
    if result.status is TaskStatus.CANCELLED:
        raise TaskCancelled(f"task {task_id} was cancelled", task_id)
    if result.status is TaskStatus.FAILED:
        raise TaskFailed(
            f"task {task_id} failed: {result.error_type}: {result.error}",
            task_id,
            result.error_type,
            result.traceback,
        )
    return desk.deserialize(result)


def checked_ids(task_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the argument of `get_results`, checked."""
    if isinstance(task_ids, str):
        raise ValidationError(f"task_ids must be several ids, not the string {task_ids!r}")
    return tuple(validation.text("a task id", task_id) for task_id in task_ids)


def checked_wait(task_id: object, timeout: object) -> tuple[str, float | None]:
    """Return the arguments of `get_result`, checked."""
    return (
        validation.text("task_id", task_id),
        None if timeout is None else validation.seconds("timeout", timeout),
    )


def _at(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _takes_eta(function: Callable[..., Any]) -> bool:
    try:
        return "eta" in inspect.signature(function).parameters
    except (ValueError, TypeError):
        return False
