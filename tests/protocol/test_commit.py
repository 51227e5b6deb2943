"""Group commit, event by event."""

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sitq.protocol.commit import (
    Blame,
    Close,
    CloseRequested,
    Commit,
    CommitFailed,
    CommitMachine,
    Committed,
    Doubt,
    Group,
    Reject,
    Resolve,
    Submitted,
)
from sitq.protocol.ops import Count, Counted, Enqueue, Enqueued, NewTask

ERROR = OSError("disk")


def group(ticket, *, tasks=0) -> Group:
    """One op, or an enqueue of several tasks."""
    if not tasks:
        return Group(ticket, (Count(),))
    new = tuple(NewTask(id=f"{ticket}-{n}", payload=b"", name="f") for n in range(tasks))
    return Group(ticket, (Enqueue(new),))


def submit(machine, *groups):
    return machine.receive(Submitted(groups), 0.0)


def test_the_first_request_is_committed_at_once() -> None:
    machine = CommitMachine()

    assert submit(machine, group(1)) == [Commit(1, (Count(),))]
    assert machine.next_deadline() is None


def test_what_comes_while_the_disk_is_busy_is_the_next_batch() -> None:
    machine = CommitMachine()
    submit(machine, group(1))

    assert submit(machine, group(2)) == []
    assert submit(machine, group(3)) == []
    done = Counted(())
    assert machine.receive(Committed(1, (done,)), 0.0) == [
        Commit(2, (Count(), Count())),  # the disk first, then the caller
        Resolve(1, (done,)),
    ]
    assert machine.receive(Committed(2, (done, done)), 0.0) == [
        Resolve(2, (done,)),
        Resolve(3, (done,)),
    ]


def test_a_caller_is_told_the_outcomes_of_its_own_ops() -> None:
    machine = CommitMachine()
    submit(machine, Group(1, (Count(), Count())), Group(2, (Enqueue(()),)))
    one, two, three = Counted(()), Counted((("q", "queued", 1),)), Enqueued()

    assert machine.receive(Committed(1, (one, two, three)), 0.0) == [
        Resolve(1, (one, two)),
        Resolve(2, (three,)),
    ]


def test_a_batch_ends_where_the_next_group_would_not_fit_and_groups_stay_whole() -> None:
    machine = CommitMachine(max_batch=10)
    submit(machine, group(1))
    submit(machine, group(2, tasks=7), group(3, tasks=4), group(4, tasks=30), group(5))

    batches = []
    effects = machine.receive(Committed(1, (Counted(()),)), 0.0)
    while effects and isinstance(effects[0], Commit):
        batch = effects[0]
        batches.append([len(op.tasks) if isinstance(op, Enqueue) else 1 for op in batch.ops])
        outcomes = tuple(Enqueued() for _ in batch.ops)
        effects = machine.receive(Committed(batch.batch_id, outcomes), 0.0)
    assert batches == [[7], [4], [30], [1]]


def test_a_failure_of_the_store_is_told_to_all_of_the_batch_and_to_nobody_else() -> None:
    machine = CommitMachine()
    submit(machine, group(1), group(2))
    submit(machine, group(3))

    assert machine.receive(CommitFailed(1, ERROR, Blame.STORE), 0.0) == [
        Commit(2, (Count(),)),
        Reject(1, ERROR),
        Reject(2, ERROR),
    ]


def test_a_commit_that_was_cut_off_leaves_all_of_the_batch_in_doubt() -> None:
    machine = CommitMachine()
    submit(machine, group(1), group(2))

    assert machine.receive(CommitFailed(1, ERROR, Blame.UNKNOWN), 0.0) == [
        Doubt(1, ERROR),
        Doubt(2, ERROR),
    ]


@pytest.mark.parametrize("poisonous", range(1, 8))
def test_one_poisonous_op_fails_alone(poisonous) -> None:
    machine = CommitMachine()
    effects = submit(machine, *(Group(n, (Count(),) * n) for n in range(1, 8)))
    answered = {}
    while effects:
        commit = effects[0]
        for effect in effects[1:] if isinstance(commit, Commit) else effects:
            answered[effect.ticket] = type(effect)
        if not isinstance(commit, Commit):
            break
        sizes = [n for n in range(1, 8) if n not in answered]
        holds, left = [], len(commit.ops)
        for n in sizes:
            if left < n:
                break
            holds.append(n)
            left -= n
        if poisonous in holds:
            effects = machine.receive(CommitFailed(commit.batch_id, ERROR, Blame.OP), 0.0)
        else:
            outcomes = tuple(Counted(()) for _ in commit.ops)
            effects = machine.receive(Committed(commit.batch_id, outcomes), 0.0)

    assert answered == {n: Reject if n == poisonous else Resolve for n in range(1, 8)}


def test_a_batch_that_an_op_has_spoilt_is_never_sent_again_as_it_was() -> None:
    """Not even if half of its groups have nothing in them to count."""
    machine = CommitMachine()
    submit(machine, group(1))
    submit(machine, group(2), Group(3, (Enqueue(()),)), Group(4, (Enqueue(()),)))
    spoilt, *_ = machine.receive(Committed(1, (Counted(()),)), 0.0)

    smaller, *_ = machine.receive(CommitFailed(2, ERROR, Blame.OP), 0.0)
    assert len(smaller.ops) < len(spoilt.ops)


def test_closing_commits_what_was_submitted_and_rejects_what_comes_later() -> None:
    machine = CommitMachine()
    submit(machine, group(1))
    submit(machine, group(2))

    assert machine.receive(CloseRequested(), 0.0) == []
    assert submit(machine, group(3)) == [Reject(3, None)]
    done = Counted(())
    assert machine.receive(Committed(1, (done,)), 0.0) == [
        Commit(2, (Count(),)),
        Resolve(1, (done,)),
    ]
    assert machine.receive(Committed(2, (done,)), 0.0) == [Resolve(2, (done,)), Close()]
    assert machine.receive(CloseRequested(), 0.0) == []  # it says so once


def test_an_idle_machine_closes_at_once() -> None:
    assert CommitMachine().receive(CloseRequested(), 0.0) == [Close()]


def test_an_answer_that_was_not_asked_for_is_a_bug_and_not_passed_over() -> None:
    machine = CommitMachine()
    with pytest.raises(AssertionError, match="never asked for"):
        machine.receive(Committed(1, ()), 0.0)
    submit(machine, group(1))
    with pytest.raises(AssertionError, match="never asked for"):
        machine.receive(Committed(2, ()), 0.0)


def test_an_answer_that_comes_twice_counts_once() -> None:
    machine = CommitMachine()
    submit(machine, group(1))
    done = Enqueued()
    assert machine.receive(Committed(1, (done,)), 0.0) == [Resolve(1, (done,))]
    again = (Committed(1, (done,)), CommitFailed(1, OSError(), Blame.UNKNOWN))
    assert [machine.receive(event, 0.0) for event in again] == [[], []]
    submit(machine, group(2))
    assert [machine.receive(event, 0.0) for event in again] == [[], []]
    assert machine.receive(Committed(2, (done,)), 0.0) == [Resolve(2, (done,))]


class AnyOrder(RuleBasedStateMachine):
    """Callers submit, the store answers or fails; every ticket is answered once, and truly."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = CommitMachine(max_batch=6)
        self.tickets = 0
        self.waiting: set[int] = set()
        self.committed: set[int] = set()  # by the store, whatever was heard of it
        self.in_flight: Commit | None = None
        self.closing = self.closed = False

    def take(self, effects) -> None:
        for effect in effects:
            match effect:
                case Commit():
                    assert self.in_flight is None
                    self.in_flight = effect
                case Resolve(ticket, outcomes):
                    assert ticket in self.committed
                    assert outcomes == (Enqueued(),)
                    self.waiting.remove(ticket)
                case Reject(ticket):
                    assert ticket not in self.committed
                    self.waiting.remove(ticket)
                case Doubt(ticket):
                    self.waiting.remove(ticket)
                case Close():
                    assert self.closing
                    assert not self.waiting
                    assert not self.closed
                    self.closed = True

    @rule(sizes=st.lists(st.integers(0, 8), min_size=1, max_size=4))
    def callers_submit(self, sizes) -> None:
        groups = []
        for size in sizes:
            self.tickets += 1
            self.waiting.add(self.tickets)
            new = NewTask(id=str(self.tickets), payload=b"", name="f")
            groups.append(Group(self.tickets, (Enqueue((new,) * max(1, size)),)))
        self.take(self.machine.receive(Submitted(tuple(groups)), 0.0))

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def the_store_commits(self) -> None:
        batch, self.in_flight = self.in_flight, None
        self.committed |= {int(op.tasks[0].id) for op in batch.ops}
        outcomes = tuple(Enqueued() for _ in batch.ops)
        self.take(self.machine.receive(Committed(batch.batch_id, outcomes), 0.0))

    @precondition(lambda self: self.in_flight is not None)
    @rule(blame=st.sampled_from(Blame), landed=st.booleans())
    def the_store_fails(self, blame, landed) -> None:
        batch, self.in_flight = self.in_flight, None
        if blame is Blame.UNKNOWN and landed:
            self.committed |= {int(op.tasks[0].id) for op in batch.ops}
        self.take(self.machine.receive(CommitFailed(batch.batch_id, ERROR, blame), 0.0))

    @rule()
    def it_is_closed(self) -> None:
        self.closing = True
        self.take(self.machine.receive(CloseRequested(), 0.0))

    @invariant()
    def whoever_waits_is_being_served(self) -> None:
        assert not self.waiting or self.in_flight is not None
        assert not self.closing or self.waiting or self.closed


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_what_goes_along_is_no_crowd() -> None:
    machine = CommitMachine()
    submit(machine, group(1), group(2)._replace(along=True))
    machine.receive(Committed(1, (Counted(()),) * 2), 0.0)

    assert machine.is_at_leisure


def test_it_is_at_leisure_until_several_have_asked_at_once() -> None:
    machine = CommitMachine()
    assert machine.is_at_leisure

    submit(machine, group(1))
    assert not machine.is_at_leisure, "a batch is under way"
    machine.receive(Committed(1, (Counted(()),)), 0.0)
    assert machine.is_at_leisure

    submit(machine, group(2), group(3))
    machine.receive(Committed(2, (Counted(()),) * 2), 0.0)
    assert not machine.is_at_leisure, "others may come in this turn, too"

    submit(machine, group(4))
    machine.receive(Committed(3, (Counted(()),)), 0.0)
    assert machine.is_at_leisure
