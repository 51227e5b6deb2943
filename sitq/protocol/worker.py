"""What a worker does next.

    NEW --Started--> RUNNING --StopRequested--> DRAINING --nothing left--> STOPPED

The promises:
- It holds at most `max_concurrency` tasks, threads that outlived their task counted in.
- It reserves what it starts at once, and of short tasks the next ones (see `ahead`): a task that an
  idle worker could start is not kept by a busy one.
- Of tasks that follow one another in no time it speaks once there are no more of them, not of each.
- The settle of a finished task and the reserve that refills its slot leave in one `Store`,
  hence in one transaction, together with all else that became ready in the same turn.
- With a slot free it reserves in the very transaction that stores tasks of its own process.
- It runs nothing that was reserved under a lease which it has lost, and settles nothing.
- What an answer named that was lost on its way is found again with the next ones.
- A stop stands, even if it was asked before `Started`.

Events of one turn of the loop are told one by one and closed by `TurnEnded`; only then does
the machine speak to storage, or when it hears of a transaction that is `Coming`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from math import inf
from typing import Final, NamedTuple, TypeAlias, assert_never

from sitq.protocol.ahead import Ahead, may_be_held
from sitq.protocol.message import message
from sitq.protocol.ops import (
    Aborted,
    Op,
    Outcome,
    Released,
    Reservation,
    Reserve,
    Reserved,
    Settle,
    Settled,
    TaskKey,
    Unregistered,
    Verdict,
)
from sitq.protocol.retry import Ending, Why, judge
from sitq.protocol.time_limits import TimeLimits
from sitq.protocol.timers import Timers, growing_pause

STORE_BACKOFF: Final = 0.2
"""Seconds until storage is asked again after its first failure; doubled for each further one."""
LONGEST_BACKOFF: Final = 5.0


class WorkerState(Enum):
    NEW = "new"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class WorkerTimer(IntEnum):
    LEASE = 1  # the lease ends here, unless it is renewed
    GRACE = 2  # what still runs is interrupted
    POLL = 3
    RETRY = 4  # until then storage is left alone
    AHEAD = 5  # what is held ahead has waited too long


# A member is looked up in its enum by a slow path of Python 3.11; these are quick, and shorter.
NEW, RUNNING, DRAINING, STOPPED = WorkerState
LEASE, GRACE, POLL, RETRY, AHEAD = WorkerTimer


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Times in seconds. *drain* ends the worker as soon as nothing is due; *horizon* is within what
    time a task must start that is held ahead; *quick* is for a store that gets nowhere while tasks
    keep the loop busy: if they start within that time of one another, it is asked once they are over.
    """

    queues: tuple[str, ...] = ("default",)
    max_concurrency: int = 1
    poll_interval: float = 1.0
    drain: bool = False
    horizon: float = 0.01
    quick: float = 0.0


# -- events ----------------------------------------------------------------------------


@message
class Started(NamedTuple):
    pass


@message
class LeaseHeld(NamedTuple):
    """The lease of this life is good for *remaining* seconds from now."""

    worker_id: str
    remaining: float


@message
class LeaseLost(NamedTuple):
    """Nothing that was reserved under this id is this worker's any more."""

    worker_id: str


@message
class StopAsked(NamedTuple):
    """Callers want these tasks cancelled."""

    keys: tuple[TaskKey, ...]


@message
class Woken(NamedTuple):
    """Something may have become due sooner than this worker thinks."""


@message
class Coming(NamedTuple):
    """Tasks for these queues are about to be stored: what is said now is in their transaction."""

    queues: tuple[str, ...]


@message
class TaskEnded(NamedTuple):
    """*lingers* says that a thread was abandoned and still runs; it keeps its slot."""

    key: TaskKey
    ending: Ending
    lingers: bool = False


@message
class ThreadReturned(NamedTuple):
    """An abandoned thread has ended."""


@message
class Stored(NamedTuple):
    ticket: int
    outcomes: tuple[Outcome, ...]


@message
class StoreFailed(NamedTuple):
    ticket: int
    error: Exception


@message
class StopRequested(NamedTuple):
    """*grace*: seconds until running tasks are interrupted; None waits for them."""

    grace: float | None = None


@message
class TurnPassed(NamedTuple):
    """All that could run when `WaitATurn` was said has run; some of it may have ended."""


@message
class TurnEnded(NamedTuple):
    """All that became ready in this turn has been told; or the deadline has come."""


WorkerEvent: TypeAlias = (
    Started
    | LeaseHeld
    | LeaseLost
    | StopAsked
    | Woken
    | Coming
    | TaskEnded
    | ThreadReturned
    | Stored
    | StoreFailed
    | StopRequested
    | TurnPassed
    | TurnEnded
)

# -- effects ---------------------------------------------------------------------------


@message
class Store(NamedTuple):
    """Apply *ops* in one transaction; answered by `Stored` or `StoreFailed`."""

    ticket: int
    ops: tuple[Op, ...]


@message
class Execute(NamedTuple):
    """Run this task; answered by `TaskEnded`."""

    task: Reservation


@message
class Interrupt(NamedTuple):
    """Stop this attempt; its `TaskEnded` is still awaited. The machine keeps the reason."""

    key: TaskKey
    why: Why


@message
class Disown(NamedTuple):
    """Tell the lease's own machine that this worker lets go of it; another life begins."""

    worker_id: str


@message
class Late(NamedTuple):
    """A verdict was refused: the attempt was no longer this worker's to settle."""

    task_id: str


@message
class WaitATurn(NamedTuple):
    """Let what has been started run first; answered by `TurnPassed`."""


@message
class Stop(NamedTuple):
    pass


WorkerEffect: TypeAlias = Store | Execute | Interrupt | Disown | Late | WaitATurn | Stop


@dataclass(slots=True)
class Running:
    task: Reservation
    worker_id: str
    since: float
    why: Why | None = None  # set once it has been interrupted


class WorkerMachine:
    """*unit* is the only source of chance: a function that returns a number in [0, 1)."""

    def __init__(self, config: WorkerConfig, unit: Callable[[], float]) -> None:
        self.config = config
        self.state = NEW
        self._unit = unit
        self._timers: Timers[WorkerTimer] = Timers()
        self._worker_id: str | None = None  # of the life whose lease is held
        self._over: str | None = None  # the last life that has ended
        self._running: dict[TaskKey, Running] = {}
        # under the lease that is held
        self._ahead = Ahead(config.max_concurrency, config.horizon, config.quick)
        self._started_ahead = False  # one of these, since we last spoke or waited
        self._waits_a_turn = False
        self._lingering = 0
        self._time_limits = TimeLimits()
        self._settles: list[Settle] = []  # to leave with the next `Store`
        self._asked: dict[int, tuple[Op, ...]] = {}
        self._ticket = 0
        self._reserving = False
        self._unheard = 0  # tasks that we may have been given by answers that were lost, at most
        self._wants_tasks = False
        self._failures = 0  # of storage, in a row

    @property
    def running(self) -> int:
        """The slots in use."""
        return len(self._running) + self._lingering

    def next_deadline(self) -> float | None:
        timer = self._timers.next_deadline()
        if self._time_limits.earliest == inf:
            return timer
        limit = self._time_limits.next_deadline(self._running)
        if timer is None or limit is None:
            return limit if timer is None else timer
        return min(timer, limit)

    def receive(self, event: WorkerEvent, now: float) -> list[WorkerEffect]:
        """Take in *event*; return what to do, in order."""
        effects: list[WorkerEffect] = []
        match event:  # what comes most often comes first
            case TurnEnded():
                if self._timers.earliest <= now or self._time_limits.earliest <= now:
                    self._run_timers(now, effects)
                if self._ahead.held:
                    self._start_what_fits(now, effects)
                if (self._settles or self._wants_tasks) and not self._waits_a_turn:
                    self._speak(now, effects)
                if self.state is DRAINING:
                    self._check_done(effects)
            case TaskEnded():
                self._task_ended(event, now)
            case Stored():
                self._stored(self._asked.pop(event.ticket), event.outcomes, now, effects)
            case LeaseHeld():
                self._lease_held(event, now, effects)
            case Woken():
                self._wants_tasks = True
            case Coming(queues):
                if self._can_start(queues, now):
                    self._wants_tasks = True
                    self._store(now, effects)
            case TurnPassed():
                self._waits_a_turn = False
            case StoreFailed(ticket):
                self._store_failed(self._asked.pop(ticket), now)
            case LeaseLost(worker_id):
                self._lease_lost(worker_id, effects)
            case StopAsked(keys):
                self._interrupt(keys, Why.USER, effects)
                self._settle_ahead(self._ahead.remove(keys), Aborted())
            case ThreadReturned():
                self._lingering -= 1
                self._wants_tasks = True
            case Started():
                if self.state is NEW:  # else a stop came first, and stands
                    self.state = RUNNING
                    self._wants_tasks = True
            case StopRequested(grace):
                self._stop_requested(grace, now)
            case _:
                assert_never(event)
        return effects

    # -- one method for each event -------------------------------------------------------

    def _task_ended(self, event: TaskEnded, now: float) -> None:
        running = self._running.pop(event.key)
        self._ahead.measure(now - running.since)
        if event.lingers:
            self._lingering += 1
        self._wants_tasks = True  # a slot is free
        if running.why is not Why.LEASE_LOST:  # else it is another's to settle
            task = running.task
            verdict = judge(task, event.ending, running.why, self._unit())
            self._settles.append(Settle(task.key, task.id, running.worker_id, verdict))

    def _lease_held(self, event: LeaseHeld, now: float, effects: list[WorkerEffect]) -> None:
        worker_id = event.worker_id
        if worker_id == self._over or self.state is STOPPED:
            return  # late news, or news that crossed with ours
        if self._worker_id != worker_id:
            if self._worker_id is not None:  # its end is told later: the latest hold comes first
                self._lease_lost(self._worker_id, effects)
            self._worker_id = worker_id
            self._wants_tasks = True
        self._timers.set(LEASE, now + event.remaining)

    def _lease_lost(self, worker_id: str, effects: list[WorkerEffect]) -> None:
        if worker_id == self._worker_id:
            self._worker_id = None
            self._over = worker_id
            self._timers.stop(LEASE)
            self._ahead.clear()
        lost = [key for key, running in self._running.items() if running.worker_id == worker_id]
        self._interrupt(lost, Why.LEASE_LOST, effects)
        self._settles = [settle for settle in self._settles if settle.worker_id != worker_id]

    def _disown(self, effects: list[WorkerEffect]) -> None:
        """Let go of the lease on this side, and say so: the two sides must not differ."""
        assert self._worker_id is not None
        effects.append(Disown(self._worker_id))
        self._lease_lost(self._worker_id, effects)

    def _stop_requested(self, grace: float | None, now: float) -> None:
        if self.state is STOPPED:
            return
        self.state = DRAINING
        self._timers.stop(POLL)
        self._settle_ahead(self._ahead.clear(), Released())
        if grace is not None:
            self._timers.pull_in(GRACE, now + grace)

    def _stored(
        self,
        ops: tuple[Op, ...],
        outcomes: tuple[Outcome, ...],
        now: float,
        effects: list[WorkerEffect],
    ) -> None:
        self._failures = 0
        for op, outcome in zip(ops, outcomes, strict=True):
            if type(op) is Settle:
                assert type(outcome) is Settled
                if not outcome.applied:
                    effects.append(Late(op.task_id))
            else:
                assert type(op) is Reserve
                self._reserving = False
                if op.worker_id != self._worker_id:
                    continue  # reserved by a life that is over, and rescued with it
                if type(outcome) is Unregistered or self._timers.is_due(LEASE, now):
                    self._disown(effects)
                else:
                    assert type(outcome) is Reserved
                    self._reserved(op, outcome, now, effects)

    def _reserved(
        self, op: Reserve, outcome: Reserved, now: float, effects: list[WorkerEffect]
    ) -> None:
        if self.state is not RUNNING:
            self._settle_ahead(outcome.tasks, Released())
            return
        for n, task in enumerate(outcome.tasks):
            if not self._ahead.held and self.running < self.config.max_concurrency:
                self._execute(task, op.worker_id, now, effects)
            elif may_be_held(task):
                self._ahead.hold(task, now)
            else:  # it goes back, and so that nothing overtakes it, so does what comes after it
                self._settle_ahead(outcome.tasks[n:], Released())
                self._ahead.rest(now)
                break
        if len(outcome.tasks) == op.limit:
            self._wants_tasks = True  # there may be more
            self._unheard = max(0, self._unheard - op.limit)
            return
        self._unheard = 0
        due_in = outcome.next_due_in
        pause = (
            self.config.poll_interval if due_in is None else min(due_in, self.config.poll_interval)
        )
        self._timers.set(POLL, now + pause)
        idle = not (outcome.tasks or self._running or self._settles or self._wants_tasks)
        if self.config.drain and idle:
            self._stop_requested(None, now)

    def _execute(
        self, task: Reservation, worker_id: str, now: float, effects: list[WorkerEffect]
    ) -> None:
        assert task.key not in self._running, "storage gave one token out twice"
        self._running[task.key] = Running(task, worker_id, now)
        if task.policy.timeout is not None:
            over_at = now + task.policy.timeout
            self._time_limits.set(task.key, over_at, self._running, self.config.max_concurrency)
        effects.append(Execute(task))

    def _settle_ahead(self, tasks: Iterable[Reservation], verdict: Verdict) -> None:
        """Give back what is held and was not started."""
        assert self._worker_id is not None or not tasks
        for task in tasks:
            self._settles.append(Settle(task.key, task.id, self._worker_id or "", verdict))

    def _store_failed(self, ops: tuple[Op, ...], now: float) -> None:
        """Keep the verdicts, and ask again later: no completed work is run again for this."""
        pause = growing_pause(self._failures, STORE_BACKOFF, LONGEST_BACKOFF)
        self._failures += 1
        self._timers.set(RETRY, now + pause)
        for op in ops:
            if isinstance(op, Reserve):
                self._reserving = False
                self._wants_tasks = True
                self._unheard = max(self._unheard, op.limit)  # those it knows of count in its limit
            else:
                assert isinstance(op, Settle)
                if op.worker_id == self._worker_id:  # else the lease was lost meanwhile
                    self._settles.append(op)

    # -- the rules at the end of a turn --------------------------------------------------

    def _run_timers(self, now: float, effects: list[WorkerEffect]) -> None:
        for timer in self._timers.expire(now):
            if timer is POLL:
                self._wants_tasks = True
            elif timer is LEASE:
                self._disown(effects)
            elif timer is GRACE:
                self._interrupt(list(self._running), Why.SHUTDOWN, effects)
            else:  # `_store` may speak again; `_start_what_fits` looks by itself
                assert timer is RETRY or timer is AHEAD
        for key in self._time_limits.expire(now):
            self._interrupt((key,), Why.TIMEOUT, effects)

    def _start_what_fits(self, now: float, effects: list[WorkerEffect]) -> None:
        """Start what is held ahead, as far as there are slots; hand back what has waited too long."""
        ahead = self._ahead
        while ahead.held and self.running < self.config.max_concurrency:
            assert self._worker_id is not None, "what is held ahead goes with the lease"
            self._execute(ahead.next(), self._worker_id, now, effects)
            self._started_ahead = True
        if self._reserving:  # what comes with its answer would be started before what goes back now
            self._timers.stop(AHEAD)
            return
        self._settle_ahead(ahead.overdue(now), Released())
        if ahead.deadline is None:
            self._timers.stop(AHEAD)
        else:
            self._timers.set(AHEAD, ahead.deadline)

    def _interrupt(self, keys: Iterable[TaskKey], why: Why, effects: list[WorkerEffect]) -> None:
        """Order each task to stop, once. The first reason stands, unless the lease is lost."""
        for key in keys:
            running = self._running.get(key)
            if running is None:
                continue
            if running.why is None:
                running.why = why
                effects.append(Interrupt(key, why))
            elif why is Why.LEASE_LOST:
                running.why = why

    def _speak(self, now: float, effects: list[WorkerEffect]) -> None:
        """Say what there is to say; or first see whether more of what is quick ends at once."""
        self._waits_a_turn = self._started_ahead and self._ahead.is_quick and bool(self._running)
        self._started_ahead = False
        if self._waits_a_turn:
            effects.append(WaitATurn())
        else:
            self._store(now, effects)

    def _store(self, now: float, effects: list[WorkerEffect]) -> None:
        """Say all that is to be said to storage, in one breath."""
        if self._timers.is_set(RETRY):
            return
        ops: list[Op] = list(self._settles)
        self._settles = []
        if self._wants_tasks and self._may_reserve and self._worker_id is not None:
            free = self.config.max_concurrency - self.running
            limit = free + self._ahead.room(now)
            if limit > 0 and (free or ops or not self._ahead.is_quick):
                ops.append(self._reserve(self._worker_id, limit))
        if ops:
            self._ticket += 1
            asked = self._asked[self._ticket] = tuple(ops)
            effects.append(Store(self._ticket, asked))

    @property
    def _may_reserve(self) -> bool:
        return not self._reserving and self._worker_id is not None and self.state is RUNNING

    def _can_start(self, queues: Iterable[str], now: float) -> bool:
        """Whether a task that came to one of *queues* could be reserved now, and started at once."""
        return (
            self._may_reserve
            and self.running < self.config.max_concurrency
            and not self._ahead
            and not self._timers.is_set(RETRY)
            and not self._timers.is_due(LEASE, now)
            and any(queue in self.config.queues for queue in queues)
        )

    def _reserve(self, worker_id: str, limit: int) -> Reserve:
        self._wants_tasks = False
        self._reserving = True
        self._timers.stop(POLL)
        known = self._known() if self._unheard else None
        return Reserve(worker_id, self.config.queues, limit, known)

    def _known(self) -> tuple[int, ...]:
        """Return the numbers of all tasks that are or may be held, as far as is known here."""
        settles = [op for ops in self._asked.values() for op in ops if isinstance(op, Settle)]
        keys = {*self._running, *self._ahead.keys, *(op.key for op in settles)}
        return tuple(sorted(key.seq for key in keys))

    def _check_done(self, effects: list[WorkerEffect]) -> None:
        if not self._running and not self._asked and not self._settles:
            self.state = STOPPED
            self._timers.clear()
            effects.append(Stop())
