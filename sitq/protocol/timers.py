"""Named deadlines, and pauses that grow.

A handful of timers, each set or not. Time limits of single tasks are not timers: a worker
keeps those in a heap.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=IntEnum)


class Timers(Generic[Name]):
    """Deadlines by name, in seconds on the machine's clock."""

    def __init__(self) -> None:
        self._deadlines: dict[Name, float] = {}

    def set(self, name: Name, at: float) -> None:
        self._deadlines[name] = at

    def pull_in(self, name: Name, at: float) -> None:
        """Set *name* to *at*, unless it is set to something earlier."""
        deadline = self._deadlines.get(name)
        if deadline is None or at < deadline:
            self._deadlines[name] = at

    def stop(self, name: Name) -> None:
        self._deadlines.pop(name, None)

    def clear(self) -> None:
        self._deadlines.clear()

    def is_set(self, name: Name) -> bool:
        return name in self._deadlines

    def is_due(self, name: Name, now: float) -> bool:
        deadline = self._deadlines.get(name)
        return deadline is not None and deadline <= now

    def expire(self, now: float) -> Iterator[Name]:
        """Yield the timers whose time has come, in the order of their names; each is stopped."""
        for name in sorted(name for name, at in self._deadlines.items() if at <= now):
            if self.is_due(name, now):  # handling one timer may stop or move another
                del self._deadlines[name]
                yield name

    def next_deadline(self) -> float | None:
        return min(self._deadlines.values(), default=None)


def growing_pause(failures: int, first: float, longest: float) -> float:
    """Return the seconds to wait after so many *failures* in a row (0, 1, ...): doubled each time."""
    return min(first * 2.0 ** min(failures, 30), longest)
