"""An asyncio event loop in virtual time.

When nothing is ready, the time jumps to the next timer. Timers of the same instant fire in an
order that the seed decides: asyncio leaves it open. All else happens in asyncio's own order, which
is first come, first served.

The promises: it never sleeps, it starts no thread, and no order depends on an address in memory.
What is outside of the program (sockets, pipes, other threads) is looked at in every turn, and not
waited for.
"""

import asyncio
import contextvars
import itertools
import selectors
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from heapq import heapify, heappop, heappush
from typing import Any, Final, TypeVar, TypeVarTuple

from sitq.exceptions import VirtualTimeError
from sitq.testing.virtual.asyncio_sets import sets_in_order, tasks_with_numbers
from sitq.testing.virtual.limits import deadlock, limit_reached, unless_stuck

T = TypeVar("T")
Args = TypeVarTuple("Args")

FEW: Final = 1000
"""Timers, of which it does not matter how many have been cancelled."""


class AsyncioTime:
    """The time of one run; see `VirtualTime` in `sitq.testing.virtual.running`."""

    def __init__(self, unit: Callable[[], float], limit: float) -> None:
        self._loop = _Loop(unit, limit)

    def seconds(self) -> float:
        return self._loop.time()

    def skip(self, seconds: float) -> None:
        self._loop.skip(seconds)

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            return runner.run(self._main(main))

    async def _main(self, main: Callable[[], Awaitable[T]]) -> T:
        self._loop.main = asyncio.current_task()
        return await unless_stuck(main, lambda: self._loop.stuck)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, unit: Callable[[], float], limit: float) -> None:
        self.main: asyncio.Task[Any] | None = None
        self.stuck: VirtualTimeError | None = None
        self._unit = unit
        self._limit = limit
        self._now = 0.0
        self._timers: list[tuple[float, float, int, _Timer]] = []  # a heap; some are cancelled
        self._tidy_at = FEW
        self._numbers = itertools.count()
        super().__init__(_Selector(self._fire_what_is_due, self._pass_time))
        sets_in_order()
        self.set_task_factory(tasks_with_numbers())

    def time(self) -> float:
        return self._now

    def skip(self, seconds: float) -> None:
        """Let time pass as if a callback had blocked the loop."""
        self._now += seconds

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context or contextvars.copy_context())
        if len(self._timers) >= self._tidy_at:
            self._timers = [entry for entry in self._timers if not entry[3].cancelled()]
            self._tidy_at = max(FEW, 2 * len(self._timers))
            heapify(self._timers)
        heappush(self._timers, (when, self._unit(), next(self._numbers), timer))
        return timer

    def run_in_executor(
        self,
        executor: Executor | None,  # noqa: ARG002  # nothing runs elsewhere
        func: Callable[[*Args], T],
        *args: *Args,
    ) -> asyncio.Future[T]:
        """Call *func* in the next turn: what `asyncio.to_thread` does takes no time here."""
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(_call, future, func, *args)
        return future

    def _pass_time(self) -> None:
        """Go on to the next timer. If there is none, or too late, end the run."""
        while self._timers and self._timers[0][3].cancelled():
            heappop(self._timers)
        at = self._timers[0][0] if self._timers else None
        if at is not None and at <= self._limit:
            self._now = max(self._now, at)
            self._fire_what_is_due()
            return
        was_stuck = self.stuck is not None
        self.stuck = deadlock() if at is None else limit_reached(self._limit)
        if was_stuck or self.main is None or not self.main.cancel():
            raise self.stuck  # out of the loop: what is left does not end by being cancelled
        self._limit *= 2  # main may take some time to tidy up

    def _fire_what_is_due(self) -> None:
        timers, now = self._timers, self._now
        while timers and timers[0][0] <= now:
            timer = heappop(timers)[3]
            if not timer.cancelled():
                self.call_soon(timer.fire, context=timer.context)


class _Selector(selectors.DefaultSelector):
    """Called by the loop between two turns: the place where time may pass."""

    def __init__(self, fire: Callable[[], None], pass_time: Callable[[], None]) -> None:
        super().__init__()
        self._fire = fire
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # One file is the loop's own, to be woken by; what wakes it here is in its queue already.
        events = super().select(0) if len(self.get_map()) > 1 else []
        if events or timeout is not None:
            self._fire()
        else:
            self._pass_time()
        return events


class _Timer(asyncio.TimerHandle):
    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.context = context
        self._call = callback, args

    def fire(self) -> None:
        if not self.cancelled():
            callback, args = self._call
            callback(*args)


def _call(future: asyncio.Future[T], func: Callable[..., T], *args: object) -> None:
    if future.cancelled():
        return
    try:
        future.set_result(func(*args))
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  # whoever awaits it is told
        future.set_exception(error)
