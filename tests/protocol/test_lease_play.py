"""A lease machine, a real store and its peers, through failures, deaths and lost answers.

The store is the model, whose clock does not run quite like the machine's. Answers come late,
fail or are lost after they were applied; peers are born and die; others take this worker for
dead; the worker disowns its lease. When all that is over, the machine must hold a lease again
and have rescued all of the dead; and when it is asked to leave, it goes in time.
"""

from hypothesis import given, settings, strategies as st

from sitq.protocol.lease import (
    LEAVE_WITHIN,
    Applied,
    Apply,
    ApplyFailed,
    AskToStop,
    Complain,
    Disowned,
    Enter,
    Entered,
    Hold,
    LeaseConfig,
    LeaseMachine,
    LeaseState,
    Leave,
    LeaveRequested,
    LetGo,
    Probe,
    Probed,
    Started,
    Stop,
    Sweep,
    Tick,
    Wake,
)
from sitq.protocol.ops import (
    Cancel,
    Enqueue,
    Moment,
    NewTask,
    Prune,
    Register,
    Registered,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reserve,
    Retire,
    Unpark,
    Unparked,
    Watch,
    Watched,
)
from sitq.storage.model import Model

LEASE = 10.0


class World:
    def __init__(self, choose, *, clock_rate: float, retention: float | None) -> None:
        self.choose = choose
        self.clock_rate = clock_rate  # of the store, in seconds for each of the machine's
        self.model = Model()
        self.machine = LeaseMachine(
            LeaseConfig(
                host="here",
                pid=1,
                queues=("default",),
                max_concurrency=4,
                lease_for=LEASE,
                retention=retention,
                stamps=("x",),
            )
        )
        self.now = 0.0
        self.names = 0
        self.entering = False
        self.life: str | None = None  # entered, and not let go of
        self.locks: set[str] = set()  # of all lives that were entered and not left
        self.past: set[str] = set()  # lives that it has let go of
        self.granted: dict[str, float] = {}  # by the store's clock, in seconds
        self.held_until: float | None = None
        self.question: tuple | None = None
        self.outcomes: tuple | None = None  # once the store has applied it
        self.probing: tuple[str, ...] | None = None
        self.peers: dict[str, bool] = {}  # whether they live
        self.found_dead: set[str] = set()
        self.leave_by: float | None = None
        self.stopped = False
        self.tell(Started())

    # -- what the machine says -------------------------------------------------------------

    def tell(self, event) -> list:
        effects = self.machine.receive(event, self.now)
        for effect in effects:
            assert not self.stopped or isinstance(effect, Leave), "it has stopped"
            match effect:
                case Enter():
                    assert not self.entering
                    assert self.life is None
                    self.entering = True
                case Apply(ops):
                    assert self.question is None, "one question is under way at a time"
                    self.question, self.outcomes = ops, None
                    self.check_question(ops)
                case Probe(worker_ids):
                    assert self.life not in worker_ids
                    self.probing = worker_ids
                case Hold(worker_id, until):
                    self.holds(worker_id, until)
                case LetGo(worker_id):
                    assert worker_id == self.life
                    self.past.add(worker_id)
                    self.life = self.held_until = None
                case Leave(worker_id):
                    self.locks.remove(worker_id)
                case Sweep(worker_ids):
                    assert self.life not in worker_ids
                case Complain():
                    assert isinstance(event, ApplyFailed)
                case AskToStop() | Wake():
                    assert isinstance(event, Applied)
                case Stop():
                    assert self.leave_by is not None
                    self.stopped = True
        self.check_time()
        return effects

    def check_question(self, ops) -> None:
        assert ops
        for op in ops:
            match op:
                case Register(worker_id) | Renew(worker_id) | Watch(worker_id) | Retire(worker_id):
                    assert worker_id == self.life, "no life asks for another"
                case Rescue(worker_ids):
                    assert set(worker_ids) <= self.found_dead | self.past
                case _:
                    assert isinstance(op, Unpark | Prune)

    def holds(self, worker_id: str, until: float) -> None:
        assert worker_id == self.life
        assert worker_id in self.locks
        # Unless the row has been taken since: then nobody knows of that yet, on this side.
        if worker_id in self.granted:
            assert until * self.clock_rate < self.granted[worker_id], "it lets go first"
        if self.held_until is None:
            known = set(self.model.apply([Watch("nobody")], self.moment())[0].peers)
            assert not known & self.found_dead, "the dead are rescued first"
        self.held_until = until

    def check_time(self) -> None:
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now, "the driver would spin"
        waits = self.entering or self.question is not None
        assert waits or self.stopped or deadline is not None, "it would sleep for ever"
        if self.leave_by is None:
            assert self.held_until is None or self.now < self.held_until, "it holds for too long"
        else:
            assert self.stopped or self.now < self.leave_by

    def moment(self) -> Moment:
        ms = int(self.now * self.clock_rate * 1000)
        return Moment(1_000_000 + ms, ms, "boot")

    # -- what happens ----------------------------------------------------------------------

    def happens(self) -> None:
        """Let one thing happen, of those that can; the likely ones stand here more often."""
        can = [self.time_passes] * 3 + [self.a_peer_is_born, self.a_peer_dies, self.work_comes]
        can += [self.a_life_is_entered] * 4 if self.entering else []
        can += [self.the_answer_arrives] * 3 + [self.the_store_fails] if self.question else []
        if self.question and self.outcomes is None:
            can += [self.the_store_applies] * 6
        elif self.question:
            can += [self.time_passes] * 3  # the answer is on its way
        can += [self.peers_are_probed] * 4 if self.probing is not None else []
        can += [self.another_rescues_it] if self.life else []
        can += [self.the_worker_disowns_it] if self.held_until else []
        can += [self.it_is_asked_to_leave] if self.choose(range(20)) == 19 else []
        self.choose(can)()

    def time_passes(self) -> None:
        deadline = self.machine.next_deadline()
        passed = self.choose([None, None, None, 0.1, 1.5, 3.0, 9.5, 40.0])
        if passed is not None:
            self.now += passed
        elif deadline is not None:
            self.now = deadline
        self.tell(Tick())

    def a_life_is_entered(self) -> None:
        self.names += 1
        name = f"w{self.names}"
        self.entering = False
        self.locks.add(name)
        self.life = None if self.stopped else name
        self.tell(Entered(name))

    def the_store_applies(self) -> None:
        """Apply the question, and keep the books of who has been granted what."""
        store = self.moment()
        self.outcomes = self.model.apply(self.question, store)
        for op, outcome in zip(self.question, self.outcomes, strict=True):
            match outcome:
                case Registered() | Renewed():
                    self.granted[op.worker_id] = store.lease_ms / 1000 + LEASE
                case Rescued(worker_ids):
                    for worker_id in worker_ids:
                        self.granted.pop(worker_id, None)
                case _:
                    pass

    def the_answer_arrives(self) -> None:
        """At once, or long after the store has applied it."""
        if self.outcomes is None:
            self.the_store_applies()
        outcomes, self.question = self.outcomes, None
        effects = self.tell(Applied(outcomes))
        if not self.stopped:
            came_back = [o for o in outcomes if isinstance(o, Rescued | Unparked) and o.tasks]
            watched = [o for o in outcomes if isinstance(o, Watched) and o.cancelled]
            assert len([e for e in effects if isinstance(e, Wake)]) == len(came_back)
            assert len([e for e in effects if isinstance(e, AskToStop)]) == len(watched)

    def the_store_fails(self) -> None:
        """Before it has applied anything, or after."""
        self.question = None
        error = OSError("disk")
        assert self.tell(ApplyFailed(error))[:1] == [Complain(error)] * (not self.stopped)

    def peers_are_probed(self) -> None:
        dead = tuple(name for name in self.probing if not self.peers.get(name, False))
        self.probing = None
        self.found_dead |= set(dead)
        self.tell(Probed(dead))

    def a_peer_is_born(self) -> None:
        self.names += 1
        name = f"peer{self.names}"
        self.peers[name] = True
        lease = self.choose([1000.0, 5.0])
        self.model.apply([Register(name, "here", 2, ("default",), 1, lease)], self.moment())

    def a_peer_dies(self) -> None:
        living = [name for name, lives in self.peers.items() if lives]
        if living:
            self.peers[self.choose(living)] = False

    def work_comes(self) -> None:
        """A task for one of the workers; a caller may want it cancelled at once."""
        self.names += 1
        who = self.choose([self.life or "nobody", *self.peers])
        ops = [Enqueue((NewTask(f"t{self.names}", b"", "f"),)), Reserve(who, ("default",), 5)]
        self.model.apply(ops, self.moment())
        if self.choose([False, True]):
            self.model.apply([Cancel(f"t{self.names}")], self.moment())

    def another_rescues_it(self) -> None:
        self.model.apply([Rescue((self.life,))], self.moment())
        self.granted.pop(self.life, None)

    def the_worker_disowns_it(self) -> None:
        life = self.life
        effects = self.tell(Disowned(life))
        assert LetGo(life) in effects or self.leave_by is not None

    def it_is_asked_to_leave(self) -> None:
        self.leave_by = self.leave_by or self.now + LEAVE_WITHIN
        self.tell(LeaveRequested())

    # -- the end ---------------------------------------------------------------------------

    def all_goes_well(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(1000):
            if self.now >= until or self.stopped:
                return
            if self.entering:
                self.a_life_is_entered()
            elif self.question is not None:
                self.the_answer_arrives()
            elif self.probing is not None:
                self.peers_are_probed()
            else:
                self.now = self.machine.next_deadline()
                self.tell(Tick())
        raise AssertionError("it asks without end")

    def recovers(self) -> None:
        self.all_goes_well(3 * LEASE)
        assert self.machine.state is LeaseState.HOLDING
        assert self.held_until is not None
        (watched,) = self.model.apply([Watch(self.life)], self.moment())
        assert {name for name in watched.peers if not self.peers.get(name, False)} == set()
        assert not watched.expired

    def leaves(self) -> None:
        self.it_is_asked_to_leave()
        if self.choose([False, True]):
            self.all_goes_well(LEAVE_WITHIN)
        while not self.stopped:
            if self.question is not None:
                self.the_store_fails()
            else:
                self.now = self.machine.next_deadline()
                self.tell(Tick())
        if self.entering:
            self.a_life_is_entered()
        assert not self.locks, "no lock is left behind"
        assert self.machine.next_deadline() is None


@settings(max_examples=120, deadline=None)
@given(
    data=st.data(),
    clock_rate=st.sampled_from([1.0, 0.95, 1.05]),
    retention=st.sampled_from([None, 60.0]),
    events=st.integers(20, 80),
)
def test_whatever_happens_a_lease_is_held_no_longer_than_granted_and_won_again(
    data, clock_rate, retention, events
) -> None:
    world = World(
        lambda of: data.draw(st.sampled_from(of)), clock_rate=clock_rate, retention=retention
    )
    for _ in range(events):
        world.happens()
    if world.leave_by is None:
        world.recovers()
    world.leaves()
