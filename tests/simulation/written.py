"""Histories written by hand: a few lines each, so that one can see what a checker is shown.

A `Written` knows how the rows stand, and tells of each move as the stores do. It forbids nothing:
it is there to write down what must not happen.
"""

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Completed,
    Enqueue,
    Enqueued,
    Moment,
    NewTask,
    Register,
    Registered,
    Rescue,
    Rescued,
    Reserve,
    Reserved,
    Settle,
    Settled,
    TaskKey,
)
from sitq.testing.simulation.history import Batch, Change, Event, Kind

EPOCH_MS = 1_800_000_000_000


class Written:
    def __init__(self) -> None:
        self.history: list[Event] = []
        self.at = 0.0
        self.rows: dict[str, Change] = {}

    # -- the words -----------------------------------------------------------------------

    def later(self, seconds: float) -> "Written":
        self.at += seconds
        return self

    def note(self, kind: Kind, who="a1", task="", token=0, value=None) -> "Written":
        self.at = round(self.at + 0.001, 6)
        self.history.append(Event(self.at, kind, who, task, token, value))
        return self

    @property
    def now(self) -> Moment:
        return Moment(EPOCH_MS + round(self.at * 1000), round(self.at * 1000), "boot-1")

    def commit(self, *answered, who="a1") -> "Written":
        """A transaction: pairs of an op and its outcome."""
        ops, outcomes = tuple(op for op, _ in answered), tuple(out for _, out in answered)
        return self.note(Kind.BATCH, who, value=Batch(ops, outcomes, self.now))

    def row(self, task: str, new: S | None, who="a1", **changed) -> "Written":
        """What the transaction above has changed in the row of *task*."""
        before = self.rows.get(task)
        if before is None:
            before = Change(
                len(self.rows) + 1, None, None, 0, 0, None, None, 0, 0, 0, EPOCH_MS, None, False,
                "default", 0,
            )  # fmt: skip
        change = before._replace(
            old=before.new,
            new=new,
            old_token=before.token,
            old_worker=before.worker,
            old_attempt=before.attempt,
        )
        change = change._replace(**changed)
        self.rows[task] = change
        return self.note(Kind.ROW, who, task, change.token, change)

    # -- what usually happens ------------------------------------------------------------

    def worker(self, who="a1", slots=1, lease_for=3.0, life=1) -> "Written":
        """A process comes up, and is given its lease."""
        worker_id = f"{who}.{life}"
        if life == 1:
            self.note(Kind.UP, who)
        register = Register(worker_id, "host", 1, ("default",), slots, lease_for)
        self.commit((register, Registered()), who=who)
        return self.note(Kind.HELD, who, value=worker_id)

    def asked(self, *tasks: str, who="a1") -> "Written":
        return self.note(Kind.ENQUEUE, who, value=tasks)

    def stored(self, *tasks: str, who="a1", state=S.QUEUED, fields=None, **changed) -> "Written":
        new = tuple(NewTask(task, b"v1|", "f", **(fields or {})) for task in tasks)
        self.commit((Enqueue(new), Enqueued()), who=who)
        for task in tasks:
            self.row(task, state, who, **changed)
        return self

    def enqueued(self, *tasks: str, who="a1", fields=None) -> "Written":
        """Somebody asks for *tasks*, they are stored, and he is told so."""
        self.asked(*tasks, who=who).stored(*tasks, who=who, fields=fields)
        return self.note(Kind.ENQUEUED, who, value=tasks)

    def reserved(self, task: str, who="a1", **changed) -> "Written":
        row = self.rows[task]
        fields = {"token": row.token + 1, "attempt": row.attempt + 1} | changed
        self.commit((Reserve(f"{who}.1", ("default",), 1), Reserved(())), who=who)
        return self.row(task, S.RUNNING, who, worker=f"{who}.1", **fields)

    def begun(self, task: str, who="a1") -> "Written":
        row = self.rows[task]
        return self.note(Kind.START, who, task, row.token, (f"{who}.1", b"v1|"))

    def started(self, task: str, who="a1") -> "Written":
        """A worker is given *task*, and starts it."""
        return self.reserved(task, who).begun(task, who)

    def ended(self, task: str, who="a1", how="returned") -> "Written":
        return self.note(Kind.END, who, task, self.rows[task].token, how)

    def settle(self, task: str, verdict=None, who="a1", token=None) -> Settle:
        row = self.rows[task]
        key = TaskKey(row.seq, token or row.token)
        verdict = Completed(b"done") if verdict is None else verdict
        return Settle(key, task, f"{who}.1", verdict)

    def settled(self, task: str, new=S.SUCCESS, verdict=None, who="a1", **changed) -> "Written":
        self.commit((self.settle(task, verdict, who), Settled(True)), who=who)
        return self.row(task, new, who, worker=None, **changed)

    def done(self, task: str, who="a1") -> "Written":
        """A worker takes *task*, and succeeds."""
        self.started(task, who).ended(task, who).settled(task, who=who)
        return self.note(Kind.TOLD, who, task, self.rows[task].token, value=True)

    def rescued(self, task: str, who="b1", new=S.QUEUED, **changed) -> "Written":
        row = self.rows[task]
        dead = row.worker or ""
        self.commit((Rescue((dead,)), Rescued((dead,), 1)), who=who)
        fields = {
            "token": row.token + 1,
            "attempt": row.attempt - 1,
            "crashes": row.crashes + 1,
            "worker": None,
        }
        return self.row(task, new, who, **(fields | changed))
