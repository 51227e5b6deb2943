"""When a task has run for as long as it may.

Ended tasks are not taken out one by one: their limits are skipped when they come up, and dropped
once they are many.
"""

from collections.abc import Container, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from sitq.protocol.ops import TaskKey

FEW: Final = 100
"""Limits of ended tasks that do not matter."""


class TimeLimits:
    """The earliest comes first. Whoever asks says which tasks are *running*."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, TaskKey]] = []
        self.earliest = inf
        """The first of the limits, whether its task has ended or not; infinite if there is none."""

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, key: TaskKey, at: float, running: Container[TaskKey], slots: int) -> None:
        """Have *key* come up at *at*, on the machine's clock; *slots* is how many can run."""
        if len(self._heap) >= 2 * slots + FEW:  # behind a long task they would pile up
            self._heap = [one for one in self._heap if one[1] in running]
            heapify(self._heap)
        heappush(self._heap, (at, key))
        self.earliest = self._heap[0][0]

    def next_deadline(self, running: Container[TaskKey]) -> float | None:
        while self._heap and self._heap[0][1] not in running:
            self._pop()
        return self._heap[0][0] if self._heap else None

    def expire(self, now: float) -> Iterator[TaskKey]:
        """Return the tasks whose time is over, ended or not; each comes up once."""
        while self.earliest <= now:
            yield self._pop()

    def _pop(self) -> TaskKey:
        _, key = heappop(self._heap)
        self.earliest = self._heap[0][0] if self._heap else inf
        return key
