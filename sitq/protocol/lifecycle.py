"""The life of a task, as a table.

Rule 1: every legal move of a task is in `TRANSITIONS`; whatever is not there is refused.
Rule 2: the guards in `sitq.storage` are built from it, never retyped.
Rule 3: nothing leaves a final state.

The diagram in `docs/explanation/lifecycle.md` is drawn from this table.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class TaskState(StrEnum):
    """Where a task stands, as its row says."""

    SCHEDULED = "scheduled"
    """Waits for its time."""
    QUEUED = "queued"
    """Waits for a worker."""
    RUNNING = "running"
    """Reserved by a worker, under that worker's lease."""
    PARKED = "parked"
    """Waits for a worker that can read its payload."""
    SUCCESS = "success"
    """Ended: the function returned, and its result is stored."""
    FAILED = "failed"
    """Ended: no attempt is left, or its workers died too often."""
    CANCELLED = "cancelled"
    """Ended: a caller asked for it."""


class Move(StrEnum):
    """What may happen to a task."""

    PROMOTE = "promote"
    RESERVE = "reserve"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    RELEASE = "release"
    PARK = "park"
    UNPARK = "unpark"
    RESCUE = "rescue"
    CANCEL = "cancel"
    ABORT = "abort"


_S, _M = TaskState, Move

TRANSITIONS: Final[Mapping[tuple[TaskState, Move], TaskState]] = {
    # state        move          next state      # who says so
    (_S.SCHEDULED, _M.PROMOTE): _S.QUEUED,  # any reserve, once the time has come
    (_S.SCHEDULED, _M.CANCEL): _S.CANCELLED,  # a caller
    (_S.QUEUED, _M.RESERVE): _S.RUNNING,  # a worker; a new token
    (_S.QUEUED, _M.CANCEL): _S.CANCELLED,  # a caller
    (_S.RUNNING, _M.COMPLETE): _S.SUCCESS,  # the holder
    (_S.RUNNING, _M.FAIL): _S.FAILED,  # the holder; or a rescue, after `max_crashes` deaths
    (_S.RUNNING, _M.RETRY): _S.SCHEDULED,  # the holder; an attempt is left
    (_S.RUNNING, _M.RELEASE): _S.QUEUED,  # the holder, stopping; costs no attempt
    (_S.RUNNING, _M.PARK): _S.PARKED,  # the holder, who cannot read it; costs no attempt
    (_S.RUNNING, _M.RESCUE): _S.QUEUED,  # any worker, once the holder is dead; a new token
    (_S.RUNNING, _M.ABORT): _S.CANCELLED,  # the holder once it has stopped, or a rescue
    (_S.PARKED, _M.UNPARK): _S.QUEUED,  # a worker that can read it
    (_S.PARKED, _M.CANCEL): _S.CANCELLED,  # a caller
}

FINAL: Final = frozenset({TaskState.SUCCESS, TaskState.FAILED, TaskState.CANCELLED})


def advance(state: TaskState, move: Move) -> TaskState | None:
    """Return the state that *move* leads to from *state*, or None if it is refused."""
    return TRANSITIONS.get((state, move))


def sources(move: Move) -> tuple[TaskState, ...]:
    """Return the states in which *move* is legal: the guard of its statement."""
    return tuple(state for state, m in TRANSITIONS if m is move)


def target(move: Move) -> TaskState:
    """Return the one state that *move* leads to."""
    (state,) = {state for (_, m), state in TRANSITIONS.items() if m is move}
    return state
