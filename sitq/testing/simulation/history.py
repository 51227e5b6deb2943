"""What happened in a run, simulated or real: one format, for one set of checkers.

A history is a list of events in the order in which they came about; events of the store come in
the order of its commits. Words are those of a log that says what was asked (`?`), what was
acknowledged (`!`), refused (`-`), and what nobody can know (`~`).
"""

from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import Moment, Op, Outcome


class Kind(StrEnum):
    # -- processes, and what is done to them
    UP = "up"
    KILLED = "killed"
    PAUSED = "paused"
    """It does not run at all for *value* seconds: SIGSTOP, or a machine that sleeps."""
    BLOCKED = "blocked"
    """A task keeps the event loop busy for *value* seconds."""
    STOP_ASKED = "stop?"
    """A stop with a grace of *value* seconds, None for as long as it takes."""
    STOPPED = "stop!"
    """*value* is what is left in memory of tasks, by name and number."""
    # -- enqueueing: *value* is the ids of one ask
    ENQUEUE = "enq?"
    ENQUEUED = "enq!"
    REFUSED = "enq-"
    UNKNOWN = "enq~"
    CONFLICT = "enq-conflict"
    # -- running
    HELD = "held"
    """The worker is told that it holds a new lease; *value* is its worker id."""
    LET_GO = "let go"
    START = "start"
    """*value* is the worker id, and the payload."""
    INTERRUPT = "interrupt"
    """The worker tells a task to stop."""
    END = "end"
    """The function is over; *value* says how: returned, raised, interrupted, unreadable."""
    TOLD = "told"
    """The worker was told what became of its verdict; *value* is whether it was applied."""
    DENIED = "denied"
    """The store has failed the worker, or its lease (*value* says which): it is to ask again later."""
    # -- asking back
    CANCEL = "cancel?"
    CANCELLED = "cancel!"
    """*value* is the state in which the store found the task, None if it has none."""
    WAIT = "wait?"
    """Somebody begins to wait for a task; *value* is for how many seconds, None without limit."""
    GAVE_UP = "gave up"
    """The wait was in vain."""
    READ = "read"
    """Somebody was told of the end of a task; *value* is (state, result)."""
    # -- the store
    BATCH = "batch"
    """A transaction was committed; *value* is a `Batch`. Its `ROW`s follow."""
    ROW = "row"
    """The row of a task has changed; *value* is a `Change`."""
    STANDS = "stands"
    """How a task's row stands at the end, where no `ROW` told; *value* is its state, or None."""
    SOUND = "sound?"
    """The store was examined; *value* is whether it is whole."""
    # -- the world
    FAULT = "fault"
    """Something went wrong that no other kind tells of; *value* says what."""
    HEALED = "healed"
    """From here on nothing goes wrong any more."""
    QUIET = "quiet"
    """The run has ended, with nothing left to do."""
    STUCK = "stuck"
    """The run has ended, although not everything was done."""


ANSWERED_TWICE: Final = "is given an answer twice"
"""The *value* of a `FAULT`."""


class Event(NamedTuple):
    """*at* is in seconds of true time, which nobody in the run can see."""

    at: float
    kind: Kind
    who: str = ""
    """The process; a life of it, where there are several."""
    task: str = ""
    token: int = 0
    value: Any = None


History: TypeAlias = list[Event]

made: Final = tuple.__new__
"""`made(Kind, (a, b))` is `Kind(a, b)`, for half of the time: where one is made for each event."""


class Batch(NamedTuple):
    """One committed transaction."""

    ops: tuple[Op, ...]
    outcomes: tuple[Outcome, ...]
    now: Moment


class Change(NamedTuple):
    """A task's row before and after; *old* is None where it was inserted, *new* if deleted."""

    seq: int
    old: TaskState | None
    new: TaskState | None
    old_token: int
    token: int
    old_worker: str | None
    worker: str | None
    old_attempt: int
    attempt: int
    crashes: int
    run_at_ms: int
    finished_ms: int | None
    cancel_asked: bool
    queue: str
    priority: int
