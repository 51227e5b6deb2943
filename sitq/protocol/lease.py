"""How a worker stays alive in the eyes of others, and finds the dead among them.

    NEW --Started--> ENTERING --Entered--> REGISTERING --Registered--> LOOKING
    LOOKING --the dead have been looked for and rescued--> HOLDING
    LOOKING, HOLDING --renewal refused, or none in time--> ENTERING   (a new life, under a new id)
    any --LeaveRequested--> LEAVING --Retired, or no answer in time--> GONE

A lease belongs to a worker, not to a task: one small row is renewed however many tasks run.
What the worker has reserved is its own for as long as the row is there. A rescue takes the
tasks and the row in one transaction, so a worker learns from one answer whether it still
holds everything or nothing.

The promises:
- `Hold` is said only after storage has agreed, and for less time than storage has granted:
  counted from when the request left, less `CLOCK_MARGIN`. This worker lets go first.
- A new life looks for the dead before it says `Hold`: what they left is there to be reserved
  from the first moment.
- A worker that let go never touches its old tasks again: it comes back under a new id.
- A peer is rescued only if its liveness lock is free or its lease has run out, and the
  second is judged by storage, inside the transaction that acts on it.

This machine runs in a thread of its own, so that no busy event loop can lose a lease.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NamedTuple, TypeAlias, assert_never

from sitq.protocol.message import message
from sitq.protocol.ops import (
    Op,
    Outcome,
    Prune,
    Pruned,
    Register,
    Renew,
    Rescue,
    Rescued,
    Retire,
    TaskKey,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
    Watched,
)
from sitq.protocol.timers import Timers, growing_pause

CLOCK_MARGIN: Final = 0.1
"""Of a lease: for clocks that do not run alike."""
RENEWALS_PER_LEASE: Final = 3
WATCH_EVERY: Final = 1.0
"""Seconds: a worker that died on this host is found within this and rescued within 2 s."""
UPKEEP_EVERY: Final = 30.0
PRUNE_LIMIT: Final = 250
"""Rows in one transaction: some milliseconds, so that pruning never stalls a reserve for long."""
PRUNE_AGAIN: Final = 0.0125
"""Seconds until the next such transaction, where there is more: at most 20,000 rows in a second."""
FIRST_PAUSE: Final = 0.5
"""Seconds until a question that storage failed to answer is asked again; doubled each time."""
LONGEST_PAUSE: Final = 4.0
LEAVE_WITHIN: Final = 5.0
"""Seconds a leaving worker tries to say so; its free liveness lock says it as well."""


class LeaseState(Enum):
    NEW = "new"
    ENTERING = "entering"
    REGISTERING = "registering"
    LOOKING = "looking"
    HOLDING = "holding"
    LEAVING = "leaving"
    GONE = "gone"


# A member is looked up in its enum by a slow path of Python 3.11; these are quick, and shorter.
NEW, ENTERING, REGISTERING, LOOKING, HOLDING, LEAVING, GONE = LeaseState

LIVING: Final = frozenset({LOOKING, HOLDING})


class LeaseTimer(IntEnum):
    EXPIRE = 1  # the lease ends here, as far as this worker is concerned
    RETRY = 2  # until then storage is left alone
    RENEW = 3
    WATCH = 4
    UPKEEP = 5
    QUIT = 6


EXPIRE, RETRY, RENEW, WATCH, UPKEEP, QUIT = LeaseTimer


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    host: str
    pid: int
    queues: tuple[str, ...]
    max_concurrency: int
    lease_for: float = 30.0
    retention: float | None = None
    stamps: tuple[str, ...] = ()
    watch_every: float = WATCH_EVERY
    upkeep_every: float = UPKEEP_EVERY


# -- events ----------------------------------------------------------------------------


@message
class Started(NamedTuple):
    pass


@message
class Entered(NamedTuple):
    """This life has a name, and its liveness lock is held."""

    worker_id: str


@message
class Applied(NamedTuple):
    outcomes: tuple[Outcome, ...]


@message
class ApplyFailed(NamedTuple):
    error: Exception


@message
class Probed(NamedTuple):
    """The peers whose liveness lock was found free: their process is dead."""

    dead: tuple[str, ...]


@message
class Disowned(NamedTuple):
    """The worker has let go of this life; it must not be renewed."""

    worker_id: str


@message
class LeaveRequested(NamedTuple):
    pass


@message
class Tick(NamedTuple):
    pass


LeaseEvent: TypeAlias = (
    Started | Entered | Applied | ApplyFailed | Probed | Disowned | LeaveRequested | Tick
)

# -- effects ---------------------------------------------------------------------------


@message
class Enter(NamedTuple):
    """Choose a new worker id and take its liveness lock; answered by `Entered`."""


@message
class Apply(NamedTuple):
    """Apply *ops* in one transaction; answered by `Applied` or `ApplyFailed`."""

    ops: tuple[Op, ...]


@message
class Probe(NamedTuple):
    """Find out which of these workers' liveness locks are free; answered by `Probed`."""

    worker_ids: tuple[str, ...]


@message
class Hold(NamedTuple):
    """Tell the worker that it holds its lease until *until*, on this machine's clock."""

    worker_id: str
    until: float


@message
class LetGo(NamedTuple):
    """Tell the worker that nothing it reserved under this id is its own any more."""

    worker_id: str


@message
class AskToStop(NamedTuple):
    """Tell the worker that callers want these tasks cancelled."""

    keys: tuple[TaskKey, ...]


@message
class Wake(NamedTuple):
    """Tell the worker that tasks have come back to the queues."""


@message
class Complain(NamedTuple):
    """Storage could not be reached for the upkeep of the lease; it is tried again."""

    error: Exception


@message
class Leave(NamedTuple):
    """Give up the liveness lock of this life."""

    worker_id: str


@message
class Sweep(NamedTuple):
    """Remove the liveness locks of these workers: they have been rescued."""

    worker_ids: tuple[str, ...]


@message
class Stop(NamedTuple):
    pass


LeaseEffect: TypeAlias = (
    Enter | Apply | Probe | Hold | LetGo | AskToStop | Wake | Complain | Leave | Sweep | Stop
)


class LeaseMachine:
    """One question to storage is under way at a time; what is due meanwhile goes with the next.

    What is due stays due until storage has answered, so a failed question is asked again.
    """

    def __init__(self, config: LeaseConfig) -> None:
        self.config = config
        self.state = NEW
        self.worker_id: str | None = None  # of this life; None between two lives
        self._timers: Timers[LeaseTimer] = Timers()
        self._due: set[LeaseTimer] = set()
        self._rescue_due = False
        self._dead: tuple[str, ...] = ()
        self._probing = False
        self._until = 0.0  # of the lease
        self._left_behind: tuple[str, ...] = ()  # our own earlier lives
        self._entering = False
        self._failures = 0  # in a row
        self._asking = False
        self._asked: tuple[Op, ...] = ()
        self._asked_at = 0.0

    def next_deadline(self) -> float | None:
        return self._timers.next_deadline()

    def receive(self, event: LeaseEvent, now: float) -> list[LeaseEffect]:
        """Take in *event*; return what to do, in order."""
        if self.state is GONE:
            # A life that was still being entered when time ran out is left at once.
            return [Leave(event.worker_id)] if isinstance(event, Entered) else []
        effects: list[LeaseEffect] = []
        match event:  # what comes most often comes first
            case Tick():
                pass  # the rules below are all there is to do
            case Applied():
                assert self._asking, "an answer that was not asked for"
                self._asking = False
                self._failures = 0
                for op, outcome in zip(self._asked, event.outcomes, strict=True):
                    self._answered(op, outcome, effects, now)
            case Probed():
                self._dead = event.dead
                self._probing = False
            case Started():
                assert self.state is NEW
                self._enter(effects)
            case Entered(worker_id):
                self._entering = False
                self.worker_id = worker_id
                if self.state is ENTERING:
                    self.state = REGISTERING
            case ApplyFailed(error):
                assert self._asking, "a failure of what was not asked for"
                self._asking = False
                pause = growing_pause(self._failures, FIRST_PAUSE, LONGEST_PAUSE)
                self._failures += 1
                self._timers.set(RETRY, now + pause)
                effects.append(Complain(error))
            case Disowned(worker_id):
                if worker_id == self.worker_id and self.state in LIVING:
                    self._let_go(effects)
            case LeaveRequested():
                self._leave(now, effects)
            case _:
                assert_never(event)
        if self._timers.earliest <= now:
            self._run_timers(now, effects)
        if self.state is LOOKING:
            self._check_looked(effects)
        if not self._asking and self._is_asked():
            self._ask(now, effects)
        return effects

    # -- one method for each event -------------------------------------------------------

    def _answered(self, op: Op, outcome: Outcome, effects: list[LeaseEffect], now: float) -> None:
        match op:
            case Renew() | Register():
                if op.worker_id != self.worker_id:
                    return  # about an earlier life
                self._due.discard(RENEW)
                if type(outcome) is Unregistered:
                    self._let_go(effects)
                elif self.state is not LEAVING:
                    self._hold(op.worker_id, effects, now)
            case Watch():
                assert type(outcome) is Watched
                self._due.discard(WATCH)
                self._rescue_due |= outcome.expired
                if outcome.peers:
                    self._probing = True
                    effects.append(Probe(outcome.peers))
                if outcome.cancelled:
                    effects.append(AskToStop(outcome.cancelled))
            case Rescue():
                assert type(outcome) is Rescued
                self._rescue_due = False
                # What has come up since it was asked is still to be rescued.
                self._dead = tuple(id_ for id_ in self._dead if id_ not in op.worker_ids)
                self._left_behind = tuple(
                    id_ for id_ in self._left_behind if id_ not in op.worker_ids
                )
                if outcome.workers:
                    effects.append(Sweep(outcome.workers))
                if outcome.tasks:
                    effects.append(Wake())
            case Unpark():
                assert type(outcome) is Unparked
                self._due.discard(UPKEEP)
                if outcome.tasks:
                    effects.append(Wake())
            case Prune():
                assert type(outcome) is Pruned
                if outcome.tasks == op.limit:  # there is more: go on, but let others in between
                    self._timers.pull_in(UPKEEP, now + PRUNE_AGAIN)
            case _:
                assert type(op) is Retire
                self._go(effects)

    def _hold(self, worker_id: str, effects: list[LeaseEffect], now: float) -> None:
        lease_for = self.config.lease_for
        until = self._asked_at + lease_for * (1 - CLOCK_MARGIN)
        if now >= until:
            return  # the answer took longer than the lease: the timer below lets go
        if self.state is REGISTERING:
            self.state = LOOKING
            self._due |= {WATCH, UPKEEP}
            self._timers.set(WATCH, now + self.config.watch_every)
            self._timers.set(UPKEEP, now + self.config.upkeep_every)
        self._timers.set(RENEW, self._asked_at + lease_for / RENEWALS_PER_LEASE)
        self._timers.set(EXPIRE, until)
        self._until = until
        if self.state is HOLDING:
            effects.append(Hold(worker_id, until))

    def _let_go(self, effects: list[LeaseEffect]) -> None:
        """End this life. What it left behind is rescued when the next one registers."""
        assert self.worker_id is not None
        self._timers.clear()
        self._due.clear()
        self._probing = False
        self._left_behind += (self.worker_id,)
        effects += [LetGo(self.worker_id), Leave(self.worker_id)]
        self.worker_id = None
        if self.state is not LEAVING:
            self._enter(effects)

    def _enter(self, effects: list[LeaseEffect]) -> None:
        self.state = ENTERING
        self._entering = True
        effects.append(Enter())

    def _leave(self, now: float, effects: list[LeaseEffect]) -> None:
        if self.state is LEAVING:
            return
        if self.state is NEW:
            self._go(effects)
            return
        self.state = LEAVING
        self._timers.clear()
        self._timers.set(QUIT, now + LEAVE_WITHIN)

    # -- the rules that hold in every state ----------------------------------------------

    def _check_looked(self, effects: list[LeaseEffect]) -> None:
        looked = WATCH not in self._due and not self._probing
        if looked and not self._dead and not self._rescue_due:
            assert self.worker_id is not None
            self.state = HOLDING
            effects.append(Hold(self.worker_id, self._until))

    def _run_timers(self, now: float, effects: list[LeaseEffect]) -> None:
        for timer in self._timers.expire(now):
            if timer is WATCH:
                self._due.add(timer)
                self._timers.set(timer, now + self.config.watch_every)
            elif timer is RENEW:
                self._due.add(timer)
            elif timer is UPKEEP:
                self._due.add(timer)
                self._timers.set(timer, now + self.config.upkeep_every)
            elif timer is EXPIRE:
                self._let_go(effects)
            elif timer is QUIT:
                self._go(effects)
            else:
                assert timer is RETRY  # `_ask` may speak again

    def _ask(self, now: float, effects: list[LeaseEffect]) -> None:
        if self._timers.is_set(RETRY):
            return
        if self.state is LEAVING and self.worker_id is None and not self._entering:
            self._go(effects)
            return
        ops = self._questions()
        if ops:
            self._asking = True
            self._asked = ops
            self._asked_at = now
            effects.append(Apply(ops))

    def _questions(self) -> tuple[Op, ...]:
        worker_id = self.worker_id
        if worker_id is None:
            return ()
        if self.state is LEAVING:
            return (Retire(worker_id),)
        config = self.config
        ops: list[Op] = []
        if self._left_behind or self._dead or self._rescue_due:
            ops.append(Rescue(self._left_behind + self._dead))
        if self.state is REGISTERING:
            ops.append(
                Register(
                    worker_id=worker_id,
                    host=config.host,
                    pid=config.pid,
                    queues=config.queues,
                    max_concurrency=config.max_concurrency,
                    lease_for=config.lease_for,
                )
            )
        if RENEW in self._due:
            ops.append(Renew(worker_id, config.lease_for))
        if UPKEEP in self._due:
            ops.append(Unpark(config.stamps))
            if config.retention is not None:
                ops.append(Prune(older_than=config.retention, limit=PRUNE_LIMIT))
        if WATCH in self._due:
            ops.append(Watch(worker_id))
        return tuple(ops)

    def _is_asked(self) -> bool:
        """Say whether there is anything to ask; one that holds its lease asks what is due."""
        return bool(
            self._due
            or self._dead
            or self._left_behind
            or self._rescue_due
            or self.state is not HOLDING
        )

    def _go(self, effects: list[LeaseEffect]) -> None:
        self.state = GONE
        self._timers.clear()
        if self.worker_id is not None:
            effects.append(Leave(self.worker_id))
            self.worker_id = None
        effects.append(Stop())
