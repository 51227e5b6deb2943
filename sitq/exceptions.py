"""What can go wrong, as classes: one tree under `SitqError`, by subject.

The promise: whatever the public API raises is one of these, the event loop's own
cancellation, or what the caller's own code raised. A message names the value, the rule and
the remedy.
"""


class SitqError(Exception):
    """The root of all errors that sitq raises."""


# -- arguments -------------------------------------------------------------------------


class ValidationError(SitqError, ValueError, TypeError):
    """An argument is wrong; nothing was stored.

    It is a `ValueError` and a `TypeError` too, so code that knows nothing of sitq can catch it.
    """


class SerializationError(SitqError):
    """A value could not be turned into bytes, or bytes not into a value."""


# -- tasks -----------------------------------------------------------------------------


class TaskError(SitqError):
    """Something about one task; *task_id* says which."""

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (str(self), self.task_id)


class TaskNotFoundError(TaskError):
    """The store has no task of this id: it never had, or has pruned it."""


class TaskConflictError(TaskError):
    """The id is taken by a task with another payload; the stored one was not changed."""


class EnqueueUnknown(TaskError):
    """The enqueue was cut off inside COMMIT: all of it is stored, or nothing is.

    Enqueue it again under the same ids: if it had been stored, that changes nothing. `task_ids`
    has them in the order of the tasks; `task_id` is the first.
    """

    def __init__(self, message: str, *task_ids: str) -> None:
        super().__init__(message, task_ids[0])
        self.task_ids = task_ids

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:  # type: ignore[override]
        return type(self), (str(self), *self.task_ids)


class TaskLostError(TaskError):
    """The attempt is over: another was started, or it was finished before. Roll back."""


class TaskFailed(TaskError):
    """The task ended in failure; `error_type` and `traceback` tell what its worker saw."""

    def __init__(
        self,
        message: str,
        task_id: str,
        error_type: str | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message, task_id)
        self.error_type = error_type
        self.traceback = traceback

    def __reduce__(self) -> tuple[type, tuple[str, str, str | None, str | None]]:  # type: ignore[override]
        return type(self), (str(self), self.task_id, self.error_type, self.traceback)


class TaskCancelled(TaskError):
    """The task was cancelled, so it has no result."""


class ResultTimeout(TaskError, TimeoutError):
    """The task has not ended in the time that the caller gave it."""


# -- backends --------------------------------------------------------------------------


class BackendError(SitqError):
    """Something about a backend as a whole."""


class BackendClosedError(BackendError):
    """The backend was closed before the operation could be stored; nothing was."""


class BackendInUseError(BackendError):
    """The backend is at work in another event loop, or was carried across a fork."""


class NoEventLoopError(BackendError):
    """An async method was called where no event loop runs."""


class StoreError(BackendError):
    """The store could not do its work: a full disk, a damaged file; nothing was stored."""


class StoreBusyError(StoreError):
    """Another program kept the file locked for longer than `busy_timeout`."""


class StoreUnreachableError(StoreError):
    """The server of the store could not be reached in time; it may come back."""


class FileReplacedError(StoreError):
    """The queue file, its -wal or its -shm was deleted, renamed or replaced while it was open."""


class CommitUnknownError(StoreError):
    """The store was cut off inside COMMIT: all that was asked is stored, or nothing is."""


class FileRefusedError(BackendError):
    """The path cannot hold a queue; nothing was changed."""


class NotADatabaseError(FileRefusedError):
    """The file is no SQLite database, or a damaged one."""


class ForeignFileError(FileRefusedError):
    """The file belongs to another program."""


class NewerSchemaError(FileRefusedError):
    """The file was written by a newer sitq."""


class NetworkFileSystemError(FileRefusedError):
    """The path lies on a network file system, where SQLite's locks cannot be trusted."""


# -- workers ---------------------------------------------------------------------------


class WorkerError(SitqError):
    """Something about a worker."""


class WorkerRunningError(WorkerError):
    """`start()` was called on a worker that is running."""


# -- recordings ------------------------------------------------------------------------


class RecordingError(SitqError):
    """A file is no recording of a worker, or not one that this version can replay."""


# -- virtual runs ----------------------------------------------------------------------


class VirtualTimeError(SitqError):
    """Something cannot be done in virtual time, or a virtual run has reached its limit."""


class DeadlockError(VirtualTimeError):
    """Everything in a virtual run waits for something that can never happen."""


# -- tests of yours --------------------------------------------------------------------


class CheckFailed(SitqError, AssertionError):
    """What a test says of its tasks does not hold; it is an `AssertionError`, too."""
