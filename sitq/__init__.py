"""A durable task queue that lives inside an asyncio or trio program.

    from sitq import SQLiteBackend, TaskQueue, Worker

The names below are the public ones; each is documented where it is defined.
"""

from sitq.backends.base import Backend
from sitq.backends.memory import MemoryBackend
from sitq.backends.sqlite import SQLiteBackend
from sitq.core import Result, TaskId, TaskStatus
from sitq.exceptions import (
    BackendClosedError,
    BackendError,
    BackendInUseError,
    CommitUnknownError,
    EnqueueUnknown,
    FileRefusedError,
    ForeignFileError,
    NetworkFileSystemError,
    NewerSchemaError,
    NoEventLoopError,
    NotADatabaseError,
    ResultTimeout,
    SerializationError,
    SitqError,
    StoreBusyError,
    StoreError,
    TaskCancelled,
    TaskConflictError,
    TaskError,
    TaskFailed,
    TaskNotFoundError,
    ValidationError,
    WorkerError,
    WorkerRunningError,
)
from sitq.queue import TaskQueue
from sitq.serialization import CloudpickleSerializer, Serializer
from sitq.sync import SyncTaskQueue
from sitq.task import Options, Retry, Task
from sitq.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendClosedError",
    "BackendError",
    "BackendInUseError",
    "CloudpickleSerializer",
    "CommitUnknownError",
    "EnqueueUnknown",
    "FileRefusedError",
    "ForeignFileError",
    "MemoryBackend",
    "NetworkFileSystemError",
    "NewerSchemaError",
    "NoEventLoopError",
    "NotADatabaseError",
    "Options",
    "Result",
    "ResultTimeout",
    "Retry",
    "SQLiteBackend",
    "SerializationError",
    "Serializer",
    "SitqError",
    "StoreBusyError",
    "StoreError",
    "SyncTaskQueue",
    "Task",
    "TaskCancelled",
    "TaskConflictError",
    "TaskError",
    "TaskFailed",
    "TaskId",
    "TaskNotFoundError",
    "TaskQueue",
    "TaskStatus",
    "ValidationError",
    "Worker",
    "WorkerError",
    "WorkerRunningError",
]
