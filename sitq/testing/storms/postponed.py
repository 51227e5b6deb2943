"""Calls that are put off: any callback of an event loop may ask for one, and one task makes them."""

import itertools
import math
from collections.abc import Callable
from heapq import heappop, heappush

import anyio

from sitq.adapters import clocks


class Postponed:
    """Makes the calls that it was asked for when their time has come, for as long as it runs."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._asked = anyio.Event()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call *function* in *seconds*."""
        heappush(self._calls, (clocks.monotonic() + seconds, next(self._numbers), function))
        self._asked.set()

    async def run(self) -> None:
        while True:
            self._asked = anyio.Event()
            pause = self._calls[0][0] - clocks.monotonic() if self._calls else math.inf
            with anyio.move_on_after(pause):
                await self._asked.wait()
            while self._calls and self._calls[0][0] <= clocks.monotonic():
                heappop(self._calls)[2]()
