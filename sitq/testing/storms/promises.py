"""What must hold in every simulated run, whatever the scenario: sitq's own promises.

- Nothing that was acknowledged is lost: it has an end once all is drained.
- Each task has one end.
- No task starts before its time, and no second attempt before its pause is over.
"""

from collections.abc import Sequence

from sitq.adapters import clocks
from sitq.adapters.base import Store
from sitq.core import Result
from sitq.protocol.lifecycle import FINAL
from sitq.protocol.ops import (
    Enqueue,
    Enqueued,
    Fetch,
    Fetched,
    Op,
    Outcome,
    Reserved,
    RetryIn,
    Settle,
    Settled,
    TaskKey,
    TaskRow,
)
from sitq.request import to_result


class Promises:
    """A `Store` that looks at what goes by, and notes what it breaks."""

    def __init__(self, store: Store) -> None:
        self.broken: list[str] = []
        self._store = store
        self._due_ms: dict[str, int] = {}  # of all tasks that are stored
        self._paused: set[TaskKey] = set()
        self._acknowledged: dict[str, None] = {}
        self._ended: dict[str, TaskRow] = {}

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        outcomes = self._store.apply(ops)
        for op, outcome in zip(ops, outcomes, strict=True):
            match op, outcome:
                case Enqueue(tasks), Enqueued():
                    for task in tasks:
                        due_ms = clocks.wall_ms() + task.delay_ms
                        if task.run_at_ms is not None:
                            due_ms = task.run_at_ms
                        self._due_ms.setdefault(task.id, due_ms)
                case Settle(key, task_id, _, verdict), Settled(True):
                    if isinstance(verdict, RetryIn) and key not in self._paused:
                        self._paused.add(key)  # it may be said again, if the answer was lost
                        self._due_ms[task_id] = clocks.wall_ms() + int(verdict.delay * 1000)
                    self._look_at_the_end_of(task_id)
                case _, Reserved(tasks):
                    for reservation in tasks:
                        self._look_at_the_start_of(reservation.id, reservation.name)
                case _:
                    pass
        return outcomes

    def acknowledge(self, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
        """Note that whoever asked was told that this is stored."""
        for op, outcome in zip(ops, outcomes, strict=True):
            if isinstance(op, Enqueue) and isinstance(outcome, Enqueued):
                self._acknowledged.update(dict.fromkeys(task.id for task in op.tasks))

    def tidy(self) -> None:
        """Nothing: memory is tidy."""

    def close(self) -> None:
        """Keep everything: others use it."""

    def unfinished(self) -> list[str]:
        """Return the ids of the tasks that have not ended."""
        rows = self._rows()
        return [task_id for task_id, row in rows.items() if row.state not in FINAL]

    def results(self) -> dict[str, Result]:
        """Return how each task stands, by id, in the order in which they were stored."""
        return {task_id: to_result(row) for task_id, row in self._rows().items()}

    def look_at_all(self) -> list[str]:
        """Return all that was broken, now that everything is drained."""
        rows = self._rows()
        for task_id in self._acknowledged:
            if task_id not in rows:
                self.broken.append(f"task {task_id} was acknowledged, and is lost")
        for task_id in rows:
            self._look_at_the_end_of(task_id)
        return self.broken

    def _look_at_the_start_of(self, task_id: str, name: str) -> None:
        early = self._due_ms.get(task_id, 0) - clocks.wall_ms()
        if early > 0:
            self.broken.append(f"task {task_id}, {name}, started {early} ms before its time")

    def _look_at_the_end_of(self, task_id: str) -> None:
        row = self._row(task_id)
        if row is None or row.state not in FINAL:
            if task_id in self._ended:
                self.broken.append(f"task {task_id} had ended, and has not any more")
        elif self._ended.setdefault(task_id, row) != row:
            self.broken.append(f"task {task_id} ended twice, as {self._ended[task_id]} and {row}")

    def _row(self, task_id: str) -> TaskRow | None:
        return self._fetch(task_id).get(task_id)

    def _rows(self) -> dict[str, TaskRow]:
        return self._fetch(*self._due_ms)

    def _fetch(self, *task_ids: str) -> dict[str, TaskRow]:
        (fetched,) = self._store.apply([Fetch(task_ids)])
        assert isinstance(fetched, Fetched)
        return dict(fetched.rows)
