"""What users see of a task: its id, its status, its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, TypeVar

from sitq.protocol.lifecycle import TaskState

T_co = TypeVar("T_co", covariant=True)


class TaskId(str, Generic[T_co]):
    """A task's id: a `str`, typed with the result that it stands for.

    Ids that sitq makes are UUIDs of version 7 (RFC 9562), so they sort by the time they were
    made.
    """

    __slots__ = ()


class TaskStatus(StrEnum):
    """How a task stands; each compares equal to its text, such as `"success"`."""

    PENDING = "pending"
    """It waits: for its time, for a worker, or for one that can read it."""
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATUS_OF: Final[Mapping[TaskState, TaskStatus]] = {
    TaskState.SCHEDULED: TaskStatus.PENDING,
    TaskState.QUEUED: TaskStatus.PENDING,
    TaskState.PARKED: TaskStatus.PENDING,
    TaskState.RUNNING: TaskStatus.RUNNING,
    TaskState.SUCCESS: TaskStatus.SUCCESS,
    TaskState.FAILED: TaskStatus.FAILED,
    TaskState.CANCELLED: TaskStatus.CANCELLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a task ended.

    Times are aware, in UTC, by the store's clock, to the millisecond.
    """

    task_id: str
    status: TaskStatus
    value: bytes | None = None
    """What the function returned, serialised: `TaskQueue.deserialize_result` turns it back."""
    error: str | None = None
    """What went wrong, in words."""
    error_type: str | None = None
    """The name of the exception's class."""
    traceback: str | None = None
    reason: str | None = None
    """Why the task was cancelled or given up: `user`, `timeout` or `crash`."""
    attempt: int = 0
    """How many attempts were used."""
    crashes: int = 0
    """How many workers died while they ran it."""
    enqueued_at: datetime
    started_at: datetime | None = None
    """When the last attempt started."""
    finished_at: datetime | None = None
