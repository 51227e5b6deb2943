"""Whether an event loop still answers, seen from another thread.

The promise: a loop that has not answered for `blocked_after` seconds is reported once, and again
each time that this has doubled; and that it answers again is reported, too. A watcher that was
itself held up (a suspended process, a machine that slept) blames nobody.
"""

from typing import Final, NamedTuple, TypeAlias

from sitq.protocol.message import message

ASK_EVERY: Final = 1.0
"""Seconds between two questions to a loop that answers."""
BLOCKED_AFTER: Final = 2.0


@message
class Looked(NamedTuple):
    """The watcher looks; *answered_at* is when the loop answered the last question, if it has."""

    answered_at: float | None


@message
class Ask(NamedTuple):
    """Have the loop answer as soon as it can."""


@message
class Blocked(NamedTuple):
    """It has not answered for so many *seconds*, at least."""

    seconds: float


@message
class Freed(NamedTuple):
    """It answers again, after so many *seconds*."""

    seconds: float


HeartbeatEffect: TypeAlias = Ask | Blocked | Freed


class HeartbeatMachine:
    def __init__(self, blocked_after: float = BLOCKED_AFTER) -> None:
        self._blocked_after = blocked_after
        self._look_at: float | None = None
        self._asked_at: float | None = None
        self._report_at = 0.0
        self._has_reported = False

    def next_deadline(self) -> float | None:
        """Return when to look next; None before the first look."""
        return self._look_at

    def receive(self, event: Looked, now: float) -> tuple[HeartbeatEffect, ...]:
        held_up = self._look_at is not None and now > self._look_at + ASK_EVERY
        self._look_at = now + ASK_EVERY
        if self._asked_at is not None and event.answered_at is None and not held_up:
            return self._wait(now, self._asked_at)
        freed: tuple[HeartbeatEffect, ...] = ()
        if self._asked_at is not None and event.answered_at is not None and self._has_reported:
            freed = (Freed(event.answered_at - self._asked_at),)
        self._asked_at = now
        self._report_at = now + self._blocked_after
        self._has_reported = False
        return (*freed, Ask())

    def _wait(self, now: float, asked_at: float) -> tuple[HeartbeatEffect, ...]:
        if now < self._report_at:
            self._look_at = min(now + ASK_EVERY, self._report_at)
            return ()
        self._has_reported = True
        self._report_at = now + (now - asked_at)
        return (Blocked(now - asked_at),)
