"""A worker machine and the world around it, for as long as it takes to stop.

The world is a faithful driver and a store that keeps its own books: what is executing, which
verdict each ended task is owed, which lives are over. After every turn the machine's words are
held against them; at the end the worker is stopped, and everything owed must have arrived.
"""

from dataclasses import dataclass

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sitq.protocol.ops import (
    Failure,
    Released,
    Reservation,
    Reserve,
    Reserved,
    RetryPolicy,
    Settle,
    Settled,
    TaskKey,
    TaskPolicy,
    Unregistered,
    Verdict,
)
from sitq.protocol.retry import Interrupted, Raised, Returned, Unreadable, Why, judge
from sitq.protocol.timers import growing_pause
from sitq.protocol.worker import (
    LONGEST_BACKOFF,
    STORE_BACKOFF,
    Disown,
    Execute,
    Interrupt,
    Late,
    LeaseHeld,
    LeaseLost,
    Started,
    Stop,
    StopAsked,
    StopRequested,
    Store,
    Stored,
    StoreFailed,
    TaskEnded,
    ThreadReturned,
    TurnEnded,
    Woken,
    WorkerConfig,
    WorkerMachine,
    WorkerState,
)

UNIT = 0.25
POLL = 1.0
LAST = st.booleans()
POLICIES = st.builds(
    TaskPolicy,
    timeout=st.sampled_from([None, 0.5, 3.0]),
    retry=st.sampled_from([RetryPolicy(), RetryPolicy(attempts=2, delay=7.0)]),
)
ENDINGS = st.sampled_from(
    [
        Returned(b"value"),
        Raised(Failure("boom", "ValueError")),
        Raised(Failure("never", "ImportError"), retryable=False),
        Unreadable("stamp", "cannot be read here"),
        Interrupted(),
    ]
)


@dataclass
class Execution:
    task: Reservation
    worker_id: str
    why: Why | None = None


class World(RuleBasedStateMachine):
    @initialize(slots=st.integers(1, 4), drain=LAST, started=st.integers(0, 9))
    def a_worker_is_made(self, slots, drain, started) -> None:
        config = WorkerConfig(max_concurrency=slots, poll_interval=POLL, drain=drain)
        self.machine = WorkerMachine(config, lambda: UNIT)
        self.slots = slots
        self.now = 0.0
        self.tasks = self.lives = self.lingering = 0
        self.life: str | None = None  # the one that the worker has been told of, and holds
        self.life_ends = 0.0
        self.over: set[str] = set()  # lives that it knows to have lost
        self.crossing: str | None = None  # it let go of this one, which has not been confirmed
        self.executing: dict[TaskKey, Execution] = {}
        self.executed: set[TaskKey] = set()
        self.owed: dict[TaskKey, tuple[str, Verdict]] = {}
        self.asked: dict[int, tuple[Settle | Reserve, ...]] = {}
        self.quiet_until = 0.0  # the store has failed and is left alone
        self.stop_asked = self.stopped = False
        self.failures = 0
        self.turn_is_open = False
        if started:
            self.tell(Started())
            self.the_lease_is_held(60.0, last=True)

    # -- what the machine says -------------------------------------------------------------

    def tell(self, event) -> list:
        """Tell the machine of *event*; once it has stopped, a driver tells it no more."""
        if self.stopped:
            return []
        effects = self.machine.receive(event, self.now)
        self.turn_is_open = True
        for effect in effects:
            match effect:
                case Interrupt(key, why):
                    execution = self.executing[key]
                    assert execution.why is None, "an order is given once"
                    execution.why = why
                case Execute(task):
                    self.starts(task)
                case Store() | Stop():
                    assert event == TurnEnded(), "the turn is not over"
                case Disown(worker_id):
                    assert worker_id == self.life
                    assert self.now >= self.life_ends or isinstance(event, Stored)
                    self.forget_life(worker_id)
                    self.crossing = worker_id
                case Late():
                    assert isinstance(event, Stored)
        assert self.machine.running == len(self.executing) + self.lingering <= self.slots
        return effects

    def starts(self, task: Reservation) -> None:
        assert task.key not in self.executed, "no key is executed twice"
        assert not self.stop_asked, "nothing starts after a stop"
        assert self.life is not None, "nothing starts without a lease"
        self.executed.add(task.key)
        self.executing[task.key] = Execution(task, self.life)

    @precondition(lambda self: self.turn_is_open)
    @rule()
    def the_turn_ends(self) -> None:
        effects = self.tell(TurnEnded())
        self.turn_is_open = False
        assert self.stopped or self.life is None or self.now < self.life_ends, "held too long"
        stores = [effect for effect in effects if isinstance(effect, Store)]
        assert len(stores) <= 1, "all leaves in one breath"
        for store in stores:
            self.is_asked(store)
        if not self.stopped and self.now >= self.quiet_until:
            assert not self.waiting(), "a verdict leaves at the end of its turn"
        self.stopped = self.stopped or Stop() in effects
        self.check_when_it_comes_back()
        if self.machine.state is WorkerState.DRAINING:
            assert self.executing or self.owed or self.asked, "it has nothing left, and stays"
        if self.stopped:
            assert not self.executing
            assert not self.owed
            assert not self.asked

    def is_asked(self, store: Store) -> None:
        assert self.now >= self.quiet_until, "a store that failed is left alone for a while"
        assert store.ticket not in self.asked
        assert store.ops
        waiting = self.waiting()
        for op in store.ops:
            if isinstance(op, Settle):
                assert op.worker_id not in self.over, "a lost lease settles nothing"
                assert (op.worker_id, op.verdict) == waiting.pop(op.key)
            else:
                self.is_asked_for_tasks(op)
        assert not waiting, "what is owed leaves together"
        self.asked[store.ticket] = store.ops

    def is_asked_for_tasks(self, reserve: Reserve) -> None:
        assert not self.reserve_is_under_way(), "one question for tasks at a time"
        assert not self.stop_asked
        assert reserve.worker_id == self.life
        assert reserve.limit == self.slots - self.machine.running > 0

    def check_when_it_comes_back(self) -> None:
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now, "the driver would spin"
        free = self.machine.running < self.slots
        idle = self.life and free and not self.stop_asked and not self.reserve_is_under_way()
        if idle and self.machine.state is WorkerState.RUNNING:
            assert deadline is not None
            assert deadline <= self.now + max(POLL, LONGEST_BACKOFF), "it would sleep for ever"

    def waiting(self) -> dict[TaskKey, tuple[str, Verdict]]:
        """Return the verdicts that are owed and not under way."""
        away = {op.key for ops in self.asked.values() for op in ops if isinstance(op, Settle)}
        return {key: owed for key, owed in self.owed.items() if key not in away}

    def reserve_is_under_way(self) -> bool:
        return any(isinstance(op, Reserve) for ops in self.asked.values() for op in ops)

    def forget_life(self, worker_id: str) -> None:
        self.over.add(worker_id)
        self.life = None if self.life == worker_id else self.life
        self.owed = {key: owed for key, owed in self.owed.items() if owed[0] != worker_id}
        for execution in self.executing.values():
            if execution.worker_id == worker_id and execution.why is not None:
                execution.why = Why.LEASE_LOST

    # -- what happens ----------------------------------------------------------------------

    def happens(self, event, last: bool) -> list:
        """Tell of *event*; say whether it is the last of its turn."""
        effects = self.tell(event)
        if last:
            self.the_turn_ends()
        return effects

    @rule(remaining=st.sampled_from([2.0, 20.0, 60.0]), last=LAST)
    def the_lease_is_held(self, remaining, last) -> None:
        """Renewed, or a new one after the loss of the last."""
        if self.life is None:
            self.lives += 1
            self.life = f"w{self.lives}"
            self.crossing = None
        self.life_ends = self.now + remaining
        self.happens(LeaseHeld(self.life, remaining), last)

    @precondition(lambda self: self.crossing)
    @rule(last=LAST)
    def news_of_a_life_that_is_over_arrive_late(self, last) -> None:
        """They crossed with the worker's own word that it lets go."""
        self.happens(LeaseHeld(self.crossing, 60.0), last)

    @precondition(lambda self: self.lives)
    @rule(last=LAST)
    def the_lease_is_lost(self, last) -> None:
        """This life's, or one that the worker has already given up by itself."""
        lost = f"w{self.lives}"
        self.forget_life(lost)
        self.crossing = None
        self.happens(LeaseLost(lost), last)

    @rule(passed=st.sampled_from([None, None, 0.001, 0.3, 2.0, 30.0]), last=LAST)
    def time_passes(self, passed, last) -> None:
        """To the deadline (None), or to any other time, or much later: the loop was blocked."""
        if self.turn_is_open:
            self.the_turn_ends()
        deadline = self.machine.next_deadline()
        if passed is not None:
            self.now += passed
        elif deadline is not None:
            self.now = deadline
        self.turn_is_open = True
        if last:
            self.the_turn_ends()

    @rule(last=LAST)
    def a_hint_comes(self, last) -> None:
        self.happens(Woken(), last)

    @precondition(lambda self: self.executing)
    @rule(data=st.data(), last=LAST)
    def callers_cancel(self, data, last) -> None:
        key = data.draw(st.sampled_from(sorted(self.executing)))
        self.happens(StopAsked((TaskKey(0, 9), key)), last)

    @precondition(lambda self: self.executing)
    @rule(data=st.data(), ending=ENDINGS, lingers=st.booleans(), last=LAST)
    def a_task_ends(self, data, ending, lingers, last) -> None:
        self.ends(data.draw(st.sampled_from(sorted(self.executing))), ending, lingers)
        if last:
            self.the_turn_ends()

    def ends(self, key, ending, lingers) -> None:
        execution = self.executing.pop(key)
        lingers = lingers and ending == Interrupted()
        self.lingering += lingers
        if execution.worker_id not in self.over:
            verdict = judge(execution.task, ending, execution.why, UNIT)
            self.owed[key] = (execution.worker_id, verdict)
        self.tell(TaskEnded(key, ending, lingers))

    @precondition(lambda self: self.lingering)
    @rule(last=LAST)
    def a_thread_returns(self, last) -> None:
        self.lingering -= 1
        self.happens(ThreadReturned(), last)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), count=st.integers(0, 4), last=LAST)
    def the_store_answers(self, data, count, last) -> None:
        """Any of its questions; with up to *count* tasks, if it was asked for some."""
        ticket = data.draw(st.sampled_from(sorted(self.asked)))
        ops = self.asked.pop(ticket)
        self.failures = 0
        outcomes = []
        refused = 0
        for op in ops:
            if isinstance(op, Settle):
                applied = op.worker_id not in self.over or data.draw(st.booleans())
                refused += not applied
                self.owed.pop(op.key, None)
                outcomes.append(Settled(applied))
            elif op.worker_id in self.over and data.draw(st.booleans()):
                outcomes.append(Unregistered())
            else:
                outcomes.append(self.gives(data, op, min(count, op.limit)))
        effects = self.tell(Stored(ticket, tuple(outcomes)))
        assert sum(isinstance(effect, Late) for effect in effects) == refused
        if self.machine.state is WorkerState.DRAINING and not self.stop_asked:
            assert self.machine.config.drain
            assert not self.executing, "a drain ends when nothing runs"
            self.stop_asked = True
        if last:
            self.the_turn_ends()

    def gives(self, data, reserve: Reserve, count: int) -> Reserved:
        given = []
        for _ in range(count):
            self.tasks += 1
            key = TaskKey(self.tasks, 1)
            given.append(Reservation(key, f"t{key.seq}", "f", b"", 1, data.draw(POLICIES)))
            if self.stop_asked and reserve.worker_id == self.life:
                self.owed[key] = (reserve.worker_id, Released())
        due_in = data.draw(st.sampled_from([None, 0.0, 0.2, 90.0]))
        return Reserved(tuple(given), due_in if count < reserve.limit else None)

    @precondition(lambda self: self.life and self.reserve_is_under_way())
    @rule(data=st.data(), last=LAST)
    def it_was_rescued(self, data, last) -> None:
        """A reserve is the first to be told."""
        for ticket, ops in self.asked.items():
            if isinstance(ops[-1], Reserve) and ops[-1].worker_id == self.life:
                del self.asked[ticket]
                self.failures = 0
                for op in ops[:-1]:
                    self.owed.pop(op.key, None)
                outcomes = (*[Settled(False)] * (len(ops) - 1), Unregistered())
                self.happens(Stored(ticket, outcomes), last)
                return

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), last=LAST)
    def the_store_fails(self, data, last) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.asked)))
        del self.asked[ticket]
        self.quiet_until = self.now + growing_pause(self.failures, STORE_BACKOFF, LONGEST_BACKOFF)
        self.failures += 1
        self.happens(StoreFailed(ticket, OSError("disk")), last)

    @rule(grace=st.sampled_from([None, 0.0, 2.0]), sure=st.integers(0, 3), last=LAST)
    def a_stop_is_asked(self, grace, sure, last) -> None:
        if sure == 0:  # most of the time it works
            self.stop_asked = True
            self.happens(StopRequested(grace), last)

    # -- the end ---------------------------------------------------------------------------

    def teardown(self) -> None:
        """Whatever has been, a stop without grace ends it, once the store answers again."""
        if not hasattr(self, "machine"):
            return
        self.stop_asked = True
        self.tell(StopRequested(0.0))
        for _ in range(5):
            self.the_turn_ends()
            for key in list(self.executing):
                assert self.executing[key].why is not None, "all that runs is interrupted"
                self.ends(key, Interrupted(), lingers=False)
            self.now = max(self.now, self.quiet_until)
            for ticket, ops in list(self.asked.items()):
                del self.asked[ticket]
                outcomes = []
                for op in ops:
                    if isinstance(op, Settle):
                        self.owed.pop(op.key, None)
                    outcomes.append(Settled(True) if isinstance(op, Settle) else Reserved(()))
                self.tell(Stored(ticket, tuple(outcomes)))
        assert self.stopped, "it does not stop"


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
