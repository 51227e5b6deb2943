"""Hints reach those whom they concern, and nobody after they have gone."""

import pytest

from sitq.adapters.hints import Hints
from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Count,
    Counted,
    Enqueued,
    Failed,
    Failure,
    Parked,
    Released,
    RetryIn,
    Settle,
    Settled,
    TaskKey,
)
from tests.adapters.asked import enqueue

KEY = TaskKey(1, 1)


@pytest.fixture
def hints():
    return Hints()


def settled(verdict, id_="a"):
    return Settle(KEY, id_, "w", verdict), Settled(True)


def pass_on(hints, *pairs) -> None:
    hints.committed([op for op, _ in pairs], [outcome for _, outcome in pairs])


def test_workers_hear_once_of_what_was_enqueued_together(hints) -> None:
    heard = []
    with hints.of_work(lambda: heard.append(1)), hints.of_work(lambda: heard.append(2)):
        pass_on(hints, (enqueue("a"), Enqueued()), (enqueue("b"), Enqueued()))
        assert heard == [1, 2]
        pass_on(hints, (Count(), Counted(())))
        assert heard == [1, 2]
    pass_on(hints, (enqueue("c"), Enqueued()))
    assert heard == [1, 2]


@pytest.mark.parametrize(
    "verdict",
    [Completed(b"v"), Failed(Failure("e", "E")), Aborted()],
    ids=lambda v: type(v).__name__,
)
def test_who_waits_for_a_task_hears_of_its_end(hints, verdict) -> None:
    heard = []
    with hints.of_end("a", lambda: heard.append("a")), hints.of_end("b", lambda: heard.append("b")):
        pass_on(hints, settled(verdict))
        assert heard == ["a"]


@pytest.mark.parametrize(
    "verdict",
    [RetryIn(1.0, Failure("e", "E")), Released(), Parked("x", "y")],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_end_is_not_heard_of(hints, verdict) -> None:
    heard = []
    with hints.of_end("a", lambda: heard.append("a")):
        pass_on(hints, settled(verdict))
    assert heard == []


def test_several_may_wait_for_one_task_and_each_leaves_alone(hints) -> None:
    heard = []
    with hints.of_end("a", lambda: heard.append(1)):
        with hints.of_end("a", lambda: heard.append(2)):
            pass_on(hints, settled(Completed(b"")))
        pass_on(hints, settled(Completed(b"")))
    pass_on(hints, settled(Completed(b"")))
    assert heard == [1, 2, 1]
    assert hints._waiters == {}, "nothing is kept of those who have gone"


def test_who_leaves_by_an_exception_is_forgotten_too(hints) -> None:
    with pytest.raises(KeyError), hints.of_end("a", list), hints.of_work(list):
        raise KeyError
    assert (hints._waiters, hints._workers) == ({}, [])


@pytest.mark.parametrize("was", [S.SCHEDULED, S.QUEUED, S.PARKED])
def test_a_task_that_was_cancelled_while_it_waited_has_ended(hints, was) -> None:
    heard = []
    with hints.of_end("a", lambda: heard.append("a")):
        pass_on(hints, (Cancel("a"), Cancelled(was)))
    assert heard == ["a"]


def test_a_task_that_runs_is_stopped_by_its_holder_if_that_is_here(hints) -> None:
    heard, asked = [], []
    hints.hold("w", asked.append)
    with hints.of_end("a", lambda: heard.append("a")):
        pass_on(hints, (Cancel("a"), Cancelled(S.RUNNING, "w", KEY)))
        assert (heard, asked) == ([], [(KEY,)])
        pass_on(hints, (Cancel("a"), Cancelled(S.RUNNING, "elsewhere", KEY)))
        assert (heard, asked) == ([], [(KEY,)])

    hints.let_go("w")
    hints.let_go("w")
    hints.let_go(None)
    pass_on(hints, (Cancel("a"), Cancelled(S.RUNNING, "w", KEY)))
    assert asked == [(KEY,)]


@pytest.mark.parametrize("was", [None, S.SUCCESS, S.FAILED, S.CANCELLED])
def test_cancelling_what_has_ended_or_never_was_is_no_news(hints, was) -> None:
    heard = []
    with hints.of_end("a", lambda: heard.append("a")):
        pass_on(hints, (Cancel("a"), Cancelled(was)))
    assert heard == (["a"] if was is None else [])
