"""What is held ahead of the slots, how much of it, and for how long."""

import pytest

from sitq.protocol.ahead import MOST, Ahead
from sitq.protocol.ops import (
    Aborted,
    Completed,
    Released,
    Reservation,
    Reserved,
    Settle,
    Settled,
    TaskKey,
    TaskPolicy,
)
from sitq.protocol.retry import Why
from sitq.protocol.worker import (
    Execute,
    Interrupt,
    LeaseHeld,
    LeaseLost,
    Stop,
    StopAsked,
    StopRequested,
    Stored,
    StoreFailed,
    TaskEnded,
    TurnPassed,
    WaitATurn,
    Woken,
)
from tests.protocol.told import DONE, Told, holding, reserve, settle, task


def held(ahead: Ahead, *tasks: Reservation, now: float = 0.0) -> Ahead:
    for one in tasks:
        ahead.hold(one, now)
    return ahead


def test_nothing_is_held_ahead_until_it_is_known_how_long_tasks_take() -> None:
    assert Ahead(slots=1, horizon=0.01).room(0.0) == 0


@pytest.mark.parametrize(
    ("slots", "length", "room"),
    [(1, 0.011, 0), (1, 0.01, 1), (1, 0.001, 10), (4, 0.01, 4), (4, 0.1, 0), (1, 0.0, MOST)],
)
def test_as_many_are_held_as_start_within_the_horizon(slots, length, room) -> None:
    ahead = Ahead(slots=slots, horizon=0.01)
    ahead.measure(length)
    assert ahead.room(0.0) == room


def test_more_is_fetched_once_half_of_it_has_started() -> None:
    ahead = held(Ahead(slots=1, horizon=0.01), *map(task, range(6)))
    ahead.measure(0.001)
    assert ahead.room(0.0) == 0
    ahead.next()
    assert ahead.room(0.0) == 5


def test_a_long_task_among_short_ones_counts() -> None:
    ahead = Ahead(slots=1, horizon=0.01)
    for _ in range(20):
        ahead.measure(0.0001)
    ahead.measure(1.0)
    assert ahead.room(0.0) == 0


def test_what_has_waited_too_long_is_handed_back_and_no_more_is_fetched() -> None:
    ahead = held(Ahead(slots=1, horizon=0.01), task(1), task(2), now=3.0)
    ahead.measure(0.001)
    assert ahead.overdue(3.04) == []
    assert ahead.overdue(3.051) == [task(1), task(2)]
    assert len(ahead) == ahead.room(0.0) == 0
    assert ahead.deadline is None


@pytest.mark.parametrize(
    ("slots", "length", "is_quick"),
    [(1, 0.0009, True), (1, 0.001, False), (10, 0.009, True), (10, 0.01, False)],
)
def test_tasks_are_quick_if_the_next_one_starts_in_no_time(slots, length, is_quick) -> None:
    ahead = Ahead(slots=slots, horizon=0.01, quick=0.001)
    assert not ahead.is_quick, "nobody knows yet"
    ahead.measure(length)
    assert ahead.is_quick is is_quick


# -- in a worker --------------------------------------------------------------------------


@pytest.fixture
def told() -> Told:
    """A worker of one slot, which has seen a task of 1 ms, runs t2 and holds t3 and t4 ahead."""
    told = holding(1, horizon=0.003)
    assert told.turn(TaskEnded(TaskKey(1, 1), DONE), now=0.001) == [
        [settle(1, Completed(b"ok")), reserve(4)]
    ]
    given = Reserved((task(2), task(3), task(4)))
    assert told.stored(Settled(True), given, now=0.001) == [Execute(task(2))]
    return told


def ended(n) -> TaskEnded:
    return TaskEnded(TaskKey(n, 1), DONE)


def test_the_next_one_starts_in_the_turn_in_which_a_slot_is_free(told) -> None:
    assert told.turn(ended(2), now=0.002)[0] == Execute(task(3))


def test_what_came_first_starts_first_though_more_comes_with_the_free_slot(told) -> None:
    assert told.turn(ended(2), now=0.002) == [
        Execute(task(3)),
        [settle(2, Completed(b"ok")), reserve(2)],
    ]
    answer = Stored(told.ticket, (Settled(True), Reserved((task(5), task(6)))))
    said = told.turn(ended(3), answer, now=0.003)
    assert [effect for effect in said if isinstance(effect, Execute)] == [Execute(task(4))]


def test_nothing_is_handed_back_while_more_is_on_its_way(told) -> None:
    """What comes would be started before what went back."""
    told.turn(ended(2), now=0.002)
    assert told.turn(now=1.0) == []
    (ops,) = told.stored(Settled(True), Reserved((task(5),)), now=1.1)
    assert ops == [settle(n, Released()) for n in (4, 5)]


@pytest.mark.parametrize("crashes", [0, 1])
def test_what_may_not_be_held_goes_back_with_all_that_comes_after_it(crashes) -> None:
    """It would be charged with the death of its worker, and fail, without having begun."""
    told = holding(1, horizon=0.003)
    told.turn(ended(1), now=0.001)
    frail = task(3)._replace(policy=TaskPolicy(max_crashes=1 + crashes), crashes=crashes)
    given = Reserved((task(2), frail, task(4), task(5)))
    assert told.stored(Settled(True), given, now=0.001) == [
        Execute(task(2)),
        [settle(n, Released()) for n in (3, 4, 5)],
    ]

    told.stored(*[Settled(True)] * 3, now=0.001)
    assert told.turn(ended(2), now=0.002) == [[settle(2, Completed(b"ok")), reserve(1)]]
    after_a_rest = told.stored(Settled(True), Reserved((frail,)), now=1.5)
    assert after_a_rest == [Execute(frail), [reserve(3)]]


def test_a_stop_hands_back_what_is_held(told) -> None:
    (ops,) = told.turn(StopRequested(), now=0.002)
    assert ops == [settle(3, Released()), settle(4, Released())]


def test_what_is_held_goes_with_the_lease(told) -> None:
    assert told.turn(LeaseLost("w"), now=0.002) == [Interrupt(TaskKey(2, 1), Why.LEASE_LOST)]
    assert told.turn(ended(2), now=0.003) == []


def test_what_is_held_goes_with_the_lease_also_where_the_next_one_is_heard_of_first(told) -> None:
    """A loop that was blocked for longer than a lease is told of the latest hold before the rest."""
    said = told.turn(LeaseHeld("w2", 27.0), LeaseLost("w"), now=0.002)
    assert said == [Interrupt(TaskKey(2, 1), Why.LEASE_LOST), [reserve(3, "w2")]]
    assert told.turn(ended(2), now=0.003) == []

    assert told.turn(LeaseHeld("w", 27.0), now=0.004) == []  # late news of a life that is over


def test_what_a_caller_cancels_is_not_started(told) -> None:
    (ops,) = told.turn(StopAsked((TaskKey(3, 1),)), now=0.002)
    assert ops == [settle(3, Aborted())]
    assert told.turn(ended(2), now=0.003)[0] == Execute(task(4))


def test_what_waits_behind_a_long_task_is_handed_back(told) -> None:
    assert told.machine.next_deadline() == pytest.approx(0.001 + 0.015)
    (ops,) = told.turn(now=0.017)
    assert ops == [settle(3, Released()), settle(4, Released())]
    assert told.machine.next_deadline() > 1.0


def test_what_is_held_is_known_to_a_worker_that_has_lost_an_answer() -> None:
    told = holding(1, horizon=1.0)
    told.turn(ended(1), now=0.001)
    told.stored(Settled(True), Reserved((task(2), task(3), task(4))), now=0.001)
    assert told.turn(ended(2), now=0.002)[1][1] == reserve(MOST - 1)
    told.turn(StoreFailed(told.ticket, OSError("disk")), now=0.002)

    (ops,) = told.turn(now=0.21)
    assert ops == [settle(2, Completed(b"ok")), reserve(MOST - 1, known=(3, 4))]


def test_what_was_named_and_not_heard_is_asked_for_until_an_answer_had_room_for_all_of_it() -> None:
    """Room for twenty-one, of which each may have been given; and then for three, as tasks got long."""
    told = holding(1, 2, horizon=0.01)
    assert told.turn(ended(1), now=0.001) == [[settle(1, Completed(b"ok")), reserve(21)]]
    told.turn(StoreFailed(told.ticket, OSError("disk")), now=0.002)
    told.turn(ended(2), now=0.15)

    ((*_, asked),) = told.turn(now=0.21)
    assert asked == reserve(3, known=())
    told.stored(Settled(True), Settled(True), Reserved((task(7), task(8), task(9))), now=0.22)
    assert told.turn(ended(7), now=0.5) == [Execute(task(9)), [settle(7, Completed(b"ok"))]]
    told.stored(Settled(True), now=0.51)

    assert told.turn(ended(8), now=0.6) == [[settle(8, Completed(b"ok")), reserve(1, known=(9,))]]
    told.stored(Settled(True), Reserved(()), now=0.61)
    assert told.turn(ended(9), now=0.9) == [[settle(9, Completed(b"ok")), reserve(2)]]


# -- of quick tasks -----------------------------------------------------------------------


@pytest.fixture
def quick() -> Told:
    """A worker of one slot, which runs t2 and holds t3 to t201 ahead."""
    told = holding(1, horizon=0.02, quick=0.01)
    told.turn(ended(1), now=0.0001)
    given = Reserved(tuple(map(task, range(2, MOST + 2))))
    assert told.stored(Settled(True), given, now=0.0001) == [Execute(task(2))]
    return told


def done(*numbers) -> list[Settle]:
    return [settle(n, Completed(b"ok")) for n in numbers]


def test_of_quick_tasks_the_store_is_told_once_no_more_of_them_end(quick) -> None:
    assert quick.turn(ended(2)) == [Execute(task(3)), WaitATurn()]
    assert quick.turn(ended(3)) == [Execute(task(4))]
    assert quick.turn(TurnPassed()) == [WaitATurn()]
    assert quick.turn(TurnPassed()) == [done(2, 3)]


def test_once_all_are_over_the_store_is_told_at_once_and_asked_for_more() -> None:
    told = holding(1, horizon=0.02, quick=0.01)
    told.turn(ended(1), now=0.0001)
    told.stored(Settled(True), Reserved((task(2), task(3))), now=0.0001)
    assert told.turn(ended(2)) == [Execute(task(3)), WaitATurn()]
    assert told.turn(ended(3)) == []
    assert told.turn(TurnPassed()) == [[*done(2, 3), reserve(1 + MOST)]]


def test_quick_tasks_are_not_asked_for_alone(quick) -> None:
    """The question would be under way, and all that ends meanwhile wait for its answer."""
    for n in range(2, 102):
        quick.turn(ended(n))
    assert quick.turn(TurnPassed()) == [WaitATurn()]
    assert quick.turn(TurnPassed()) == [[*done(*range(2, 102)), reserve(101)]]
    assert quick.stored(*[Settled(True)] * 100, Reserved(())) == []
    assert quick.turn(Woken()) == []


def test_what_tasks_that_take_longer_have_to_say_does_not_wait(told) -> None:
    assert told.turn(ended(2), now=0.002) == [Execute(task(3)), [*done(2), reserve(2)]]


def test_a_stop_does_not_lose_what_waits_a_turn(quick) -> None:
    assert quick.turn(ended(2), now=0.001) == [Execute(task(3)), WaitATurn()]
    assert quick.turn(StopRequested(), ended(3), now=0.001) == []
    unstarted = [settle(n, Released()) for n in range(4, MOST + 2)]
    assert quick.turn(TurnPassed(), now=0.001) == [[*done(2), *unstarted, *done(3)]]
    assert quick.stored(*[Settled(True)] * MOST, now=0.001) == [Stop()]
