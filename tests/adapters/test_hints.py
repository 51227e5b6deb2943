"""Hints reach those whom they concern, and nobody after they have gone."""

import pytest

from sitq.adapters.bells import Want
from sitq.adapters.hints import Hints, gives_work
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
    Reservation,
    Reserve,
    Reserved,
    RetryIn,
    Settle,
    Settled,
    TaskKey,
    TaskPolicy,
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


class Rider:
    """A worker that takes what it is offered, or not."""

    def __init__(self, takes: bool) -> None:
        self.takes = takes
        self.seen = []

    def offered(self, queues) -> bool:
        self.seen.append(queues)
        return self.takes

    def has_ridden(self, ops) -> bool:
        return self.takes


def test_who_reserves_in_the_transaction_that_enqueues_is_not_told_of_it(hints) -> None:
    heard, shy, bold, late = [], Rider(False), Rider(True), Rider(True)
    with hints.of_work(lambda: heard.append(1), shy), hints.of_work(lambda: heard.append(2), bold):
        with hints.of_work(lambda: heard.append(3), late):
            hints.offer([enqueue("a"), Count()])
        hints.offer([Count()])
        pass_on(hints, (enqueue("a"), Enqueued()))
        assert heard == [1]
        hints.told(Want.WORK, [])
    assert (shy.seen, bold.seen, late.seen) == ([("default",)], [("default",)], [])
    assert heard == [1, 1, 2], "what others have done is told to all"


def given(*ids: str) -> Reserved:
    return Reserved(tuple(Reservation(KEY, id_, "f", b"", 1, TaskPolicy()) for id_ in ids))


@pytest.mark.parametrize(
    ("ids", "left"), [([], True), (["a"], True), (["b", "x"], True), (["a", "b", "x"], False)]
)
def test_others_need_not_hear_of_tasks_that_were_given_out_as_they_were_stored(ids, left) -> None:
    ops = [enqueue("a"), enqueue("b"), Reserve("w", ("default",), 9)]
    assert gives_work(ops, [Enqueued(), Enqueued(), given(*ids)]) is left


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
