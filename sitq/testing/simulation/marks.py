"""Rare states that a set of runs must have reached: what was never reached was never tested.

Each mark is read off a history, as the invariants are. A set of a thousand runs that lacks one
fails: its faults have become too mild to be a proof of anything.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Completed,
    Enqueue,
    Register,
    Renew,
    Rescue,
    Reservation,
    Reserve,
    Retire,
    Settle,
    Settled,
    Unregistered,
)
from sitq.testing.simulation.facts import PENDING
from sitq.testing.simulation.history import ANSWERED_TWICE, Batch, Change, Event, History, Kind

MARKS: Final = {
    "late verdict": "A worker's verdict was refused: its task was no longer its own.",
    "late completion": "What was refused was a success.",
    "verdict asked twice": "A verdict was stored, its answer lost, and asked again it still counts.",
    "tasks found again": "A reserve gave out what a lost answer had named before.",
    "renewal refused": "A worker learned from a renewal that its lease had ended.",
    "reserve refused": "A worker learned from a reserve that its lease had ended.",
    "rescued by its lock": "The tasks of a dead worker were taken back before its lease ran out.",
    "rescued by its lease": "The tasks of a worker were taken back because its lease had run out.",
    "zombie": "A task was taken from a worker that was still alive.",
    "ran twice at once": "Two processes ran one task at the same time, as they may.",
    "answered twice": "An answer of the store came once more.",
    "given up": "A task that killed its workers was given up.",
    "given out as it was stored": "A task was given to a worker by the transaction that stored it.",
    "told apart": "A task waited because its worker had another that may be to blame for a death.",
    "last attempt": "A task failed that had used up more than one attempt.",
    "unknown, and stored": "An enqueue whose outcome nobody knew was stored.",
    "unknown, and not stored": "An enqueue whose outcome nobody knew was not stored.",
    "refused": "An enqueue was refused.",
    "asked twice": "A task was enqueued twice under one id.",
    "killed between reserve and start": "A process died holding a task that it had not begun.",
    "killed between end and verdict": "A process died after a function had ended.",
    "handed back": "A stop interrupted a task, which went back uncharged.",
    "handed back unstarted": "A worker gave back a task that it had held ahead.",
    "retired with tasks": "A stop found tasks that were held and never heard of.",
    "cancelled while waiting": "A task was cancelled before it began.",
    "cancelled while running": "A task was cancelled while it ran.",
    "cancelled too late": "A task had ended when it was to be cancelled.",
    "parked": "A task could not be read, and was parked.",
    "read after all": "A task that was parked was run by a newer worker.",
    "forgotten": "A task was forgotten after its retention.",
    "many at once": "One batch settled several tasks.",
    "two lives": "A worker lost its lease, and came back under another name.",
}

_, QUEUED, RUNNING, PARKED, SUCCESS, FAILED, CANCELLED = S


def marks(history: History) -> set[str]:
    """Return the marks that *history* has reached."""
    return _Reader().read(history)


class _Reader:
    def __init__(self) -> None:
        self.found: set[str] = set()
        self._states: dict[str, S | None] = {}
        self._holders: dict[str, str] = {}
        self._dead: set[str] = set()
        self._owner: dict[str, str] = {}
        self._leases: dict[str, tuple[int, str]] = {}
        self._running: dict[str, set[str]] = {}  # processes, by task
        self._ended: dict[tuple[str, int], str] = {}
        self._claimed: dict[tuple[str, int], str] = {}
        self._stored: set[tuple[int, int]] = set()
        self._unknown: set[str] = set()
        self._inserted: set[str] = set()
        self._enqueued: set[str] = set()
        self._parked: set[str] = set()
        self._given: set[tuple[int, int]] = set()
        self._most: dict[str, int] = {}  # deaths that each task may cost
        self._suspects: dict[str, str] = {}  # the queues of those that wait, and may cost no more

    def read(self, history: History) -> set[str]:
        readers = self._READERS
        for event in history:
            reader = readers.get(event.kind)
            if reader is not None:
                reader(self, event)
        return self.found

    def _started(self, event: Event) -> None:
        self._claimed.pop((event.task, event.token), None)
        runs = self._running.setdefault(event.task, set())
        self._mark("ran twice at once", runs - {event.who})
        runs.add(event.who)
        self._mark("read after all", event.task in self._parked)

    def _over(self, event: Event) -> None:
        self._running.get(event.task, set()).discard(event.who)
        self._ended[event.task, event.token] = event.who

    def _told(self, event: Event) -> None:
        self._ended.pop((event.task, event.token), None)

    def _was_enqueued(self, event: Event) -> None:
        self._mark("asked twice", not self._enqueued.isdisjoint(event.value))
        self._enqueued.update(event.value)

    def _refused(self, event: Event) -> None:  # noqa: ARG002
        self.found.add("refused")

    def _in_doubt(self, event: Event) -> None:
        there = not self._inserted.isdisjoint(event.value)
        self.found.add("unknown, and stored" if there else "unknown, and not stored")

    def _was_cancelled(self, event: Event) -> None:
        self._mark("cancelled too late", event.value in (SUCCESS, FAILED))

    def _fault(self, event: Event) -> None:
        self._mark("answered twice", event.value == ANSWERED_TWICE)

    def _mark(self, name: str, reached: object) -> None:
        if reached:
            self.found.add(name)

    def _killed(self, event: Event) -> None:
        who = event.who
        self._dead.add(who)
        self._mark("killed between end and verdict", who in self._ended.values())
        self._mark("killed between reserve and start", who in self._claimed.values())
        self._ended = {key: name for key, name in self._ended.items() if name != who}
        self._claimed = {key: name for key, name in self._claimed.items() if name != who}
        for runs in self._running.values():
            runs.discard(who)

    def _batch(self, event: Event) -> None:
        who, batch = event.who, event.value
        settled = 0
        stored: set[str] = set()
        given: set[str] = set()
        for op, outcome in zip(batch.ops, batch.outcomes, strict=True):
            kind = type(op)
            if kind is Renew:
                if type(outcome) is Unregistered:
                    self.found.add("renewal refused")
                else:
                    self._leased(op.worker_id, op.lease_for, batch)
            elif kind is Reserve:
                if type(outcome) is Unregistered:
                    self.found.add("reserve refused")
                else:
                    self._reserved(op, outcome.tasks)
                    given.update(task.id for task in outcome.tasks)
            elif kind is Settle:
                settled += outcome.applied
                self._settled(op, outcome)
            elif kind is Register:
                self._mark("two lives", who in self._owner.values())
                self._owner[op.worker_id] = who
                self._leased(op.worker_id, op.lease_for, batch)
            elif kind is Rescue:
                if outcome.tasks:
                    self._rescued(outcome.workers, batch)
            elif kind is Retire:
                self._mark("retired with tasks", op.worker_id in self._holders.values())
            elif kind is Enqueue:
                self._most.update({new.id: new.policy.max_crashes for new in op.tasks})
                stored.update(new.id for new in op.tasks)
        self._mark("many at once", settled > 1)
        self._mark("given out as it was stored", not stored.isdisjoint(given))

    def _reserved(self, op: Reserve, tasks: tuple[Reservation, ...]) -> None:
        if tasks:
            keys = {task.key for task in tasks}
            self._mark("tasks found again", not self._given.isdisjoint(keys))
            self._given |= keys
        if self._suspects and len(tasks) < op.limit:
            ids = {task.id for task in tasks}
            passed_over = (q in op.queues and id_ not in ids for id_, q in self._suspects.items())
            self._mark("told apart", any(passed_over))

    def _settled(self, op: Settle, outcome: Settled) -> None:
        if outcome.applied:
            self._mark("verdict asked twice", op.key in self._stored)
            self._stored.add(op.key)
        else:
            self.found.add("late verdict")
            self._mark("late completion", isinstance(op.verdict, Completed))

    def _leased(self, worker_id: str, lease_for: float, batch: Batch) -> None:
        self._leases[worker_id] = batch.now.lease_ms + round(lease_for * 1000), batch.now.epoch

    def _rescued(self, workers: Iterable[str], batch: Batch) -> None:
        for worker_id in workers:
            until, epoch = self._leases.get(worker_id, (0, ""))
            expired = epoch != batch.now.epoch or until <= batch.now.lease_ms
            self.found.add("rescued by its lease" if expired else "rescued by its lock")
            self._mark("zombie", self._owner.get(worker_id) not in self._dead)

    def _row(self, event: Event) -> None:
        task_id = event.task
        change: Change = event.value
        if change.old is None:
            self._inserted.add(task_id)
        elif change.new is None:
            self.found.add("forgotten")
        self._suspects.pop(task_id, None)
        if change.new is QUEUED and 0 < change.crashes >= self._most.get(task_id, 3) - 1:
            self._suspects[task_id] = change.queue
        old, new = change.old, change.new
        if old is QUEUED and new is RUNNING:
            owner = self._owner.get(change.worker or "", "")
            self._claimed[task_id, change.token] = owner
            self._holders[task_id] = change.worker or ""
        elif old is RUNNING:
            self._holders.pop(task_id, None)
            self._left(task_id, change)
        elif new is CANCELLED and old in PENDING:
            self.found.add("cancelled while waiting")

    def _left(self, task_id: str, change: Change) -> None:
        """What became of a task that was running."""
        if change.new is FAILED:
            self._mark("given up", change.token > change.old_token)
            self._mark("last attempt", change.attempt > 1)
        elif change.new is QUEUED:
            by_itself = change.token == change.old_token
            self._mark("handed back", by_itself)
            unstarted = self._claimed.pop((task_id, change.token), None)
            self._mark("handed back unstarted", by_itself and unstarted)
        elif change.new is CANCELLED:
            self.found.add("cancelled while running")
        elif change.new is PARKED:
            self.found.add("parked")
            self._parked.add(task_id)

    # What else happens says nothing here.
    _READERS: ClassVar[Mapping[Kind, Callable[[Any, Event], None]]] = {
        Kind.BATCH: _batch,
        Kind.ROW: _row,
        Kind.START: _started,
        Kind.END: _over,
        Kind.TOLD: _told,
        Kind.KILLED: _killed,
        Kind.ENQUEUED: _was_enqueued,
        Kind.REFUSED: _refused,
        Kind.UNKNOWN: _in_doubt,
        Kind.CANCELLED: _was_cancelled,
        Kind.FAULT: _fault,
    }
