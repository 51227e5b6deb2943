"""Named deadlines, and pauses that grow.

A handful of timers, each set or not. Time limits of single tasks are not timers: a worker
keeps those in a heap.
"""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from math import inf
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=IntEnum)


class Timers(Generic[Name]):
    """Deadlines by name, in seconds on the machine's clock.

    The earliest is always known: every event of a machine asks whether something is due.
    """

    def __init__(self) -> None:
        self._deadlines: dict[Name, float] = {}
        self.earliest = inf
        """The first of the deadlines; infinite where none is set."""

    def set(self, name: Name, at: float) -> None:
        before = self._deadlines.get(name)
        self._deadlines[name] = at
        if at <= self.earliest:
            self.earliest = at
        elif before == self.earliest:
            self.earliest = min(self._deadlines.values())

    def pull_in(self, name: Name, at: float) -> None:
        """Set *name* to *at*, unless it is set to something earlier."""
        deadline = self._deadlines.get(name)
        if deadline is None or at < deadline:
            self.set(name, at)

    def stop(self, name: Name) -> None:
        if self._deadlines.pop(name, None) == self.earliest:
            self.earliest = min(self._deadlines.values(), default=inf)

    def clear(self) -> None:
        self._deadlines.clear()
        self.earliest = inf

    def is_set(self, name: Name) -> bool:
        return name in self._deadlines

    def is_due(self, name: Name, now: float) -> bool:
        deadline = self._deadlines.get(name)
        return deadline is not None and deadline <= now

    def expire(self, now: float) -> Iterable[Name]:
        """Return the timers whose time has come, in the order of their names; each is stopped."""
        if self.earliest > now:
            return ()
        due = [name for name, at in self._deadlines.items() if at <= now]
        if len(due) == 1:
            self.stop(due[0])
            return due
        return self._expire(sorted(due), now)

    def _expire(self, due: list[Name], now: float) -> Iterator[Name]:
        for name in due:
            if self.is_due(name, now):  # handling one timer may stop or move another
                self.stop(name)
                yield name

    def next_deadline(self) -> float | None:
        return None if self.earliest == inf else self.earliest


def growing_pause(failures: int, first: float, longest: float) -> float:
    """Return the seconds to wait after so many *failures* in a row (0, 1, ...): doubled each time."""
    return min(first * 2.0 ** min(failures, 30), longest)
