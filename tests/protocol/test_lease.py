"""How a worker keeps its lease and finds the dead, event by event."""

import pytest

from sitq.protocol.lease import (
    CLOCK_MARGIN,
    LEAVE_WITHIN,
    PRUNE_AGAIN,
    PRUNE_LIMIT,
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
    Prune,
    Pruned,
    Register,
    Registered,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Retire,
    Retired,
    TaskKey,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
    Watched,
)

LEASE = 30.0
GOOD_FOR = LEASE * (1 - CLOCK_MARGIN)
QUIET = Watched((), expired=False, cancelled=())
DISK = OSError("disk")


def a_machine(**config) -> LeaseMachine:
    return LeaseMachine(
        LeaseConfig(
            host="h", pid=7, queues=("default",), max_concurrency=4, lease_for=LEASE, **config
        )
    )


def register(worker_id) -> Register:
    return Register(worker_id, "h", 7, ("default",), 4, LEASE)


def holding(now=0.0, **config) -> LeaseMachine:
    """A machine that holds its lease as `w1`, with its first chores done."""
    machine = a_machine(**config)
    assert machine.receive(Started(), now) == [Enter()]
    assert machine.receive(Entered("w1"), now) == [Apply((register("w1"),))]
    (chores,) = machine.receive(Applied((Registered(),)), now)
    answers = {Unpark: Unparked(0), Prune: Pruned(0), Watch: QUIET}
    outcomes = tuple(answers[type(op)] for op in chores.ops)
    assert machine.receive(Applied(outcomes), now) == [Hold("w1", now + GOOD_FOR)]
    return machine


def tick(machine, now, *outcomes):
    """Let it ask at *now*, answer with *outcomes* at once, return (ops, effects)."""
    effects = machine.receive(Tick(), now)
    if not outcomes:
        return effects
    (ask,) = effects
    return ask.ops, machine.receive(Applied(outcomes), now)


# -- living ----------------------------------------------------------------------------


def test_a_life_begins_with_its_lock_then_its_row_and_only_then_a_lease() -> None:
    machine = a_machine(stamps=("pickle-5",), retention=60.0)

    assert machine.receive(Started(), 5.0) == [Enter()]
    assert machine.receive(Entered("w1"), 5.0) == [Apply((register("w1"),))]
    assert machine.receive(Applied((Registered(),)), 6.0) == [
        Apply(
            (
                Unpark(("pickle-5",)),
                Prune(older_than=60.0, limit=PRUNE_LIMIT),
                Watch("w1"),
            )
        ),
    ]
    assert machine.receive(Applied((Unparked(0), Pruned(0), QUIET)), 6.5) == [
        Hold("w1", 5.0 + GOOD_FOR)  # counted from when the request left
    ]
    assert machine.state is LeaseState.HOLDING


def test_a_new_life_rescues_the_dead_before_it_says_that_it_holds() -> None:
    machine = a_machine()
    machine.receive(Started(), 0.0)
    machine.receive(Entered("w1"), 0.0)
    machine.receive(Applied((Registered(),)), 0.0)
    peers = Watched(("dead", "alive"), expired=False, cancelled=())

    assert machine.receive(Applied((Unparked(0), peers)), 0.0) == [Probe(("dead", "alive"))]
    assert machine.receive(Probed(("dead",)), 0.0) == [Apply((Rescue(("dead",)),))]
    assert machine.receive(Applied((Rescued(("dead",), 1),)), 0.0) == [
        Sweep(("dead",)),
        Wake(),
        Hold("w1", GOOD_FOR),
    ]


def test_a_new_life_among_the_living_holds_once_it_has_looked() -> None:
    machine = a_machine()
    machine.receive(Started(), 0.0)
    machine.receive(Entered("w1"), 0.0)
    machine.receive(Applied((Registered(),)), 0.0)
    peers = Watched(("alive",), expired=False, cancelled=())

    assert machine.receive(Applied((Unparked(0), peers)), 0.0) == [Probe(("alive",))]
    assert machine.receive(Probed(()), 0.0) == [Hold("w1", GOOD_FOR)]


def test_the_lease_is_renewed_three_times_in_its_length() -> None:
    machine = holding()
    for second in range(1, 10):
        ops, _ = tick(machine, float(second), QUIET)
        assert ops == (Watch("w1"),)

    ops, effects = tick(machine, 10.0, Renewed(), QUIET)
    assert ops == (Renew("w1", LEASE), Watch("w1"))
    assert effects == [Hold("w1", 10.0 + GOOD_FOR)]


def test_a_spurious_tick_asks_nothing() -> None:
    machine = holding()

    assert tick(machine, 0.5) == []
    assert machine.next_deadline() == 1.0


def test_while_a_question_is_under_way_no_other_is_asked() -> None:
    machine = holding()

    assert tick(machine, 1.0) == [Apply((Watch("w1"),))]
    assert tick(machine, 2.0) == []
    assert tick(machine, 11.0) == []
    assert machine.receive(Applied((QUIET,)), 11.0) == [Apply((Renew("w1", LEASE),))]


def test_a_question_that_failed_is_asked_again_after_pauses_that_grow() -> None:
    machine = holding()
    tick(machine, 1.0)

    assert machine.receive(ApplyFailed(DISK), 1.0) == [Complain(DISK)]
    assert tick(machine, 1.4) == []
    assert tick(machine, 1.5) == [Apply((Watch("w1"),))]
    assert machine.receive(ApplyFailed(DISK), 1.5) == [Complain(DISK)]
    assert tick(machine, 2.4) == []
    assert tick(machine, 2.5) == [Apply((Watch("w1"),))]
    assert machine.receive(Applied((QUIET,)), 2.5) == []

    # It has answered, so the pauses begin anew.
    now = machine.next_deadline()
    assert tick(machine, now) == [Apply((Watch("w1"),))]
    machine.receive(ApplyFailed(DISK), now)
    assert tick(machine, now + 0.5) == [Apply((Watch("w1"),))]


# -- losing ----------------------------------------------------------------------------


def test_a_lease_that_cannot_be_renewed_in_time_is_let_go_before_storage_lets_go() -> None:
    machine = holding()
    machine.receive(Tick(), 10.0)
    assert machine.receive(ApplyFailed(DISK), 10.0) == [Complain(DISK)]
    now = 10.5
    while now < GOOD_FOR:
        if machine.receive(Tick(), now):
            machine.receive(ApplyFailed(DISK), now)
        now = machine.next_deadline()

    assert now == GOOD_FOR
    assert machine.receive(Tick(), now) == [LetGo("w1"), Leave("w1"), Enter()]
    assert machine.receive(Entered("w2"), now) == [Apply((Rescue(("w1",)), register("w2")))]
    assert machine.receive(Applied((Rescued(("w1",), 3), Registered())), now) == [
        Sweep(("w1",)),
        Wake(),
        Apply((Unpark(()), Watch("w2"))),
    ]
    assert machine.receive(Applied((Unparked(0), QUIET)), now) == [Hold("w2", now + GOOD_FOR)]


def test_a_worker_that_was_rescued_comes_back_under_a_new_id() -> None:
    machine = holding()
    tick(machine, 5.0, QUIET)

    _, effects = tick(machine, 10.0, Unregistered(), QUIET)
    assert effects == [LetGo("w1"), Leave("w1"), Enter()]
    assert machine.receive(Entered("w2"), 10.0) == [Apply((Rescue(("w1",)), register("w2")))]


def test_a_lease_that_the_worker_has_let_go_of_is_not_renewed() -> None:
    machine = holding()

    assert machine.receive(Disowned("w0"), 0.5) == []  # an earlier one
    assert machine.receive(Disowned("w1"), 0.5) == [LetGo("w1"), Leave("w1"), Enter()]
    assert machine.receive(Disowned("w1"), 0.5) == []
    assert machine.receive(Entered("w2"), 0.5) == [Apply((Rescue(("w1",)), register("w2")))]


def test_a_rescue_that_was_asked_before_a_life_ended_is_not_taken_for_that_of_its_tasks() -> None:
    machine = holding()
    tick(machine, 1.0, Watched(("a",), expired=True, cancelled=()))
    machine.receive(Probed(()), 1.0)  # and the rescue is under way
    machine.receive(Tick(), GOOD_FOR)
    machine.receive(Entered("w2"), GOOD_FOR)

    assert machine.receive(Applied((Rescued(("a",), 0),)), GOOD_FOR) == [
        Sweep(("a",)),
        Apply((Rescue(("w1",)), register("w2"))),
    ]


def test_an_answer_about_an_earlier_life_changes_nothing() -> None:
    machine = holding()
    machine.receive(Tick(), 10.0)  # the renewal is under way
    machine.receive(Tick(), GOOD_FOR)
    assert machine.receive(Entered("w2"), GOOD_FOR) == []

    effects = machine.receive(Applied((Renewed(), QUIET)), GOOD_FOR + 1)
    assert effects == [Apply((Rescue(("w1",)), register("w2")))]


def test_a_grant_that_arrives_after_it_has_run_out_is_no_lease() -> None:
    machine = a_machine()
    machine.receive(Started(), 0.0)
    machine.receive(Entered("w1"), 0.0)

    assert machine.receive(Applied((Registered(),)), GOOD_FOR) == [Apply((register("w1"),))]
    assert machine.state is LeaseState.REGISTERING


# -- the dead --------------------------------------------------------------------------


def test_a_peer_whose_lock_is_free_is_rescued() -> None:
    machine = holding()
    _, effects = tick(machine, 1.0, Watched(("a", "b"), expired=False, cancelled=()))
    assert effects == [Probe(("a", "b"))]

    assert machine.receive(Probed(("b",)), 1.0) == [Apply((Rescue(("b",)),))]
    assert machine.receive(Applied((Rescued(("b",), 2),)), 1.0) == [Sweep(("b",)), Wake()]


def test_peers_that_live_are_left_alone() -> None:
    machine = holding()
    tick(machine, 1.0, Watched(("a",), expired=False, cancelled=()))

    assert machine.receive(Probed(()), 1.0) == []


def test_a_lease_that_has_run_out_is_rescued_and_storage_judges_again() -> None:
    machine = holding()
    _, effects = tick(machine, 1.0, Watched(("a",), expired=True, cancelled=()))

    assert effects == [Probe(("a",)), Apply((Rescue(()),))]
    assert machine.receive(Probed(()), 1.0) == []
    assert machine.receive(Applied((Rescued((), 0),)), 1.0) == []  # it had been renewed


def test_a_rescue_that_failed_is_asked_again() -> None:
    machine = holding()
    tick(machine, 1.0, Watched(("a",), expired=False, cancelled=()))
    machine.receive(Probed(("a",)), 1.0)
    machine.receive(ApplyFailed(DISK), 1.0)

    assert tick(machine, 1.5) == [Apply((Rescue(("a",)),))]


def test_what_callers_want_cancelled_is_passed_on() -> None:
    machine = holding()
    keys = (TaskKey(1, 2), TaskKey(3, 4))

    _, effects = tick(machine, 1.0, Watched((), expired=False, cancelled=keys))
    assert effects == [AskToStop(keys)]


# -- upkeep ----------------------------------------------------------------------------


def test_pruning_goes_on_soon_while_there_is_more_and_rests_when_there_is_not() -> None:
    machine = holding(retention=60.0)
    for second in range(1, 30):
        tick(machine, float(second), *([Renewed()] if second % 10 == 0 else []), QUIET)

    ops, effects = tick(machine, 30.0, Renewed(), Unparked(4), Pruned(PRUNE_LIMIT), QUIET)
    assert ops == (
        Renew("w1", LEASE),
        Unpark(()),
        Prune(older_than=60.0, limit=PRUNE_LIMIT),
        Watch("w1"),
    )
    assert effects == [Hold("w1", 30.0 + GOOD_FOR), Wake()]
    assert machine.next_deadline() == 30.0 + PRUNE_AGAIN
    ops, _ = tick(machine, 30.0 + PRUNE_AGAIN, Unparked(0), Pruned(1))
    assert ops == (Unpark(()), Prune(older_than=60.0, limit=PRUNE_LIMIT))
    ops, _ = tick(machine, 31.0, QUIET)
    assert ops == (Watch("w1"),)


def test_the_upkeep_comes_round_again() -> None:
    machine = holding()
    rounds = []
    for second in range(1, 100):
        renewal = [Renewed()] if second % 10 == 0 else []
        upkeep = [Unparked(0)] if second % 30 == 0 else []
        ops, _ = tick(machine, float(second), *renewal, *upkeep, QUIET)
        rounds += [second for op in ops if isinstance(op, Unpark)]
    assert rounds == [30, 60, 90]


# -- leaving ---------------------------------------------------------------------------


def test_leaving_retires_the_worker_and_then_drops_its_lock() -> None:
    machine = holding()

    assert machine.receive(LeaveRequested(), 1.0) == [Apply((Retire("w1"),))]
    assert machine.receive(LeaveRequested(), 1.0) == []
    assert machine.receive(Applied((Retired(0),)), 1.0) == [Leave("w1"), Stop()]
    assert machine.state is LeaseState.GONE
    assert machine.next_deadline() is None
    assert machine.receive(Tick(), 99.0) == []


def test_leaving_waits_for_the_answer_under_way() -> None:
    machine = holding()
    tick(machine, 1.0)

    assert machine.receive(LeaveRequested(), 1.0) == []
    assert machine.receive(Applied((QUIET,)), 1.0) == [Apply((Retire("w1"),))]


def test_leaving_ends_in_time_although_the_store_does_not_answer() -> None:
    machine = holding()
    machine.receive(LeaveRequested(), 1.0)
    machine.receive(ApplyFailed(DISK), 1.0)
    assert tick(machine, 1.5) == [Apply((Retire("w1"),))]

    assert machine.next_deadline() == 1.0 + LEAVE_WITHIN
    assert tick(machine, 1.0 + LEAVE_WITHIN) == [Leave("w1"), Stop()]
    assert machine.receive(Applied((Retired(0),)), 9.0) == []


def test_leaving_before_the_start_is_the_end() -> None:
    assert a_machine().receive(LeaveRequested(), 0.0) == [Stop()]


def test_leaving_while_a_life_is_being_entered_leaves_that_life_too() -> None:
    machine = a_machine()
    machine.receive(Started(), 0.0)
    assert machine.receive(LeaveRequested(), 0.0) == []

    assert machine.receive(Entered("w1"), 0.1) == [Apply((Retire("w1"),))]


def test_a_life_that_is_entered_after_the_end_is_left_at_once() -> None:
    machine = a_machine()
    machine.receive(Started(), 0.0)
    machine.receive(LeaveRequested(), 0.0)
    assert machine.receive(Tick(), LEAVE_WITHIN) == [Stop()]

    assert machine.receive(Entered("w1"), 9.0) == [Leave("w1")]


@pytest.mark.parametrize("answer", [Renewed(), Unregistered()])
def test_a_renewal_that_is_answered_while_leaving_does_not_begin_a_new_life(answer) -> None:
    machine = holding()
    for second in range(1, 10):
        tick(machine, float(second), QUIET)
    machine.receive(Tick(), 10.0)
    machine.receive(LeaveRequested(), 10.0)

    effects = machine.receive(Applied((answer, QUIET)), 10.0)
    if answer == Renewed():
        assert effects == [Apply((Retire("w1"),))]
    else:
        assert effects == [LetGo("w1"), Leave("w1"), Stop()]
