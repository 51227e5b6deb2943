"""What was enqueued on a store, by whom ever, and how it stands.

The promise: it sees each task that the store has taken, once, in the order in which they came.
It looks at what goes by, and changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sitq.adapters.base import Store
from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import Enqueue, Enqueued, Fetch, Fetched, NewTask, Op, Outcome
from sitq.serialization import Call, Serializer, unseal

WAITING: Final = frozenset({TaskState.SCHEDULED, TaskState.QUEUED, TaskState.PARKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedTask:
    """A task as it was enqueued."""

    task_id: str
    name: str
    """Its function, as `module.function`."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    eta: datetime
    """From when on it may run, as it was enqueued; without an eta or delay, the time of that."""
    state: str
    """Such as `"queued"`, `"scheduled"`, `"success"`, `"failed"`."""
    error: str | None
    """What went wrong, the last time it ran."""

    @property
    def waits(self) -> bool:
        """Whether it waits to be run."""
        return self.state in WAITING


class Witness:
    """A `Store` that notes what goes into *store*."""

    def __init__(self, store: Store, serializer: Serializer) -> None:
        self._store = store
        self._serializer = serializer
        self._seen: dict[str, tuple[NewTask, int]] = {}  # with the time it may run from

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        outcomes = self._store.apply(ops)
        for op, outcome in zip(ops, outcomes, strict=True):
            if isinstance(op, Enqueue) and isinstance(outcome, Enqueued):
                self._note([task for task in op.tasks if task.id not in self._seen])
        return outcomes

    def tidy(self) -> None:
        self._store.tidy()

    def close(self) -> None:
        self._store.close()

    def queues(self) -> list[str]:
        """Return the names of all queues that tasks were put into, sorted."""
        return sorted({new.queue for new, _ in self._seen.values()})

    def tasks(self) -> list[EnqueuedTask]:
        """Return all that was enqueued and is still known to the store."""
        (fetched,) = self._store.apply([Fetch(tuple(self._seen))])
        assert isinstance(fetched, Fetched)
        tasks = []
        for task_id, row in fetched.rows.items():
            new, run_at_ms = self._seen[task_id]
            call = self._call(new)
            tasks.append(
                EnqueuedTask(
                    task_id=task_id,
                    name=new.name,
                    args=call.args,
                    kwargs=call.kwargs,
                    queue=new.queue,
                    priority=new.priority,
                    eta=datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=run_at_ms),
                    state=row.state.value,
                    error=row.error,
                )
            )
        return tasks

    def _note(self, tasks: Sequence[NewTask]) -> None:
        (fetched,) = self._store.apply([Fetch(tuple(task.id for task in tasks))])
        assert isinstance(fetched, Fetched)
        for task in tasks:
            run_at_ms = task.run_at_ms
            if run_at_ms is None:
                run_at_ms = fetched.rows[task.id].enqueued_ms + task.delay_ms
            self._seen[task.id] = task, run_at_ms

    def _call(self, new: NewTask) -> Call:
        try:
            return Call(*unseal(self._serializer, new.payload))
        except Exception:  # noqa: BLE001  # whatever it is, its worker will say so
            return Call(_unreadable, ("(cannot be read)",), {})


def _unreadable() -> None:
    """Stand for a function that could not be read."""
