"""How many tasks a worker holds ahead of its slots.

A task of some microseconds is over long before the next one could be fetched. So a worker of such
tasks has the next ones already, and the store is asked while they run.

The promises:
- Held ahead is only what starts within the horizon, going by how long tasks have taken of late.
- What has not started after five times that is handed back, and nothing is held ahead until tasks
  are seen to be short again.
- Where tasks follow one another quickly, what there is to say of them may wait for the next.
- No task is held ahead that would fail if its worker died: of what it had not begun, it shall not
  die. (What is held ahead and was never charged may be charged once.)
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from sitq.protocol.ops import Reservation, TaskKey

MOST: Final = 200
"""Tasks: beyond some hundreds a transaction gets longer but no cheaper."""
PATIENCE: Final = 5
"""Horizons that one may wait: a busy machine makes everything take longer, now and then."""
WEIGHT: Final = 0.125
"""Of the latest task in the average."""
SHORTEST: Final = 1e-6
"""Seconds: clocks are not finer."""
REST: Final = 1.0
"""Seconds for which nothing is fetched ahead, once a task came that may not be held."""


def may_be_held(task: Reservation) -> bool:
    """Whether the death of its worker costs *task* no more than its first charge."""
    return task.crashes == 0 and task.policy.max_crashes > 1


class Ahead:
    """First come, first served. *horizon* in seconds; 0 holds nothing ahead. Likewise *quick*: within
    what time a task must follow another for both to be told of at once; 0 tells of each."""

    def __init__(self, slots: int, horizon: float, quick: float = 0.0) -> None:
        self._slots = slots
        self._horizon = horizon
        self._quick = quick
        self.held: deque[tuple[float, Reservation]] = deque()
        """What is held, and since when."""
        self._length: float | None = None  # of a task, on average; None: nobody knows
        self._rests_until = 0.0

    def __len__(self) -> int:
        return len(self.held)

    @property
    def keys(self) -> list[TaskKey]:
        return [task.key for _, task in self.held]

    @property
    def deadline(self) -> float | None:
        """When the first of them has waited too long."""
        return self.held[0][0] + PATIENCE * self._horizon if self.held else None

    @property
    def is_quick(self) -> bool:
        """Whether the next of them starts so soon that what there is to say may wait for it."""
        return self._length is not None and self._length < self._quick * self._slots

    def measure(self, length: float) -> None:
        """Take note of how long a task has taken."""
        if self._length is None:
            self._length = length
        else:
            self._length += WEIGHT * (length - self._length)

    def rest(self, now: float) -> None:
        """Fetch nothing for a while."""
        self._rests_until = now + REST

    def room(self, now: float) -> int:
        """Return how many more to fetch: none while half of what may be held is there."""
        if self._length is None or now < self._rests_until:
            return 0
        most = min(MOST, int(self._slots * self._horizon / max(self._length, SHORTEST)))
        return most - len(self.held) if len(self.held) <= most // 2 else 0

    def hold(self, task: Reservation, now: float) -> None:
        self.held.append((now, task))

    def next(self) -> Reservation:
        return self.held.popleft()[1]

    def overdue(self, now: float) -> list[Reservation]:
        """Return all that is held, to be handed back, if the first has waited too long."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return []
        self._length = None
        return self.clear()

    def clear(self) -> list[Reservation]:
        """Hold nothing any more; return what was held."""
        held = [task for _, task in self.held]
        self.held.clear()
        return held

    def remove(self, keys: Iterable[TaskKey]) -> list[Reservation]:
        """Hold these no more; return those of them that were held."""
        wanted = frozenset(keys)
        removed = [task for _, task in self.held if task.key in wanted]
        if removed:
            self.held = deque(one for one in self.held if one[1].key not in wanted)
        return removed
