"""A worker machine and the world around it, for as long as it takes to stop.

The world is a faithful driver and a store that keeps its own books: what is executing, which
verdict each ended task is owed, which lives are over. After every turn the machine's words are
held against them; at the end the worker is stopped, and all that is owed must have arrived.
"""

from dataclasses import dataclass

from hypothesis import given, settings, strategies as st

from sitq.protocol.ahead import MOST, PATIENCE
from sitq.protocol.ops import (
    Aborted,
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
    Coming,
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
    TurnPassed,
    WaitATurn,
    Woken,
    WorkerConfig,
    WorkerMachine,
    WorkerState,
)

UNIT = 0.25
POLL = 1.0
POLICIES = [
    TaskPolicy(),
    TaskPolicy(timeout=0.5),
    TaskPolicy(timeout=3.0, retry=RetryPolicy(attempts=2, delay=7.0)),
]
ENDINGS = [
    Interrupted(),
    Returned(b"value"),
    Raised(Failure("boom", "ValueError")),
    Raised(Failure("never", "ImportError"), retryable=False),
    Unreadable("stamp", "cannot be read here"),
]


@dataclass
class Execution:
    task: Reservation
    worker_id: str
    why: Why | None = None


class World:
    def __init__(self, choose, *, slots: int, drain: bool, horizon: float, quick: float) -> None:
        self.choose = choose
        self.patience = PATIENCE * horizon
        config = WorkerConfig(
            max_concurrency=slots, poll_interval=POLL, drain=drain, horizon=horizon, quick=quick
        )
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
        self.held: dict[TaskKey, float] = {}  # ahead, since when
        self.owed: dict[TaskKey, tuple[str, Verdict]] = {}
        self.asked: dict[int, tuple[Settle | Reserve, ...]] = {}
        self.failures = 0  # of the store, in a row
        self.quiet_until = 0.0  # the store has failed and is left alone
        self.waits_a_turn = False
        self.stop_asked = self.stopped = False

    # -- what the machine says -------------------------------------------------------------

    def tell(self, event) -> list:
        effects = self.machine.receive(event, self.now)
        for effect in effects:
            match effect:
                case Interrupt(key, why):
                    execution = self.executing[key]
                    assert execution.why is None, "an order is given once"
                    execution.why = why
                case Execute(task):
                    self.starts(task)
                case Store() | Stop():
                    assert isinstance(event, TurnEnded | Coming), "the turn is not over"
                case Disown(worker_id):
                    assert worker_id == self.life
                    assert self.now >= self.life_ends or isinstance(event, Stored)
                    self.forget_life(worker_id)
                    self.crossing = worker_id
                case Late():
                    assert isinstance(event, Stored)
                case WaitATurn():
                    assert isinstance(event, TurnEnded)
                    assert not self.waits_a_turn, "one turn at a time"
                    assert self.executing, "it waits for what cannot end"
                    self.waits_a_turn = True
        assert self.machine.running == len(self.executing) + self.lingering <= self.slots
        return effects

    def starts(self, task: Reservation) -> None:
        assert task.key not in self.executed, "no key is executed twice"
        assert not self.stop_asked, "nothing starts after a stop"
        assert self.life is not None, "nothing starts without a lease"
        self.executed.add(task.key)
        self.held.pop(task.key, None)
        self.executing[task.key] = Execution(task, self.life)

    def the_turn_ends(self) -> None:
        effects = self.tell(TurnEnded())
        self.some_may_be_handed_back()
        stores = [effect for effect in effects if isinstance(effect, Store)]
        assert len(stores) <= 1, "all leaves in one breath"
        for store in stores:
            self.is_asked(store)
        if self.now >= self.quiet_until and not self.waits_a_turn:
            assert not self.waiting(), "a verdict leaves at the end of its turn"
        self.stopped = Stop() in effects
        nothing_left = not (self.executing or self.owed or self.asked)
        assert not self.stopped or nothing_left, "it has something left, and stops"
        assert self.stopped == (self.stop_asked and nothing_left), "it has nothing left, and stays"
        assert self.life is None or self.now < self.life_ends, "a lease is held too long"
        self.check_when_it_comes_back()

    def some_may_be_handed_back(self) -> None:
        """What is held ahead starts when there is a slot, or goes back once the first is overdue."""
        held = {key: since for key, since in self.held.items() if key in self.machine._ahead.keys}
        if held != self.held:
            assert not held, "all go back together"
            assert min(self.held.values()) + self.patience <= self.now, "it had time left"
            self.owed |= dict.fromkeys(self.held, (self.life, Released()))
        assert not held or self.machine.running == self.slots, "a slot is free, and it holds tasks"
        if not self.reserve_is_under_way():
            assert all(since + self.patience > self.now for since in held.values()), "it hoards"
        self.held = held

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
        free = self.slots - self.machine.running
        assert max(free, 1) <= reserve.limit <= free + (MOST if self.patience else 0)

    def check_when_it_comes_back(self) -> None:
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now, "the driver would spin"
        free = self.machine.running < self.slots
        runs = self.machine.state is WorkerState.RUNNING
        waits = self.waits_a_turn or self.reserve_is_under_way()
        if self.life and free and runs and not waits:
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
        self.held.clear()
        for execution in self.executing.values():
            if execution.worker_id == worker_id and execution.why is not None:
                execution.why = Why.LEASE_LOST

    # -- what happens ----------------------------------------------------------------------

    def happens(self) -> None:
        """Let one thing happen, of those that can; the likely ones stand here more often."""
        can = [self.the_lease_is_held, self.time_passes, self.a_hint_comes]
        can += [self.tasks_are_about_to_be_stored]
        can += [self.it_is_started] * 4 if self.machine.state is WorkerState.NEW else []
        can += [self.a_stop_is_asked] if self.choose(range(12)) == 11 else []
        can += [self.a_task_ends] * 4 + [self.callers_cancel] if self.executing else []
        can += [self.callers_cancel_what_is_held] if self.held else []
        can += [self.the_store_answers] * 6 + [self.the_store_fails] if self.asked else []
        can += [self.the_lease_is_lost] if self.lives else []
        can += [self.a_turn_passes] * 4 if self.waits_a_turn else []
        can += [self.old_news_arrive] if self.crossing else []
        can += [self.a_thread_returns] if self.lingering else []
        self.choose(can)()

    def it_is_started(self) -> None:
        self.tell(Started())

    def the_lease_is_held(self) -> None:
        """Renewed, or a new one after the loss of the last."""
        if self.life is None:
            self.lives += 1
            self.life = f"w{self.lives}"
            self.crossing = None
        remaining = self.choose([60.0, 20.0, 2.0])
        self.life_ends = self.now + remaining
        self.tell(LeaseHeld(self.life, remaining))

    def old_news_arrive(self) -> None:
        """They crossed with the worker's own word that it lets go."""
        self.tell(LeaseHeld(self.crossing, 60.0))

    def the_lease_is_lost(self) -> None:
        """This life's, or one that the worker has already given up by itself."""
        lost = f"w{self.lives}"
        self.forget_life(lost)
        self.crossing = None
        self.tell(LeaseLost(lost))

    def a_turn_passes(self) -> None:
        self.waits_a_turn = False
        self.tell(TurnPassed())

    def time_passes(self) -> None:
        """To the deadline, or to any other time, or much later: the loop was blocked."""
        self.the_turn_ends()
        if self.stopped:
            return
        deadline = self.machine.next_deadline()
        passed = self.choose([None, None, 0.001, 0.3, 2.0, 30.0])
        if passed is not None:
            self.now += passed
        elif deadline is not None:
            self.now = deadline

    def a_hint_comes(self) -> None:
        self.tell(Woken())

    def tasks_are_about_to_be_stored(self) -> None:
        for store in self.tell(Coming((self.choose(["default", "other"]),))):
            self.is_asked(store)
            assert any(isinstance(op, Reserve) for op in store.ops)

    def callers_cancel(self) -> None:
        self.tell(StopAsked((TaskKey(0, 9), self.choose(sorted(self.executing)))))

    def callers_cancel_what_is_held(self) -> None:
        key = self.choose(sorted(self.held))
        del self.held[key]
        self.owed[key] = (self.life, Aborted())
        self.tell(StopAsked((key,)))

    def a_task_ends(self) -> None:
        ending = self.choose(ENDINGS)
        lingers = ending == Interrupted() and self.choose([False, True])
        self.ends(self.choose(sorted(self.executing)), ending, lingers=lingers)

    def ends(self, key, ending, *, lingers: bool) -> None:
        execution = self.executing.pop(key)
        self.lingering += lingers
        if execution.worker_id not in self.over:
            verdict = judge(execution.task, ending, execution.why, UNIT)
            self.owed[key] = (execution.worker_id, verdict)
        self.tell(TaskEnded(key, ending, lingers))

    def a_thread_returns(self) -> None:
        self.lingering -= 1
        self.tell(ThreadReturned())

    def the_store_answers(self) -> None:
        """Any of its questions."""
        ticket = self.choose(sorted(self.asked))
        self.failures = 0
        ops = self.asked.pop(ticket)
        outcomes = tuple(self.outcome(op) for op in ops)
        effects = self.tell(Stored(ticket, outcomes))
        for op, outcome in zip(ops, outcomes, strict=True):
            if isinstance(outcome, Reserved) and op.worker_id == self.life:
                given = {task.key: self.now for task in outcome.tasks}
                self.held |= {k: at for k, at in given.items() if k not in self.executed}
        self.held = {key: at for key, at in self.held.items() if key not in self.owed}
        refused = [outcome for outcome in outcomes if outcome == Settled(False)]
        assert len([effect for effect in effects if isinstance(effect, Late)]) == len(refused)
        if self.machine.state is WorkerState.DRAINING and not self.stop_asked:
            assert self.machine.config.drain
            assert not self.executing, "a drain goes on while a task runs"
            assert not self.owed, "a drain goes on while a verdict is under way"
            self.stop_asked = True

    def outcome(self, op):
        over = op.worker_id in self.over
        if isinstance(op, Settle):
            self.owed.pop(op.key, None)
            return Settled(not over or self.choose([False, True]))
        # It may have been rescued without its knowledge, and this is how it hears of it.
        if self.choose(range(3)) == 2 if over else self.choose(range(20)) == 19:
            return Unregistered()
        return self.given(op)

    def given(self, reserve: Reserve) -> Reserved:
        tasks = []
        for _ in range(min(self.choose([1, 2, 4, 0, 9]), reserve.limit)):
            self.tasks += 1
            key, policy = TaskKey(self.tasks, 1), self.choose(POLICIES)
            tasks.append(Reservation(key, f"t{self.tasks}", "f", b"", 1, policy))
            if self.stop_asked and reserve.worker_id == self.life:
                self.owed[key] = (reserve.worker_id, Released())
        due_in = self.choose([None, 0.0, 0.2, 90.0]) if len(tasks) < reserve.limit else None
        return Reserved(tuple(tasks), due_in)

    def the_store_fails(self) -> None:
        ticket = self.choose(sorted(self.asked))
        del self.asked[ticket]
        self.quiet_until = self.now + growing_pause(self.failures, STORE_BACKOFF, LONGEST_BACKOFF)
        self.failures += 1
        self.tell(StoreFailed(ticket, OSError("disk")))

    def a_stop_is_asked(self) -> None:
        self.all_are_handed_back()
        self.tell(StopRequested(self.choose([None, 0.0, 2.0])))

    def all_are_handed_back(self) -> None:
        self.stop_asked = True
        self.owed |= dict.fromkeys(self.held, (self.life, Released()))
        self.held.clear()

    # -- the end ---------------------------------------------------------------------------

    def comes_to_its_end(self) -> None:
        """Whatever has been, a stop without grace ends it, once the store answers again."""
        self.all_are_handed_back()
        self.tell(StopRequested(0.0))
        for _ in range(5):
            if self.waits_a_turn:
                self.a_turn_passes()
            self.the_turn_ends()
            if self.stopped:
                return
            for key, execution in list(self.executing.items()):
                assert execution.why is not None, "all that runs is interrupted"
                self.ends(key, Interrupted(), lingers=False)
            self.now = max(self.now, self.quiet_until)
            for ticket, ops in list(self.asked.items()):
                del self.asked[ticket]
                settled = {op.key for op in ops if isinstance(op, Settle)}
                self.owed = {key: owed for key, owed in self.owed.items() if key not in settled}
                answers = (Settled(True) if isinstance(op, Settle) else Reserved(()) for op in ops)
                self.tell(Stored(ticket, tuple(answers)))
        raise AssertionError("it does not stop")


@settings(max_examples=250, deadline=None)
@given(
    data=st.data(),
    slots=st.integers(1, 4),
    drain=st.sampled_from([False, False, False, True]),
    started=st.sampled_from([True, True, True, False]),
    events=st.integers(20, 80),
    horizon=st.sampled_from([0.0, 0.01, 1.0]),
    quick=st.sampled_from([0.0, 1.0]),
)
def test_whatever_happens_a_worker_keeps_its_promises(
    *, data, slots, drain, started, events, horizon, quick
) -> None:
    world = World(
        lambda of: data.draw(st.sampled_from(of)),
        slots=slots,
        drain=drain,
        horizon=horizon,
        quick=quick,
    )
    if started:
        world.it_is_started()
        world.the_lease_is_held()
        world.the_turn_ends()
    for _ in range(events):
        world.happens()
        if not world.stopped and data.draw(st.booleans()):
            world.the_turn_ends()
        if world.stopped:
            return  # a driver that was told to stop tells nothing more
    world.comes_to_its_end()
