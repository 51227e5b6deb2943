"""Worker and lease machines under any order of events: what must always hold, does.

The rules play drivers that are faithful and slow: questions are answered late, in any order
or with an error, tasks end when they like, leases are lost, time passes in jumps.
"""

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sitq.protocol import lease as le, worker as wo
from sitq.protocol.ahead import MOST
from sitq.protocol.ops import (
    Aborted,
    Prune,
    Pruned,
    Register,
    Registered,
    Released,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reservation,
    Reserve,
    Reserved,
    Retire,
    Retired,
    Settle,
    Settled,
    TaskKey,
    TaskPolicy,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
    Watched,
)
from sitq.protocol.retry import Interrupted, Returned, Why

SLOTS = 3
TIMES = st.sampled_from([0.0, 0.05, 0.2, 1.0, 5.0])


class AnyWorker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        config = wo.WorkerConfig(max_concurrency=SLOTS, horizon=1.0, quick=1.0)
        self.machine = wo.WorkerMachine(config, lambda: 0.5)
        self.now = 0.0
        self.tasks = 0
        self.lives = 0
        self.life: str | None = None  # that storage grants
        self.running: dict[TaskKey, tuple[Reservation, str]] = {}
        self.ordered: dict[TaskKey, Why] = {}
        self.lingering = 0
        self.questions: dict[int, tuple] = {}
        self.unsettled: dict[TaskKey, str] = {}  # ended under a lease, by worker id
        self.given: set[TaskKey] = set()  # under the lease that is held, and not executed
        self.executed: set[TaskKey] = set()
        self.stop_asked = self.stopped = False
        self.tell(wo.Started())

    def tell(self, event) -> None:
        effects = self.machine.receive(event, self.now)
        speaks = isinstance(event, wo.TurnEnded | wo.Coming)
        assert speaks or not [e for e in effects if isinstance(e, wo.Store)]
        for effect in effects:
            assert not self.stopped, "nothing is said after the stop"
            match effect:
                case wo.Store(ticket, ops):
                    self.asked(ticket, ops)
                case wo.Execute(task):
                    assert task.key not in self.executed, "one key is executed once"
                    assert not self.stop_asked, "nothing starts after a stop was asked"
                    self.executed.add(task.key)
                    self.given.discard(task.key)
                    self.running[task.key] = (task, self.machine._worker_id)
                case wo.Interrupt(key, why):
                    assert key in self.running
                    assert key not in self.ordered, "an order is given once"
                    self.ordered[key] = why
                case wo.Disown(worker_id):
                    if worker_id == self.life:
                        self.life = None
                    lost = [key for key, w in self.unsettled.items() if w == worker_id]
                    for key in lost:
                        del self.unsettled[key]
                case wo.Stop():
                    assert self.stop_asked
                    assert not self.running
                    assert not self.unsettled
                    self.stopped = True
        assert len(self.running) + self.lingering == self.machine.running <= SLOTS

    def asked(self, ticket, ops) -> None:
        assert ticket not in self.questions
        self.questions[ticket] = ops
        reserves = [op for op in ops if isinstance(op, Reserve)]
        under_way = [op for other in self.questions.values() for op in other]
        assert len([op for op in under_way if isinstance(op, Reserve)]) <= 1
        for reserve in reserves:
            assert not self.stop_asked
            assert 0 < reserve.limit <= SLOTS - len(self.running) - self.lingering + MOST
        for op in ops:
            if isinstance(op, Settle) and op.key not in self.unsettled:
                assert op.key in self.given, "only what ended under a lease is settled"
                assert isinstance(op.verdict, Released | Aborted)

    @rule()
    def a_turn_passes(self) -> None:
        self.tell(wo.TurnPassed())

    @rule(passed=TIMES)
    def time_passes(self, passed) -> None:
        self.now += passed
        self.end_turn()

    @rule()
    def end_turn(self) -> None:
        self.tell(wo.TurnEnded())
        deadline = self.machine.next_deadline()
        assert self.stopped or deadline is None or deadline > self.now, "a spinning driver"

    @rule(remaining=st.sampled_from([0.5, 5.0, 27.0]), new=st.booleans())
    def the_lease_is_held(self, remaining, new) -> None:
        if new or self.life is None:
            if self.life is not None:
                self.the_lease_is_lost()
            self.lives += 1
            self.life = f"w{self.lives}"
        self.tell(wo.LeaseHeld(self.life, remaining))

    @precondition(lambda self: self.life is not None)
    @rule()
    def the_lease_is_lost(self) -> None:
        lost, self.life = self.life, None
        self.unsettled = {key: w for key, w in self.unsettled.items() if w != lost}
        self.tell(wo.LeaseLost(lost))

    @rule(data=st.data())
    def a_question_is_answered(self, data) -> None:
        if not self.questions:
            return
        ticket = data.draw(st.sampled_from(sorted(self.questions)))
        ops = self.questions.pop(ticket)
        if data.draw(st.booleans()):
            self.tell(wo.StoreFailed(ticket, OSError()))
            return
        outcomes = []
        for op in ops:
            if isinstance(op, Settle):
                applied = op.worker_id == self.life
                self.unsettled.pop(op.key, None)
                outcomes.append(Settled(applied))
            elif op.worker_id != self.life:
                outcomes.append(Unregistered())
            else:
                outcomes.append(self.reserved(data.draw(st.integers(0, min(op.limit, 2 * SLOTS)))))
        self.tell(wo.Stored(ticket, tuple(outcomes)))

    def reserved(self, count) -> Reserved:
        new = []
        for _ in range(count):
            self.tasks += 1
            policy = TaskPolicy(timeout=(None, 0.1, 3.0)[self.tasks % 3])
            new.append(Reservation(TaskKey(self.tasks, 1), str(self.tasks), "f", b"", 1, policy))
        self.given |= {task.key for task in new}
        return Reserved(tuple(new), 0.5)

    @rule(data=st.data(), lingers=st.booleans())
    def a_task_ends(self, data, lingers) -> None:
        if not self.running:
            return
        key = data.draw(st.sampled_from(sorted(self.running)))
        _, worker_id = self.running.pop(key)
        why = self.ordered.pop(key, None)
        interrupted = why is not None and data.draw(st.booleans())
        lingers = lingers and interrupted
        self.lingering += lingers
        lost = worker_id != self.life or worker_id != self.machine._worker_id
        if not lost:
            self.unsettled[key] = worker_id
        ending = Interrupted() if interrupted else Returned(b"")
        self.tell(wo.TaskEnded(key, ending, lingers))

    @precondition(lambda self: self.lingering)
    @rule()
    def a_thread_returns(self) -> None:
        self.lingering -= 1
        self.tell(wo.ThreadReturned())

    @rule()
    def a_hint_comes(self) -> None:
        self.tell(wo.Woken())

    @rule(queue=st.sampled_from(["default", "other"]))
    def tasks_are_about_to_be_stored(self, queue) -> None:
        self.tell(wo.Coming((queue,)))

    @rule(data=st.data())
    def a_caller_cancels(self, data) -> None:
        if self.running or self.given:
            key = data.draw(st.sampled_from(sorted({*self.running, *self.given})))
            self.tell(wo.StopAsked((key, TaskKey(0, 0))))

    @rule(grace=st.sampled_from([None, 0.0, 3.0]))
    def a_stop_is_asked(self, grace) -> None:
        self.stop_asked = True
        self.tell(wo.StopRequested(grace))

    def teardown(self) -> None:
        """From wherever it stands it stops, once all goes well."""
        self.a_stop_is_asked(0.0)
        if self.life is None:
            self.the_lease_is_held(1000.0, new=True)
        for _ in range(50):
            if self.stopped:
                return
            self.now += 6.0
            self.tell(wo.LeaseHeld(self.life, 1000.0))
            self.tell(wo.TurnEnded())
            for key in list(self.running):
                _, worker_id = self.running.pop(key)
                self.ordered.pop(key, None)
                if worker_id == self.life:
                    self.unsettled[key] = worker_id
                self.tell(wo.TaskEnded(key, Interrupted()))
            for ticket, ops in list(self.questions.items()):
                del self.questions[ticket]
                outcomes = []
                for op in ops:
                    if isinstance(op, Settle):
                        self.unsettled.pop(op.key, None)
                        outcomes.append(Settled(True))
                    else:
                        outcomes.append(Reserved(()))
                self.tell(wo.Stored(ticket, tuple(outcomes)))
            self.tell(wo.TurnEnded())
        raise AssertionError("it does not stop")


TestAnyWorker = AnyWorker.TestCase
TestAnyWorker.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


class AnyLease(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        config = le.LeaseConfig(
            host="h", pid=1, queues=("q",), max_concurrency=1, lease_for=10.0, retention=1.0
        )
        self.machine = le.LeaseMachine(config)
        self.now = 0.0
        self.lives = 0
        self.rows: dict[str, float] = {}  # leases as storage has them: when they run out
        self.locks: set[str] = set()
        self.question: tuple | None = None
        self.entering = 0
        self.held: tuple[str, float] | None = None
        self.leaving = self.stopped = False
        self.tell(le.Started())

    def tell(self, event) -> None:
        for effect in self.machine.receive(event, self.now):
            assert not self.stopped or isinstance(effect, le.Leave)
            match effect:
                case le.Enter():
                    self.entering += 1
                case le.Apply(ops):
                    assert self.question is None, "one question at a time"
                    self.question = ops
                case le.Hold(worker_id, until):
                    assert worker_id in self.locks, "the lock comes before the lease"
                    granted = self.rows.get(worker_id)
                    assert granted is None or until < granted, "it lets go first"
                    self.held = (worker_id, until)
                case le.LetGo(worker_id):
                    assert self.held is None or self.held[0] == worker_id
                    self.held = None
                case le.Leave(worker_id):
                    self.locks.discard(worker_id)
                case le.Stop():
                    assert self.leaving
                    self.stopped = True
                case le.Probe(worker_ids):
                    assert self.machine.worker_id not in worker_ids

    @precondition(lambda self: self.entering)
    @rule()
    def a_life_is_entered(self) -> None:
        self.entering -= 1
        self.lives += 1
        self.locks.add(f"w{self.lives}")
        self.tell(le.Entered(f"w{self.lives}"))

    @precondition(lambda self: self.question is not None)
    @rule(fails=st.booleans(), landed=st.booleans(), peers=st.booleans(), expired=st.booleans())
    def a_question_is_answered(self, fails, landed, peers, expired) -> None:
        ops, self.question = self.question, None
        outcomes = []
        for op in ops if landed or not fails else ():
            match op:
                case Register(worker_id=worker_id):
                    self.rows[worker_id] = self.now + 10.0
                    outcomes.append(Registered())
                case Renew(worker_id):
                    if worker_id in self.rows:
                        self.rows[worker_id] = self.now + 10.0
                    outcomes.append(Renewed() if worker_id in self.rows else Unregistered())
                case Rescue(worker_ids):
                    assert self.machine.worker_id not in worker_ids, "it never rescues itself"
                    for worker_id in worker_ids:
                        self.rows.pop(worker_id, None)
                    outcomes.append(Rescued(worker_ids, len(worker_ids)))
                case Retire(worker_id):
                    self.rows.pop(worker_id, None)
                    outcomes.append(Retired(0))
                case Unpark():
                    outcomes.append(Unparked(0))
                case Prune(limit=limit):
                    outcomes.append(Pruned(limit if peers else 0))
                case Watch(worker_id):
                    outcomes.append(Watched(("peer",) if peers else (), expired, ()))
        self.tell(le.ApplyFailed(OSError()) if fails else le.Applied(tuple(outcomes)))

    @rule(dead=st.booleans())
    def peers_were_probed(self, dead) -> None:
        self.tell(le.Probed(("peer",) if dead else ()))

    @rule()
    def somebody_rescues_it(self) -> None:
        self.rows = {id_: until for id_, until in self.rows.items() if until > self.now}

    @rule(passed=st.sampled_from([0.1, 1.0, 3.4, 9.5, 30.0]))
    def time_passes(self, passed) -> None:
        self.now += passed
        self.tell(le.Tick())
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now, "a spinning driver"
        assert self.held is None or self.leaving or self.held[1] > self.now, "held too long"

    @rule()
    def it_is_asked_to_leave(self) -> None:
        self.leaving = True
        self.tell(le.LeaveRequested())

    @invariant()
    def one_life_at_a_time(self) -> None:
        assert len(self.locks) <= 1 + self.stopped

    def teardown(self) -> None:
        self.it_is_asked_to_leave()
        self.now += le.LEAVE_WITHIN
        self.tell(le.Tick())
        assert self.stopped
        while self.entering:
            self.a_life_is_entered()
        assert not self.locks


TestAnyLease = AnyLease.TestCase
TestAnyLease.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
