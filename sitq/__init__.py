"""A durable task queue that lives inside an asyncio or trio program.

    from sitq import SQLiteBackend, TaskQueue, Worker

Each public name is loaded from the module that defines it when it is first asked for. So
`import sitq.protocol` loads the pure core and nothing else: no event loop, no database.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees of the table below
    from sitq.backends.base import Backend as Backend
    from sitq.backends.memory import MemoryBackend as MemoryBackend
    from sitq.backends.postgres import PostgresBackend as PostgresBackend
    from sitq.backends.sqlite import SQLiteBackend as SQLiteBackend
    from sitq.core import Result as Result, TaskId as TaskId, TaskStatus as TaskStatus
    from sitq.exceptions import (
        BackendClosedError as BackendClosedError,
        BackendError as BackendError,
        BackendInUseError as BackendInUseError,
        CheckFailed as CheckFailed,
        CommitUnknownError as CommitUnknownError,
        DeadlockError as DeadlockError,
        EnqueueUnknown as EnqueueUnknown,
        FileRefusedError as FileRefusedError,
        FileReplacedError as FileReplacedError,
        ForeignFileError as ForeignFileError,
        NetworkFileSystemError as NetworkFileSystemError,
        NewerSchemaError as NewerSchemaError,
        NoEventLoopError as NoEventLoopError,
        NotADatabaseError as NotADatabaseError,
        RecordingError as RecordingError,
        ResultTimeout as ResultTimeout,
        SerializationError as SerializationError,
        SitqError as SitqError,
        StoreBusyError as StoreBusyError,
        StoreError as StoreError,
        StoreUnreachableError as StoreUnreachableError,
        TaskCancelled as TaskCancelled,
        TaskConflictError as TaskConflictError,
        TaskError as TaskError,
        TaskFailed as TaskFailed,
        TaskLostError as TaskLostError,
        TaskNotFoundError as TaskNotFoundError,
        ValidationError as ValidationError,
        VirtualTimeError as VirtualTimeError,
        WorkerError as WorkerError,
        WorkerRunningError as WorkerRunningError,
    )
    from sitq.queue import TaskQueue as TaskQueue
    from sitq.running import current_task as current_task
    from sitq.serialization import (
        CloudpickleSerializer as CloudpickleSerializer,
        Serializer as Serializer,
    )
    from sitq.sync import SyncTaskQueue as SyncTaskQueue
    from sitq.task import Options as Options, Retry as Retry, Task as Task
    from sitq.worker import Worker as Worker

__version__ = "0.1.0"

_NAMES = {
    "sitq.backends.base": ("Backend",),
    "sitq.backends.memory": ("MemoryBackend",),
    "sitq.backends.postgres": ("PostgresBackend",),
    "sitq.backends.sqlite": ("SQLiteBackend",),
    "sitq.core": ("Result", "TaskId", "TaskStatus"),
    "sitq.exceptions": (
        "BackendClosedError",
        "BackendError",
        "BackendInUseError",
        "CheckFailed",
        "CommitUnknownError",
        "DeadlockError",
        "EnqueueUnknown",
        "FileRefusedError",
        "FileReplacedError",
        "ForeignFileError",
        "NetworkFileSystemError",
        "NewerSchemaError",
        "NoEventLoopError",
        "NotADatabaseError",
        "RecordingError",
        "ResultTimeout",
        "SerializationError",
        "SitqError",
        "StoreBusyError",
        "StoreError",
        "StoreUnreachableError",
        "TaskCancelled",
        "TaskConflictError",
        "TaskError",
        "TaskFailed",
        "TaskLostError",
        "TaskNotFoundError",
        "ValidationError",
        "VirtualTimeError",
        "WorkerError",
        "WorkerRunningError",
    ),
    "sitq.queue": ("TaskQueue",),
    "sitq.running": ("current_task",),
    "sitq.serialization": ("CloudpickleSerializer", "Serializer"),
    "sitq.sync": ("SyncTaskQueue",),
    "sitq.task": ("Options", "Retry", "Task"),
    "sitq.worker": ("Worker",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # to a type checker, the imports above say it
    __all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'sitq' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
