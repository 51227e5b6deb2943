"""Rare states that a set of runs must have reached: what was never reached was never tested.

Each mark is read off a history, as the invariants are. A set of a thousand runs that lacks one
fails: its faults have become too mild to be a proof of anything.
"""

from collections.abc import Iterable
from typing import Final

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Completed,
    Enqueue,
    Register,
    Renew,
    Rescue,
    Rescued,
    Reservation,
    Reserve,
    Reserved,
    Retire,
    Settle,
    Settled,
    Unregistered,
)
from sitq.testing.simulation.history import Batch, Change, History, Kind

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
    "given up": "A task that killed its workers was given up.",
    "told apart": "A task waited because its worker had another that may be to blame for a death.",
    "last attempt": "A task failed that had used up more than one attempt.",
    "unknown, and stored": "An enqueue whose outcome nobody knew was stored.",
    "unknown, and not stored": "An enqueue whose outcome nobody knew was not stored.",
    "refused": "An enqueue was refused.",
    "asked twice": "A task was enqueued twice under one id.",
    "killed between reserve and start": "A process died holding a task that it had not begun.",
    "killed between end and verdict": "A process died after a function had ended.",
    "handed back": "A stop interrupted a task, which went back uncharged.",
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
        for event in history:
            match event.kind:
                case Kind.BATCH:
                    self._batch(event.who, event.value)
                case Kind.ROW:
                    self._row(event.task, event.value)
                case Kind.START:
                    self._claimed.pop((event.task, event.token), None)
                    runs = self._running.setdefault(event.task, set())
                    if runs - {event.who}:
                        self.found.add("ran twice at once")
                    runs.add(event.who)
                    if event.task in self._parked:
                        self.found.add("read after all")
                case Kind.END:
                    self._running.get(event.task, set()).discard(event.who)
                    self._ended[event.task, event.token] = event.who
                case Kind.TOLD:
                    self._ended.pop((event.task, event.token), None)
                case Kind.KILLED:
                    self._killed(event.who)
                case Kind.ENQUEUED:
                    self._mark("asked twice", any(id_ in self._enqueued for id_ in event.value))
                    self._enqueued.update(event.value)
                case Kind.REFUSED:
                    self.found.add("refused")
                case Kind.UNKNOWN:
                    there = any(id_ in self._inserted for id_ in event.value)
                    self.found.add("unknown, and stored" if there else "unknown, and not stored")
                case Kind.CANCELLED:
                    self._mark("cancelled too late", event.value in {S.SUCCESS, S.FAILED})
                case _:
                    pass
        return self.found

    def _mark(self, name: str, reached: object) -> None:
        if reached:
            self.found.add(name)

    def _killed(self, who: str) -> None:
        self._dead.add(who)
        self._mark("killed between end and verdict", who in self._ended.values())
        self._mark("killed between reserve and start", who in self._claimed.values())
        self._ended = {key: name for key, name in self._ended.items() if name != who}
        self._claimed = {key: name for key, name in self._claimed.items() if name != who}
        for runs in self._running.values():
            runs.discard(who)

    def _batch(self, who: str, batch: Batch) -> None:
        settled = 0
        for op, outcome in zip(batch.ops, batch.outcomes, strict=True):
            match op, outcome:
                case Settle(), Settled(applied):
                    settled += applied
                    self._mark("late verdict", not applied)
                    self._mark("late completion", not applied and isinstance(op.verdict, Completed))
                    self._mark("verdict asked twice", applied and op.key in self._stored)
                    if applied:
                        self._stored.add(op.key)
                case Reserve(), Unregistered():
                    self.found.add("reserve refused")
                case Reserve(), Reserved(tasks):
                    keys = [(task.key.seq, task.key.token) for task in tasks]
                    self._mark("tasks found again", any(key in self._given for key in keys))
                    self._given.update(keys)
                    self._mark("told apart", len(tasks) < op.limit and self._wait(op, tasks))
                case Enqueue(), _:
                    self._most.update({new.id: new.policy.max_crashes for new in op.tasks})
                case Renew(), Unregistered():
                    self.found.add("renewal refused")
                case Register(), _:
                    self._mark("two lives", who in self._owner.values())
                    self._owner[op.worker_id] = who
                    self._leased(op.worker_id, op.lease_for, batch)
                case Renew(), _:
                    self._leased(op.worker_id, op.lease_for, batch)
                case Rescue(), Rescued(workers, tasks) if tasks:
                    self._rescued(workers, batch)
                case Retire(), _:
                    holders = self._holders.values()
                    self._mark("retired with tasks", op.worker_id in holders)
                case _:
                    pass
        self._mark("many at once", settled > 1)

    def _wait(self, op: Reserve, given: tuple[Reservation, ...]) -> bool:
        """Whether a suspect waits that this reserve has passed over."""
        ids = {task.id for task in given}
        return any(q in op.queues and id_ not in ids for id_, q in self._suspects.items())

    def _leased(self, worker_id: str, lease_for: float, batch: Batch) -> None:
        self._leases[worker_id] = batch.now.lease_ms + round(lease_for * 1000), batch.now.epoch

    def _rescued(self, workers: Iterable[str], batch: Batch) -> None:
        for worker_id in workers:
            until, epoch = self._leases.get(worker_id, (0, ""))
            expired = epoch != batch.now.epoch or until <= batch.now.lease_ms
            self.found.add("rescued by its lease" if expired else "rescued by its lock")
            self._mark("zombie", self._owner.get(worker_id) not in self._dead)

    def _row(self, task_id: str, change: Change) -> None:
        if change.old is None:
            self._inserted.add(task_id)
        elif change.new is None:
            self.found.add("forgotten")
        self._suspects.pop(task_id, None)
        if change.new is S.QUEUED and 0 < change.crashes >= self._most.get(task_id, 3) - 1:
            self._suspects[task_id] = change.queue
        match change.old, change.new:
            case (S.QUEUED, S.RUNNING):
                owner = self._owner.get(change.worker or "", "")
                self._claimed[task_id, change.token] = owner
                self._holders[task_id] = change.worker or ""
                return
            case (S.RUNNING, S.FAILED):
                self._mark("given up", change.token > change.old_token)
                self._mark("last attempt", change.attempt > 1)
            case (S.RUNNING, S.QUEUED):
                self._mark("handed back", change.token == change.old_token)
            case (S.RUNNING, S.CANCELLED):
                self.found.add("cancelled while running")
            case (S.SCHEDULED | S.QUEUED | S.PARKED, S.CANCELLED):
                self.found.add("cancelled while waiting")
            case (_, S.PARKED):
                self.found.add("parked")
                self._parked.add(task_id)
            case (S.RUNNING, _):
                pass
            case _:
                return
        self._holders.pop(task_id, None)
