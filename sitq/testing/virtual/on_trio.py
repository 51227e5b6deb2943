"""trio in virtual time: its own clock for tests, and an order of tasks that the seed decides.

trio runs the tasks that are ready in an order of chance. It has a switch to sort them first, made
for Hypothesis, and a generator that shuffles them. Both are private; this is the one place that
touches them, and a test holds trio to them.
"""

import math
import random
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio.testing
from trio._core import _run

from sitq.exceptions import VirtualTimeError
from sitq.testing.virtual.limits import deadlock, limit_reached, unless_stuck

T = TypeVar("T")


class TrioTime:
    """The time of one run; see `VirtualTime` in `sitq.testing.virtual.running`."""

    def __init__(self, unit: Callable[[], float], limit: float) -> None:
        self._order = _Order(unit)
        self._limit = limit
        self._stuck: VirtualTimeError | None = None
        self._clock = trio.testing.MockClock(autojump_threshold=0)

    def seconds(self) -> float:
        return self._clock.current_time()

    def skip(self, seconds: float) -> None:
        self._clock.jump(seconds)

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        with _ordered_by(self._order):
            try:
                return trio.run(self._main, main, clock=self._clock)
            except trio.TrioInternalError:
                if self._order.brake is None:
                    raise
                raise self._order.brake from None

    async def _main(self, main: Callable[[], Awaitable[T]]) -> T:
        with trio.CancelScope() as scope:
            trio.lowlevel.spawn_system_task(self._watch, scope)
            return await unless_stuck(main, lambda: self._stuck)
        raise AssertionError("a scope that was cancelled for being stuck lets the error out")

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Wait for the limit. Where there is no other timer, the clock jumps to it at once."""
        await trio.sleep_until(self._limit)
        self._stuck = await self._reason()
        scope.cancel()
        await trio.sleep_until(self._limit * 2)  # main may take some time to tidy up
        self._order.brake = await self._reason()

    async def _reason(self) -> VirtualTimeError:
        await trio.testing.wait_all_tasks_blocked()  # those of this very instant set new timers
        ahead = trio.lowlevel.current_statistics().seconds_to_next_deadline
        return deadlock() if ahead == math.inf else limit_reached(self._limit)


@contextmanager
def _ordered_by(order: random.Random) -> Generator[None]:
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r  # noqa: SLF001
    switches: Any = _run
    switches._ALLOW_DETERMINISTIC_SCHEDULING, switches._r = True, order  # noqa: SLF001
    try:
        yield
    finally:
        switches._ALLOW_DETERMINISTIC_SCHEDULING, switches._r = before  # noqa: SLF001


class _Order(random.Random):
    """Shuffles by *unit* in the thread that made it, and by chance for a trio in another one.

    *brake* is raised at the next turn: the one way out of a trio that waits for ever, shielded.
    """

    def __init__(self, unit: Callable[[], float]) -> None:
        super().__init__()
        self.brake: VirtualTimeError | None = None
        self._unit = unit
        self._thread = threading.get_ident()

    def shuffle(self, x: Any) -> None:
        if threading.get_ident() != self._thread:
            super().shuffle(x)
            return
        if self.brake is not None:
            raise self.brake
        for i in range(len(x) - 1, 0, -1):
            j = int(self._unit() * (i + 1))
            x[i], x[j] = x[j], x[i]
