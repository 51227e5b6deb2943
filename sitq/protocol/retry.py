"""From what a task did to what becomes of it.

`judge` is the only place where that is decided. An exception and a time limit use up an
attempt; a shutdown, an unreadable payload and a worker's death do not.
"""

from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias, assert_never

from sitq.protocol.message import message
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
    Verdict,
)

LONGEST_DELAY: Final = 10 * 365 * 86400.0
"""Seconds: what a back-off is cut to, so that no exponent overflows a date."""


class Why(StrEnum):
    """Why a running task was interrupted; the machine that gave the order remembers it."""

    USER = "user"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"


# -- endings: what the driver reports --------------------------------------------------


@message
class Returned(NamedTuple):
    """The function returned; *value* is its result, serialised."""

    value: bytes


@message
class Raised(NamedTuple):
    """The function raised; *retryable* is False where running it again cannot help."""

    failure: Failure
    retryable: bool = True


@message
class Interrupted(NamedTuple):
    """The function was stopped before it ended."""


@message
class Unreadable(NamedTuple):
    """The payload bears a *stamp* that this worker does not read; nothing was run."""

    stamp: str
    text: str


Ending: TypeAlias = Returned | Raised | Interrupted | Unreadable


def judge(task: Reservation, ending: Ending, why: Why | None, unit: float) -> Verdict:
    """Return what becomes of *task*; *unit* in [0, 1) is the chance used for jitter.

    A function that returned has succeeded, even if it was told to stop: its work is done.
    """
    match ending:
        case Returned(value):
            return Completed(value)
        case Unreadable(stamp, text):
            return Parked(stamp, text)
        case Raised() | Interrupted():
            pass
        case _:
            assert_never(ending)
    match why:
        case Why.USER:
            return Aborted()
        case Why.TIMEOUT:
            return _another_attempt(task, _timed_out(task), unit)
        case Why.SHUTDOWN | Why.LEASE_LOST:
            return Released()
        case None:
            if isinstance(ending, Interrupted):
                return Released()  # the event loop itself was torn down around it
            if not ending.retryable:
                return Failed(ending.failure)
            return _another_attempt(task, ending.failure, unit)
        case _:
            assert_never(why)


def backoff(policy: RetryPolicy, attempt: int, unit: float) -> float:
    """Return the seconds to wait after *attempt* (1, 2, ...) has failed.

    `delay * factor ** (attempt - 1)`, at most `max_delay`, less up to `jitter` of itself: so
    tasks that failed together do not come back together, and never later than was said.
    """
    if policy.delay == 0:
        return 0.0
    try:
        delay = policy.delay * policy.factor ** (attempt - 1)
    except OverflowError:
        delay = LONGEST_DELAY
    return min(delay, policy.max_delay, LONGEST_DELAY) * (1 - policy.jitter * unit)


def _another_attempt(task: Reservation, failure: Failure, unit: float) -> Verdict:
    if task.attempt < task.policy.retry.attempts:
        return RetryIn(backoff(task.policy.retry, task.attempt, unit), failure)
    return Failed(failure)


def _timed_out(task: Reservation) -> Failure:
    return Failure(
        error=f"the task ran longer than its timeout of {task.policy.timeout:g} s",
        error_type="TimeoutError",
        reason=Why.TIMEOUT.value,
    )
