"""The clock of a queue under test: it stands still until a test moves it.

The promises: it shows whole milliseconds, it never goes back, and nothing else moves it: no event
loop, no task that sleeps. It begins a moment ahead of the machine's clock, so that a task which
your code has put off until `datetime.now(...) + timedelta(days=1)` is due once the clock was moved
by a day.
"""

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from sitq import validation
from sitq.exceptions import ValidationError
from sitq.protocol.ops import Moment

AHEAD: Final = 2
"""Seconds: one to round up to a whole one, and one for a test to get ready in."""


class ManualClock:
    """Tells the time by which it is decided what is due."""

    def __init__(self) -> None:
        self._wall_ms = 1000 * (math.floor(time.time()) + AHEAD)

    def now(self) -> datetime:
        """Return what it shows, as an aware datetime in UTC."""
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=self._wall_ms)

    def advance(
        self,
        seconds: float | timedelta = 0,
        *,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
    ) -> None:
        """Move it on by the sum of these; nothing runs before the next `drain()`."""
        if isinstance(seconds, int | float):
            seconds = timedelta(seconds=validation.seconds("seconds", seconds))
        further = seconds + timedelta(minutes=minutes, hours=hours, days=days)
        self._wall_ms += round(1000 * validation.seconds("the way to go", further))

    def move_to(self, when: datetime) -> None:
        """Move it on to *when*, an aware datetime that must not be in its past."""
        wall_ms = validation.eta_ms(when)
        if wall_ms < self._wall_ms:
            raise ValidationError(
                f"the clock shows {self.now()} and does not go back to {when}; move it on, or make"
                " another queue"
            )
        self._wall_ms = wall_ms

    def moment(self) -> Moment:
        """Return what the store is told; leases never end by this clock."""
        return Moment(self._wall_ms, 0, "by hand")

    def __repr__(self) -> str:
        return f"<ManualClock at {self.now()}>"
