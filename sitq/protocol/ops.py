"""What may be asked of storage, and what storage answers.

An op is a value; a batch of ops is one transaction. Refusals that will happen (a late
worker, an id given twice) are outcomes, not exceptions.

Any op may be asked again after its answer was lost. An enqueue is known by its ids, a settle
by its token, a renew, retire and rescue by the worker's row. A reserve that is asked again says
what its worker knows to hold, and is given what the lost answer named before anything else.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from sitq.protocol.lifecycle import TaskState
from sitq.protocol.message import message


class TaskKey(NamedTuple):
    """One attempt, by name: storage's own number of the task, and the fencing token."""

    seq: int
    token: int


class Moment(NamedTuple):
    """What the store's clocks say when a batch is applied.

    Wall time judges ETAs. Leases are judged on a clock that wall-clock jumps cannot move;
    *epoch* names its run (a boot of a host), and a lease of another epoch is void.
    """

    wall_ms: int
    lease_ms: int
    epoch: str


# -- what a task carries ---------------------------------------------------------------


@message
class RetryPolicy(NamedTuple):
    """How often a task may fail, and how long to wait in between (seconds)."""

    attempts: int = 1
    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 300.0
    jitter: float = 0.1


@message
class TaskPolicy(NamedTuple):
    """The rules of one task that its worker needs while it runs."""

    timeout: float | None = None
    retry: RetryPolicy = RetryPolicy()
    max_crashes: int = 3


NO_POLICY: Final = TaskPolicy()
"""What most tasks have; stored as nothing at all."""


@message
class NewTask(NamedTuple):
    """A task as it is enqueued. Without *run_at_ms* it is due *delay_ms* from now."""

    id: str
    payload: bytes
    name: str
    queue: str = "default"
    priority: int = 0
    run_at_ms: int | None = None
    delay_ms: int = 0
    policy: TaskPolicy = NO_POLICY


@message
class Failure(NamedTuple):
    """What went wrong, as text: it never needs the exception's class to be read."""

    error: str
    error_type: str
    traceback: str | None = None
    reason: str | None = None


@message
class Reservation(NamedTuple):
    """A task in a worker's hands."""

    key: TaskKey
    id: str
    name: str
    payload: bytes
    attempt: int
    policy: TaskPolicy
    crashes: int = 0
    """How many workers have died with it."""


# -- verdicts: what becomes of a task that was running ----------------------------------


@message
class Completed(NamedTuple):
    value: bytes


@message
class Failed(NamedTuple):
    failure: Failure


@message
class RetryIn(NamedTuple):
    delay: float
    failure: Failure


@message
class Released(NamedTuple):
    """Handed back unharmed: the attempt is not charged."""


@message
class Parked(NamedTuple):
    stamp: str
    text: str


@message
class Aborted(NamedTuple):
    """Stopped because a caller had asked for it."""


Verdict: TypeAlias = Completed | Failed | RetryIn | Released | Parked | Aborted


# -- ops that write --------------------------------------------------------------------


@message
class Enqueue(NamedTuple):
    """Store all of *tasks* or none.

    *may_exist* says that a caller chose an id, which may be there already.
    """

    tasks: tuple[NewTask, ...]
    may_exist: bool = False


@message
class Reserve(NamedTuple):
    """Give up to *limit* tasks of *queues* to a worker that is registered.

    *known* is given after an answer was lost: the tasks that the worker knows to hold. All others
    that the store has it hold come first.
    """

    worker_id: str
    queues: tuple[str, ...]
    limit: int
    known: tuple[int, ...] | None = None


@message
class Settle(NamedTuple):
    """Say what became of an attempt; refused unless the worker still holds it."""

    key: TaskKey
    task_id: str
    worker_id: str
    verdict: Verdict


@message
class Cancel(NamedTuple):
    task_id: str


@message
class Register(NamedTuple):
    """Begin a worker's lease. One worker id is one life of one worker."""

    worker_id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    max_concurrency: int
    lease_for: float


@message
class Renew(NamedTuple):
    worker_id: str
    lease_for: float


@message
class Retire(NamedTuple):
    """End a worker's lease; what it still holds goes back uncharged."""

    worker_id: str


@message
class Rescue(NamedTuple):
    """Take back the tasks of workers that are dead, and charge each with a crash.

    Dead are those in *worker_ids*, and those whose lease has run out.
    """

    worker_ids: tuple[str, ...] = ()


@message
class Unpark(NamedTuple):
    """Put parked tasks that bear one of *stamps* back into their queues."""

    stamps: tuple[str, ...]


@message
class Prune(NamedTuple):
    """Forget up to *limit* tasks that ended *older_than* seconds ago or more."""

    older_than: float
    limit: int


WriteOp: TypeAlias = (
    Enqueue | Reserve | Settle | Cancel | Register | Renew | Retire | Rescue | Unpark | Prune
)


# -- ops that read ---------------------------------------------------------------------


@message
class Fetch(NamedTuple):
    """Tell how tasks stand."""

    task_ids: tuple[str, ...]


@message
class Watch(NamedTuple):
    """Tell a worker of its peers, and of its tasks that a caller wants cancelled."""

    worker_id: str


@message
class Count(NamedTuple):
    """Count the tasks by queue and state."""


ReadOp: TypeAlias = Fetch | Watch | Count
Op: TypeAlias = WriteOp | ReadOp


# -- outcomes --------------------------------------------------------------------------


@message
class Enqueued(NamedTuple):
    pass


@message
class Conflict(NamedTuple):
    """Nothing was stored: *task_id* is taken by a task with another payload."""

    task_id: str
    state: TaskState


@message
class Reserved(NamedTuple):
    """*next_due_in* is None while more tasks may be waiting, or when nothing is scheduled."""

    tasks: tuple[Reservation, ...]
    next_due_in: float | None = None


@message
class Unregistered(NamedTuple):
    """Refused: this worker's lease has ended."""


@message
class Settled(NamedTuple):
    applied: bool


@message
class Cancelled(NamedTuple):
    """*was* is the state before, None if there is no such task.

    A running task is only asked to stop; *holder* then says which worker runs it.
    """

    was: TaskState | None
    holder: str | None = None
    key: TaskKey | None = None


@message
class Registered(NamedTuple):
    pass


@message
class Renewed(NamedTuple):
    pass


@message
class Retired(NamedTuple):
    released: int


@message
class Rescued(NamedTuple):
    workers: tuple[str, ...]
    tasks: int


@message
class Unparked(NamedTuple):
    tasks: int


@message
class Pruned(NamedTuple):
    tasks: int


@message
class TaskRow(NamedTuple):
    """How a task stands, without its payload."""

    id: str
    name: str
    queue: str
    state: TaskState
    attempt: int
    crashes: int
    enqueued_ms: int
    started_ms: int | None = None
    finished_ms: int | None = None
    value: bytes | None = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    reason: str | None = None


@message
class Fetched(NamedTuple):
    """The rows that were found, by id."""

    rows: Mapping[str, TaskRow]


@message
class Watched(NamedTuple):
    """*peers* are the other workers; *expired* says whether one of them let its lease run out."""

    peers: tuple[str, ...]
    expired: bool
    cancelled: tuple[TaskKey, ...]


@message
class Counted(NamedTuple):
    """(queue, state, number of tasks), in that order."""

    rows: tuple[tuple[str, TaskState, int], ...]


Outcome: TypeAlias = (
    Enqueued
    | Conflict
    | Reserved
    | Unregistered
    | Settled
    | Cancelled
    | Registered
    | Renewed
    | Retired
    | Rescued
    | Unparked
    | Pruned
    | Fetched
    | Watched
    | Counted
)
