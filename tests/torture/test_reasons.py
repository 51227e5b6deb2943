"""Why a task ran once more: what was done to its worker, its own retries, or nothing at all."""

import pytest

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Completed,
    Failure,
    Moment,
    Register,
    Released,
    Rescue,
    Retire,
    RetryIn,
    Settle,
    TaskKey,
)
from sitq.testing.simulation.history import Batch, Change, Event, Kind
from torture.reasons import BY_FATE, CUT_OFF, HANDED_BACK, REMEMBERED, RETRIED, Outage, explain

NOW = Moment(0, 0, "boot")


def batch(who, op) -> Event:
    return Event(0.0, Kind.BATCH, who, value=Batch((op,), (None,), NOW))


def row(old, new, token=1, worker=None) -> Event:
    change = Change(1, old, new, token, token, worker, None, 1, 1, 0, 0, None, False, "q", 0)
    return Event(0.0, Kind.ROW, "", "t", token, change)


def start(who, token) -> Event:
    return Event(0.0, Kind.START, who, "t", token, ("", b""))


def cut_off(who, seconds, at=0.0) -> Event:
    return Event(at, Kind.FAULT, who, value=Outage(CUT_OFF, seconds))


FIRST = [batch("w1", Register("life", "host", 1, ("q",), 1, 3.0)), start("w1", 1)]
KEY = TaskKey(1, 1)
TAKEN = row(S.RUNNING, S.QUEUED, worker="life")


@pytest.mark.parametrize(
    ("reason", "between"),
    [
        (RETRIED, [batch("w1", Settle(KEY, "t", "life", RetryIn(1.0, Failure("", "")))), TAKEN]),
        (HANDED_BACK, [batch("w1", Settle(KEY, "t", "life", Released())), TAKEN]),
        (HANDED_BACK, [batch("w1", Retire("life")), TAKEN]),
        (BY_FATE[Kind.KILLED], [Event(0.0, Kind.KILLED, "w1"), batch("w2", Rescue()), TAKEN]),
        (BY_FATE[Kind.PAUSED], [Event(0.0, Kind.PAUSED, "w1"), batch("w2", Rescue()), TAKEN]),
        (CUT_OFF, [cut_off("w1", seconds=1.0), batch("w2", Rescue()), TAKEN]),
    ],
)
def test_a_second_run_has_a_reason(reason, between) -> None:
    again, unexplained = explain([*FIRST, *between, start("w2", 2)])
    assert (again, unexplained) == ({reason: 1}, [])


@pytest.mark.parametrize(
    "between",
    [
        [],
        [batch("w2", Rescue()), TAKEN],
        [Event(0.0, Kind.KILLED, "w2"), batch("w3", Rescue()), TAKEN],
        [cut_off("w2", seconds=1.0), batch("w3", Rescue()), TAKEN],
        [cut_off("w1", seconds=1.0, at=-1.1 - REMEMBERED), batch("w3", Rescue()), TAKEN],
        [batch("w1", Settle(KEY, "t", "life", Completed(b"")))],
    ],
)
def test_a_task_that_is_taken_from_a_worker_that_lives_has_none(between) -> None:
    again, unexplained = explain([*FIRST, *between, start("w2", 2)])
    assert not again
    assert unexplained == [
        "D1: t started again in w2, although nothing was done to w1, which had it before"
    ]
