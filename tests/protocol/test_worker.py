"""What a worker does next, event by event."""

import pytest

from sitq.protocol.ops import (
    Aborted,
    Completed,
    Failed,
    Failure,
    Released,
    Reserved,
    RetryIn,
    Settled,
    TaskKey,
    Unregistered,
)
from sitq.protocol.retry import Interrupted, Raised, Why
from sitq.protocol.worker import (
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
    Stored,
    StoreFailed,
    TaskEnded,
    ThreadReturned,
    Woken,
    WorkerState,
)
from tests.protocol.told import DONE, Told, holding, reserve, settle, started, task

DISK = OSError("disk")


COMING = Coming(("default",))

# -- reserving -------------------------------------------------------------------------


def test_it_reserves_only_once_its_lease_is_held() -> None:
    told = Told(max_concurrency=3, queues=("mail", "default"))

    assert told.turn(Started()) == []
    assert told.turn(LeaseHeld("w", 27.0)) == [[reserve(3, queues=("mail", "default"))]]


def test_one_question_for_tasks_is_under_way_at_a_time() -> None:
    told = started()

    assert told.turn(Woken(), Woken()) == []
    assert told.stored(Reserved(())) == [[reserve(1)]]  # the hint that came meanwhile counts


def test_with_nothing_to_do_it_looks_again_after_the_poll_interval() -> None:
    told = started(poll_interval=0.5)

    assert told.stored(Reserved(()), now=10.0) == []
    assert told.machine.next_deadline() == 10.5
    assert told.turn(now=10.5) == [[reserve(1)]]


def test_it_looks_again_when_the_next_task_is_due_if_that_is_sooner() -> None:
    told = started(poll_interval=60.0)
    told.stored(Reserved((), next_due_in=0.25), now=10.0)
    assert told.machine.next_deadline() == 10.25

    told = started(poll_interval=1.0)
    told.stored(Reserved((), next_due_in=3600.0), now=10.0)
    assert told.machine.next_deadline() == 11.0


def test_it_asks_for_as_many_tasks_as_it_can_start_at_once() -> None:
    told = started(max_concurrency=3)

    assert told.stored(Reserved((task(1),))) == [Execute(task(1))]
    assert told.turn(Woken()) == [[reserve(2)]]
    assert told.stored(Reserved((task(2), task(3)))) == [Execute(task(2)), Execute(task(3))]
    assert told.turn(Woken()) == []  # all slots are taken
    assert told.machine.running == 3


def test_after_as_many_as_it_asked_for_it_asks_again_when_a_slot_is_free() -> None:
    told = started(max_concurrency=2)
    told.stored(Reserved((task(1), task(2))))

    assert told.turn(TaskEnded(TaskKey(1, 1), DONE)) == [[settle(1, Completed(b"ok")), reserve(1)]]


def test_all_that_ended_in_one_turn_leaves_in_one_breath_with_one_reserve() -> None:
    told = holding(1, 2, 3)

    assert told.turn(*(TaskEnded(TaskKey(n, 1), DONE) for n in (1, 2, 3)), now=3.0) == [
        [*(settle(n, Completed(b"ok")) for n in (1, 2, 3)), reserve(3)]
    ]


def test_what_its_own_process_is_about_to_store_it_reserves_in_that_transaction() -> None:
    told = started(max_concurrency=3, queues=("mail", "default"))
    told.stored(Reserved((task(1),)))

    assert told.only(Coming(("x", "mail"))) == [[reserve(2, queues=("mail", "default"))]]
    assert told.only(COMING) == [], "one question for tasks is under way at a time"
    assert told.stored(Reserved((task(2),))) == [Execute(task(2))]
    assert told.turn() == [], "nobody else has to tell it"


def test_if_it_was_given_all_it_asked_for_there_it_asks_again() -> None:
    told = started(max_concurrency=1)
    told.stored(Reserved(()))
    assert told.only(COMING) == [[reserve(1)]]
    told.stored(Reserved((task(1),)))

    assert told.turn(TaskEnded(TaskKey(1, 1), DONE)) == [[settle(1, Completed(b"ok")), reserve(1)]]


def test_what_is_to_be_settled_goes_along_too() -> None:
    told = holding(1)
    assert told.only(TaskEnded(TaskKey(1, 1), DONE)) == []

    assert told.only(COMING) == [[settle(1, Completed(b"ok")), reserve(1)]]
    assert told.turn() == []


def _resting_after_a_failure() -> Told:
    told = started(max_concurrency=2)
    told.turn(StoreFailed(told.ticket, DISK))
    return told


def _ready(*events, **config) -> Told:
    told = started(max_concurrency=2, **config)
    told.stored(Reserved(()))
    told.turn(*events)
    return told


@pytest.mark.parametrize(
    ("told", "coming", "now"),
    [
        pytest.param(_ready(), Coming(("other",)), 0.0, id="for another queue"),
        pytest.param(_ready(LeaseLost("w")), COMING, 0.0, id="without a lease"),
        pytest.param(_ready(poll_interval=99.0), COMING, 27.0, id="with a lease that is over"),
        pytest.param(_ready(StopRequested()), COMING, 0.0, id="once it was stopped"),
        pytest.param(_resting_after_a_failure(), COMING, 0.1, id="while the store is left alone"),
        pytest.param(started(), COMING, 0.0, id="while it asks already"),
        pytest.param(holding(1), COMING, 0.0, id="without a free slot"),
    ],
)
def test_it_lets_a_transaction_go_without_it(told, coming, now) -> None:
    assert told.only(coming, now=now) == []


def test_a_reserve_by_a_worker_that_is_registered_no_more_loses_the_lease() -> None:
    told = holding(1, max_concurrency=2)
    told.turn(Woken())

    assert told.stored(Unregistered()) == [
        Disown("w"),
        Interrupt(TaskKey(1, 1), Why.LEASE_LOST),
    ]
    assert told.turn(Woken()) == []
    assert told.turn(LeaseHeld("w2", 27.0)) == [[reserve(1, "w2")]]


# -- endings ---------------------------------------------------------------------------


def test_an_exception_is_settled_as_the_policy_says() -> None:
    boom = Failure("boom", "ValueError")
    told = holding(task(1), task(2, attempts=2))

    assert told.turn(
        TaskEnded(TaskKey(1, 1), Raised(boom)), TaskEnded(TaskKey(2, 1), Raised(boom))
    ) == [[settle(1, Failed(boom)), settle(2, RetryIn(1.0, boom)), reserve(2)]]


def test_a_task_is_interrupted_at_its_time_limit_and_not_before() -> None:
    told = holding(task(1, timeout=5.0), task(2), task(3, timeout=9.0), now=10.0)
    told.turn(TaskEnded(TaskKey(3, 1), DONE), now=11.0)

    assert told.machine.next_deadline() == 15.0
    assert told.turn(now=14.9) == []
    assert told.turn(now=15.0) == [Interrupt(TaskKey(1, 1), Why.TIMEOUT)]
    ((verdict, _),) = told.stored(
        Settled(True), Reserved(()), then=[TaskEnded(TaskKey(1, 1), Interrupted())], now=16.0
    )
    assert verdict.verdict.failure.reason == "timeout"


def test_time_limits_of_ended_tasks_do_not_pile_up_behind_that_of_a_long_one() -> None:
    told = started(max_concurrency=2)
    told.stored(Reserved((task(1, timeout=5.0), task(2, timeout=10.0))))
    for n in range(2, 1000):
        told.turn(TaskEnded(TaskKey(n, 1), DONE))
        told.stored(Settled(True), Reserved((task(n + 1, timeout=10.0),)))

    assert len(told.machine._time_limits) <= 104
    assert told.turn(now=5.0) == [Interrupt(TaskKey(1, 1), Why.TIMEOUT)]
    assert told.turn(now=10.0) == [Interrupt(TaskKey(1000, 1), Why.TIMEOUT)]


def test_a_task_that_a_caller_wants_cancelled_is_interrupted_once() -> None:
    told = holding(1)

    assert told.turn(StopAsked((TaskKey(1, 1), TaskKey(99, 1)))) == [
        Interrupt(TaskKey(1, 1), Why.USER)
    ]
    assert told.turn(StopAsked((TaskKey(1, 1),))) == []
    assert told.turn(TaskEnded(TaskKey(1, 1), Interrupted())) == [
        [settle(1, Aborted()), reserve(1)]
    ]


def test_the_first_reason_for_an_interrupt_stands() -> None:
    told = holding(task(1, timeout=5.0), now=0.0)
    told.turn(StopAsked((TaskKey(1, 1),)))

    assert told.turn(now=5.0) == []
    assert told.turn(TaskEnded(TaskKey(1, 1), Interrupted()), now=6.0)[0][0].verdict == Aborted()


def test_a_verdict_that_was_refused_is_reported() -> None:
    told = holding(1)
    told.turn(TaskEnded(TaskKey(1, 1), DONE))

    assert told.stored(Settled(False), Reserved(())) == [Late("t1")]


def test_an_abandoned_thread_keeps_its_slot_until_it_has_returned() -> None:
    told = holding(1)

    assert told.turn(TaskEnded(TaskKey(1, 1), Interrupted(), lingers=True)) == [
        [settle(1, Released())]
    ]
    assert told.machine.running == 1
    assert told.stored(Settled(True)) == []
    assert told.turn(ThreadReturned()) == [[reserve(1)]]


# -- the store fails -------------------------------------------------------------------


def test_verdicts_are_kept_until_the_store_has_taken_them() -> None:
    told = holding(1, 2)
    told.turn(TaskEnded(TaskKey(1, 1), DONE))

    assert told.turn(StoreFailed(told.ticket, DISK), now=10.0) == []
    assert told.turn(TaskEnded(TaskKey(2, 1), DONE), now=10.1) == []  # it is left alone
    assert told.machine.next_deadline() == 10.2
    assert told.turn(now=10.2) == [
        [settle(1, Completed(b"ok")), settle(2, Completed(b"ok")), reserve(2, known=())]
    ]


def test_what_an_answer_named_that_was_lost_is_asked_for_with_the_next_reserve() -> None:
    """It may have been stored: then it is ours, and nobody else would ever run it."""
    told = holding(1, 2, max_concurrency=4)
    told.turn(TaskEnded(TaskKey(1, 1), DONE))  # which asks for more
    settling = told.ticket
    told.turn(StoreFailed(settling, DISK), now=10.0)

    assert told.turn(now=10.2) == [[settle(1, Completed(b"ok")), reserve(3, known=(2,))]]
    forgotten = task(7)
    assert told.stored(Settled(True), Reserved((forgotten,)), now=10.3) == [Execute(forgotten)]
    assert told.turn(Woken(), now=10.4) == [[reserve(2)]]  # the answers arrive again


def test_a_verdict_under_way_is_of_a_task_that_is_known() -> None:
    told = holding(1, 2, max_concurrency=4)
    told.turn(Woken())
    looking = told.ticket
    told.turn(TaskEnded(TaskKey(1, 1), DONE))  # its verdict leaves alone
    told.turn(StoreFailed(looking, DISK), now=10.0)

    assert told.turn(now=10.2) == [[reserve(3, known=(1, 2))]]


def test_the_pauses_grow_while_the_store_fails_and_begin_anew_after_it_has_answered() -> None:
    told = started()
    now, pauses = 0.0, []
    for _ in range(8):
        told.turn(LeaseHeld("w", 1000.0), StoreFailed(told.ticket, DISK), now=now)
        pauses.append(round(told.machine.next_deadline() - now, 6))
        now = told.machine.next_deadline()
        assert told.turn(now=now) == [[reserve(1, known=())]]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]

    told.stored(Reserved(()), now=now)
    told.turn(Woken(), now=now)
    told.turn(StoreFailed(told.ticket, DISK), now=now)
    assert told.machine.next_deadline() == pytest.approx(now + 0.2)


# -- the lease is lost -----------------------------------------------------------------


def test_a_worker_that_lost_its_lease_interrupts_its_tasks_and_settles_nothing() -> None:
    told = holding(1, 2)
    told.turn(TaskEnded(TaskKey(2, 1), DONE))
    told.turn(StoreFailed(told.ticket, DISK))

    assert told.turn(LeaseLost("w"), now=1.0) == [Interrupt(TaskKey(1, 1), Why.LEASE_LOST)]
    assert told.turn(TaskEnded(TaskKey(1, 1), DONE), now=2.0) == []
    assert told.turn(LeaseHeld("w2", 27.0), now=3.0) == [[reserve(2, "w2", known=())]]


def test_a_lease_that_is_not_renewed_in_time_is_lost() -> None:
    told = holding(1)

    assert told.turn(now=26.9) == []
    assert told.turn(now=27.0) == [Disown("w"), Interrupt(TaskKey(1, 1), Why.LEASE_LOST)]
    assert told.turn(LeaseHeld("w", 27.0), now=27.1) == []  # it crossed with ours
    assert told.turn(LeaseHeld("w2", 27.0), now=27.2) == []  # the interrupted one has its slot


def test_what_is_answered_after_the_lease_has_ended_is_not_run() -> None:
    told = started()

    assert told.stored(Reserved((task(1),)), now=27.0) == [Disown("w")]
    assert told.machine.running == 0


def test_a_renewal_moves_the_end_of_the_lease() -> None:
    told = holding(1)
    told.turn(LeaseHeld("w", 27.0), now=10.0)

    assert told.machine.next_deadline() == 37.0


def test_the_loss_of_an_earlier_life_does_not_touch_the_tasks_of_this_one() -> None:
    told = started()
    told.turn(LeaseHeld("w2", 27.0))
    told.stored(Reserved(()))
    told.stored(Reserved((task(1),)))

    assert told.turn(LeaseLost("w")) == []
    assert told.machine.running == 1


def test_what_an_earlier_life_reserved_is_not_run() -> None:
    told = started()

    told.turn(LeaseLost("w"))
    told.turn(LeaseHeld("w2", 27.0))
    assert told.stored(Reserved((task(1),))) == [[reserve(1, "w2")]]


def test_a_task_that_is_being_interrupted_is_not_settled_once_the_lease_is_lost() -> None:
    told = holding(1)
    told.turn(StopAsked((TaskKey(1, 1),)))

    assert told.turn(LeaseLost("w")) == []  # the order was given already
    assert told.turn(TaskEnded(TaskKey(1, 1), Interrupted())) == []


# -- stopping --------------------------------------------------------------------------


def test_a_stop_lets_running_tasks_end_and_reserves_nothing_more() -> None:
    told = holding(1)

    assert told.turn(StopRequested()) == []
    assert told.turn(Woken(), now=5.0) == []
    assert told.turn(TaskEnded(TaskKey(1, 1), DONE), now=9.0) == [[settle(1, Completed(b"ok"))]]
    assert told.stored(Settled(True)) == [Stop()]
    assert told.machine.state is WorkerState.STOPPED
    assert told.machine.next_deadline() is None


def test_after_its_grace_a_stop_interrupts_and_hands_back_uncharged() -> None:
    told = holding(1)

    told.turn(StopRequested(grace=3.0), now=10.0)
    assert told.machine.next_deadline() == 13.0
    assert told.turn(now=13.0) == [Interrupt(TaskKey(1, 1), Why.SHUTDOWN)]
    assert told.turn(TaskEnded(TaskKey(1, 1), Interrupted()), now=13.1) == [[settle(1, Released())]]


def test_a_later_stop_can_shorten_the_grace_and_not_lengthen_it() -> None:
    told = holding(1)
    told.turn(StopRequested(grace=30.0), now=0.0)

    told.turn(StopRequested(), StopRequested(grace=60.0), now=1.0)
    assert told.machine.next_deadline() == 27.0  # the lease
    assert told.turn(StopRequested(grace=0.0), now=2.0) == [Interrupt(TaskKey(1, 1), Why.SHUTDOWN)]


def test_what_is_reserved_while_it_stops_is_handed_back_at_once() -> None:
    told = started(max_concurrency=2)
    told.turn(StopRequested())

    assert told.stored(Reserved((task(1), task(2)))) == [
        [settle(1, Released()), settle(2, Released())]
    ]
    assert told.stored(Settled(True), Settled(True)) == [Stop()]


def test_a_stop_before_the_start_stands() -> None:
    told = Told()

    assert told.turn(StopRequested()) == [Stop()]
    assert told.turn(Started(), LeaseHeld("w", 27.0)) == []
    assert told.turn(StopRequested()) == []


def test_a_stop_waits_until_the_verdicts_are_stored_or_the_lease_is_lost() -> None:
    told = holding(1)
    told.turn(StopRequested(grace=0.0), TaskEnded(TaskKey(1, 1), DONE))
    assert told.turn(StoreFailed(told.ticket, DISK)) == []
    assert told.turn(now=0.2) == [[settle(1, Completed(b"ok"))]]
    assert told.turn(StoreFailed(told.ticket, DISK), now=0.3) == []

    assert told.turn(LeaseLost("w"), now=0.4) == [Stop()]


# -- draining --------------------------------------------------------------------------


def test_a_drain_ends_when_nothing_is_due_and_nothing_runs() -> None:
    told = holding(1, drain=True)

    assert told.turn(TaskEnded(TaskKey(1, 1), DONE)) == [[settle(1, Completed(b"ok")), reserve(1)]]
    assert told.stored(Settled(True), Reserved((), next_due_in=3600.0)) == [Stop()]


def test_a_drain_goes_on_while_a_task_runs_that_may_enqueue_more() -> None:
    told = started(drain=True, max_concurrency=2)

    assert told.stored(Reserved((task(1),)), now=1.0) == [Execute(task(1))]
    assert told.turn(now=2.0) == [[reserve(1)]]
    assert told.stored(Reserved(()), now=2.0) == []
    assert told.machine.state is WorkerState.RUNNING


def test_a_drain_looks_again_for_what_a_hint_told_of_while_it_was_looking() -> None:
    told = started(drain=True)
    told.turn(Woken())

    assert told.stored(Reserved(())) == [[reserve(1)]]
    assert told.stored(Reserved(())) == [Stop()]


def test_a_drain_looks_again_after_a_verdict_that_left_while_it_was_looking() -> None:
    """The task may be due again at once, or have enqueued another."""
    told = holding(task(1, attempts=2), drain=True, max_concurrency=2)
    told.turn(Woken())
    looking = told.ticket
    again = Raised(Failure("boom", "ValueError"))
    assert told.turn(TaskEnded(TaskKey(1, 1), again)) == [
        [settle(1, RetryIn(1.0, Failure("boom", "ValueError")))]
    ]

    assert told.turn(Stored(looking, (Reserved(()),))) == [[reserve(2)]]
