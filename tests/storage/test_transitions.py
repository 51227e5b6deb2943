"""The SQL of every move in every state, held against the transition table."""

import pytest

from sitq.protocol.lifecycle import Move, TaskState, advance
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Completed,
    Enqueue,
    Failed,
    Failure,
    Fetch,
    Parked,
    Released,
    Rescue,
    Reserve,
    RetryIn,
    Settle,
    TaskKey,
    Unpark,
)
from tests.storage.runs import NOW, later, new_task, register

S, M = TaskState, Move
BOOM = Failure("boom", "ValueError", "trace", None)


def verdict(verdict):
    return lambda key: Settle(key, "t", "w", verdict)


MOVES = {
    M.PROMOTE: lambda _: Reserve("w", ("default",), 1),
    M.RESERVE: lambda _: Reserve("w", ("default",), 1),
    M.COMPLETE: verdict(Completed(b"v")),
    M.FAIL: verdict(Failed(BOOM)),
    M.RETRY: verdict(RetryIn(60.0, BOOM)),
    M.RELEASE: verdict(Released()),
    M.PARK: verdict(Parked("x", "cannot read x")),
    M.UNPARK: lambda _: Unpark(("x",)),
    M.RESCUE: lambda _: Rescue(("w",)),
    M.CANCEL: lambda _: Cancel("t"),
    M.ABORT: verdict(Aborted()),
}
WAYS = {
    S.SCHEDULED: [M.RETRY],
    S.QUEUED: [],
    S.RUNNING: [],
    S.PARKED: [M.PARK],
    S.SUCCESS: [M.COMPLETE],
    S.FAILED: [M.FAIL],
    S.CANCELLED: [M.ABORT],
}


def state(store) -> TaskState:
    return store.apply([Fetch(("t",))])[0].rows["t"].state


def bring(store, to: TaskState) -> TaskKey:
    """Enqueue the task, and bring it to a state; return the key of its attempt."""
    store.apply([register(), Enqueue((new_task(),))])
    key = TaskKey(1, 1)
    if to is not S.QUEUED:
        (reserved,) = store.apply([Reserve("w", ("default",), 1)])
        key = reserved.tasks[0].key
    for move in WAYS[to]:
        store.apply([MOVES[move](key)])
    assert state(store) is to
    return key


@pytest.mark.parametrize("before", S)
@pytest.mark.parametrize("move", M)
def test_a_move_does_what_the_table_says_and_nothing_else(store, before, move) -> None:
    key = bring(store, before)
    # A scheduled task is promoted once it is due, by the very reserve that then takes it.
    now = later(3600) if before is S.SCHEDULED and move is M.PROMOTE else NOW

    store.apply([MOVES[move](key)], now)

    wanted = advance(before, move)
    if before is S.SCHEDULED and move is M.PROMOTE:
        wanted = S.RUNNING
    if before is S.QUEUED and move is M.PROMOTE:
        wanted = S.RUNNING
    if before is S.RUNNING and move is M.CANCEL:
        wanted = None  # it is only asked to stop
    assert state(store) is (wanted or before)
