"""From what a task did to what becomes of it."""

import pytest
from hypothesis import given, strategies as st

from sitq.protocol.ops import (
    Aborted,
    Completed,
    Failed,
    Failure,
    Parked,
    Released,
    Reservation,
    RetryIn,
    RetryPolicy,
    TaskKey,
    TaskPolicy,
)
from sitq.protocol.retry import (
    LONGEST_DELAY,
    Interrupted,
    Raised,
    Returned,
    Unreadable,
    Why,
    backoff,
    judge,
)

BOOM = Failure("boom", "ValueError")


def a_task(attempt=1, *, attempts=1, timeout=None) -> Reservation:
    policy = TaskPolicy(timeout=timeout, retry=RetryPolicy(attempts=attempts, delay=10.0))
    return Reservation(TaskKey(1, attempt), "id", "f", b"", attempt, policy)


@pytest.mark.parametrize("why", [None, *Why])
def test_a_function_that_returned_has_succeeded_even_if_it_was_told_to_stop(why) -> None:
    assert judge(a_task(), Returned(b"v"), why, 0.0) == Completed(b"v")


@pytest.mark.parametrize("why", [None, *Why])
def test_what_cannot_be_read_is_parked(why) -> None:
    assert judge(a_task(), Unreadable("x-1", "text"), why, 0.0) == Parked("x-1", "text")


def test_an_exception_uses_up_an_attempt() -> None:
    assert judge(a_task(), Raised(BOOM), None, 0.0) == Failed(BOOM)
    assert judge(a_task(1, attempts=3), Raised(BOOM), None, 0.0) == RetryIn(10.0, BOOM)
    assert judge(a_task(2, attempts=3), Raised(BOOM), None, 0.5) == RetryIn(19.0, BOOM)
    assert judge(a_task(3, attempts=3), Raised(BOOM), None, 0.0) == Failed(BOOM)


def test_what_cannot_get_better_is_not_tried_again() -> None:
    assert judge(a_task(attempts=9), Raised(BOOM, retryable=False), None, 0.0) == Failed(BOOM)


@pytest.mark.parametrize("ending", [Interrupted(), Raised(BOOM)])
def test_a_timeout_uses_up_an_attempt_and_says_so(ending) -> None:
    failed = judge(a_task(timeout=2.5), ending, Why.TIMEOUT, 0.0)
    assert failed == Failed(
        Failure("the task ran longer than its timeout of 2.5 s", "TimeoutError", reason="timeout")
    )
    again = judge(a_task(timeout=2.5, attempts=2), ending, Why.TIMEOUT, 0.0)
    assert isinstance(again, RetryIn)


@pytest.mark.parametrize("ending", [Interrupted(), Raised(BOOM)])
def test_a_shutdown_and_a_lost_lease_charge_nothing(ending) -> None:
    assert judge(a_task(), ending, Why.SHUTDOWN, 0.0) == Released()
    assert judge(a_task(), ending, Why.LEASE_LOST, 0.0) == Released()


@pytest.mark.parametrize("ending", [Interrupted(), Raised(BOOM)])
def test_a_task_that_a_caller_cancelled_is_cancelled_whatever_it_raised(ending) -> None:
    assert judge(a_task(attempts=5), ending, Why.USER, 0.0) == Aborted()


def test_an_interrupt_that_nobody_ordered_is_the_end_of_the_loop_and_charges_nothing() -> None:
    assert judge(a_task(), Interrupted(), None, 0.0) == Released()


@given(
    st.builds(
        RetryPolicy,
        attempts=st.integers(1, 1000),
        delay=st.floats(0, 1e9),
        factor=st.floats(1, 1000),
        max_delay=st.floats(0, 1e9),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 1000),
    st.floats(0, 1, exclude_max=True),
)
def test_a_backoff_is_never_negative_nor_longer_than_was_said(policy, attempt, unit) -> None:
    delay = backoff(policy, attempt, unit)

    assert 0 <= delay <= min(policy.max_delay, LONGEST_DELAY)


def test_a_backoff_grows_and_jitter_only_shortens_it() -> None:
    policy = RetryPolicy(attempts=9, delay=1.0, factor=2.0, max_delay=6.0, jitter=0.5)

    assert [backoff(policy, n, 0.0) for n in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 6.0]
    assert backoff(policy, 3, 0.5) == 3.0


@given(st.integers(1, 10**6), st.floats(1, 1000), st.floats(0, 1e9))
def test_no_delay_is_no_delay_however_often_the_task_has_failed(attempt, factor, max_delay) -> None:
    policy = RetryPolicy(attempts=10**6, delay=0.0, factor=factor, max_delay=max_delay)

    assert backoff(policy, attempt, 0.5) == 0.0
