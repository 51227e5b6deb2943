"""Why a task ran more than once: by what was done to the process that had it, or by its own retries.

What nothing explains is a violation, `D1`: a task that was taken from a worker that lived.
"""

from collections import Counter
from typing import Final, NamedTuple

from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import Register, Rescue, Retire, RetryIn, Settle
from sitq.testing.simulation.history import Batch, Change, Event, History, Kind

RETRIED: Final = "it had failed, and was tried again"
HANDED_BACK: Final = "its worker was told to stop, and handed it back"
BY_FATE: Final = {
    Kind.KILLED: "its worker was killed",
    Kind.PAUSED: "its worker was suspended beyond its lease",
}
CUT_OFF: Final = "the host of its worker was cut off from the server"
AWAY: Final = "the server was away, and took its worker's lease for over"
REMEMBERED: Final = 30.0
"""Seconds after an outage in which a lease may still run out because of it."""


class Outage(NamedTuple):
    """The value of a `FAULT`: a worker could not speak to the server for *seconds*."""

    reason: str
    seconds: float


def explain(history: History) -> tuple[Counter[str], list[str]]:
    """Return how often a task ran once more, by the reason; and what has none."""
    reader = _Reader()
    for event in history:
        reader.read(event)
    return reader.again, reader.unexplained


class _Reader:
    def __init__(self) -> None:
        self.again: Counter[str] = Counter()
        self.unexplained: list[str] = []
        self._fates: dict[str, Kind] = {}  # of processes
        self._owners: dict[str, str] = {}  # the processes of worker ids
        self._started: dict[str, str] = {}  # the process in which each task was started last
        self._reasons: dict[str, str] = {}  # why each task has left its holder
        self._outages: dict[str, tuple[float, str]] = {}  # of processes: until when, and why
        self._batch: Batch
        self._at = 0.0

    def read(self, event: Event) -> None:
        self._at = event.at
        match event.kind:
            case Kind.FAULT if isinstance(event.value, Outage):
                until = event.at + event.value.seconds + REMEMBERED
                self._outages[event.who] = until, event.value.reason
            case Kind.KILLED | Kind.PAUSED:
                self._fates[event.who] = event.kind
            case Kind.BATCH:
                self._batch = event.value
                for op in self._batch.ops:
                    if isinstance(op, Register):
                        self._owners[op.worker_id] = event.who
            case Kind.ROW if event.value.old is TaskState.RUNNING:
                reason = self._why_it_left(event.task, event.value)
                if reason is not None:
                    self._reasons[event.task] = reason
            case Kind.START:
                self._start(event)
            case _:
                pass

    def _why_it_left(self, task_id: str, row: Change) -> str | None:
        for op in self._batch.ops:
            match op:
                case Settle() if op.task_id == task_id and op.key.token == row.old_token:
                    return RETRIED if isinstance(op.verdict, RetryIn) else HANDED_BACK
                case Retire() if op.worker_id == row.old_worker:
                    return HANDED_BACK
                case Rescue():
                    return self._by_fate(self._owners.get(row.old_worker or "", ""))
                case _:
                    pass
        return None

    def _by_fate(self, who: str) -> str | None:
        fate = self._fates.get(who)
        if fate is not None:
            return BY_FATE[fate]
        until, reason = self._outages.get(who, (0.0, None))
        return reason if self._at <= until else None

    def _start(self, event: Event) -> None:
        before = self._started.get(event.task)
        self._started[event.task] = event.who
        if before is None:
            return
        reason = self._reasons.pop(event.task, None)
        if reason is None:
            self.unexplained.append(
                f"D1: {event.task} started again in {event.who}, although nothing was done to"
                f" {before}, which had it before"
            )
        else:
            self.again[reason] += 1
