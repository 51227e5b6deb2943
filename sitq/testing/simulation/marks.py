"""Rare states that a set of runs must have reached: what was never reached was never tested.

Each mark is read off a history, as the invariants are. A set of a thousand runs that lacks one
fails: its faults have become too mild to be a proof of anything.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Completed,
    Enqueue,
    Moment,
    Outcome,
    Register,
    Registered,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reserve,
    Reserved,
    Retire,
    Retired,
    Settle,
    Settled,
    Unregistered,
)
from sitq.testing.simulation.facts import PENDING
from sitq.testing.simulation.history import ANSWERED_TWICE, Change, Event, History, Kind

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
        self._running: defaultdict[str, set[str]] = defaultdict(set)  # processes, by task
        self._ended: dict[tuple[str, int], str] = {}
        self._claimed: dict[tuple[str, int], str] = {}
        self._stored: set[tuple[int, int]] = set()
        self._unknown: set[str] = set()
        self._inserted: set[str] = set()
        self._enqueued: set[str] = set()
        self._parked: set[str] = set()
        self._given: set[tuple[int, int]] = set()
        self._who = ""  # whose batch it is
        self._verdicts = 0  # in this batch
        self._new: set[str] = set()  # tasks that this batch has stored
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
        runs = self._running[event.task]
        runs.add(event.who)
        if len(runs) > 1:
            self.found.add("ran twice at once")
        if event.task in self._parked:
            self.found.add("read after all")

    def _over(self, event: Event) -> None:
        self._running[event.task].discard(event.who)
        self._ended[event.task, event.token] = event.who

    def _told(self, event: Event) -> None:
        self._ended.pop((event.task, event.token), None)

    def _was_enqueued(self, event: Event) -> None:
        if not self._enqueued.isdisjoint(event.value):
            self.found.add("asked twice")
        self._enqueued.update(event.value)

    def _refused(self, event: Event) -> None:  # noqa: ARG002
        self.found.add("refused")

    def _in_doubt(self, event: Event) -> None:
        there = not self._inserted.isdisjoint(event.value)
        self.found.add("unknown, and stored" if there else "unknown, and not stored")

    def _was_cancelled(self, event: Event) -> None:
        if event.value in (SUCCESS, FAILED):
            self.found.add("cancelled too late")

    def _fault(self, event: Event) -> None:
        if event.value == ANSWERED_TWICE:
            self.found.add("answered twice")

    def _killed(self, event: Event) -> None:
        who = event.who
        self._dead.add(who)
        if who in self._ended.values():
            self.found.add("killed between end and verdict")
        if who in self._claimed.values():
            self.found.add("killed between reserve and start")
        self._ended = {key: name for key, name in self._ended.items() if name != who}
        self._claimed = {key: name for key, name in self._claimed.items() if name != who}
        for runs in self._running.values():
            runs.discard(who)

    def _batch(self, event: Event) -> None:
        self._who = event.who
        self._verdicts = 0
        self._new.clear()
        ops, outcomes, now = event.value
        for op, outcome in zip(ops, outcomes, strict=True):
            reader = self._OPS.get(type(op))
            if reader is not None:
                reader(self, op, outcome, now)
        if self._verdicts > 1:
            self.found.add("many at once")

    def _renewed(self, op: Renew, outcome: Renewed | Unregistered, now: Moment) -> None:
        if type(outcome) is Unregistered:
            self.found.add("renewal refused")
        else:
            self._leased(op.worker_id, op.lease_for, now)

    def _reserved(self, op: Reserve, outcome: Reserved | Unregistered, now: Moment) -> None:  # noqa: ARG002
        if type(outcome) is Unregistered:
            self.found.add("reserve refused")
            return
        assert type(outcome) is Reserved
        tasks = outcome.tasks
        if tasks:
            keys = {task.key for task in tasks}
            if not self._given.isdisjoint(keys):
                self.found.add("tasks found again")
            self._given |= keys
            if self._new and any(task.id in self._new for task in tasks):
                self.found.add("given out as it was stored")
        if self._suspects and len(tasks) < op.limit:
            ids = {task.id for task in tasks}
            for id_, queue in self._suspects.items():
                if queue in op.queues and id_ not in ids:
                    self.found.add("told apart")

    def _settled(self, op: Settle, outcome: Settled, now: Moment) -> None:  # noqa: ARG002
        if outcome.applied:
            self._verdicts += 1
            if op.key in self._stored:
                self.found.add("verdict asked twice")
            self._stored.add(op.key)
        else:
            self.found.add("late verdict")
            if isinstance(op.verdict, Completed):
                self.found.add("late completion")

    def _registered(self, op: Register, outcome: Registered, now: Moment) -> None:  # noqa: ARG002
        if self._who in self._owner.values():
            self.found.add("two lives")
        self._owner[op.worker_id] = self._who
        self._leased(op.worker_id, op.lease_for, now)

    def _leased(self, worker_id: str, lease_for: float, now: Moment) -> None:
        self._leases[worker_id] = now.lease_ms + round(lease_for * 1000), now.epoch

    def _rescued(self, op: Rescue, outcome: Rescued, now: Moment) -> None:  # noqa: ARG002
        for worker_id in outcome.workers if outcome.tasks else ():
            until, epoch = self._leases.get(worker_id, (0, ""))
            expired = epoch != now.epoch or until <= now.lease_ms
            self.found.add("rescued by its lease" if expired else "rescued by its lock")
            if self._owner.get(worker_id) not in self._dead:
                self.found.add("zombie")

    def _retired(self, op: Retire, outcome: Retired, now: Moment) -> None:  # noqa: ARG002
        if op.worker_id in self._holders.values():
            self.found.add("retired with tasks")

    def _stored_all(self, op: Enqueue, outcome: Outcome, now: Moment) -> None:  # noqa: ARG002
        for new in op.tasks:
            self._most[new.id] = new.policy.max_crashes
            self._new.add(new.id)

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
            if change.token > change.old_token:
                self.found.add("given up")
            if change.attempt > 1:
                self.found.add("last attempt")
        elif change.new is QUEUED:
            unstarted = self._claimed.pop((task_id, change.token), None)
            if change.token == change.old_token:
                self.found.add("handed back")
                if unstarted:
                    self.found.add("handed back unstarted")
        elif change.new is CANCELLED:
            self.found.add("cancelled while running")
        elif change.new is PARKED:
            self.found.add("parked")
            self._parked.add(task_id)

    # What else happens says nothing here; nor do the other ops.
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
    _OPS: ClassVar[Mapping[type, Callable[[Any, Any, Any, Moment], None]]] = {
        Renew: _renewed,
        Reserve: _reserved,
        Settle: _settled,
        Register: _registered,
        Rescue: _rescued,
        Retire: _retired,
        Enqueue: _stored_all,
    }
