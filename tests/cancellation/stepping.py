"""A coroutine that is cancelled at its k-th suspension, and once more while it unwinds.

Each suspension is a place where a caller's cancellation can strike. They are counted as they
come, by a wrapper between the coroutine and its event loop, so none is missed, whatever library it
is in. There are two ways to cancel: asyncio's own `Task.cancel()`, which strikes once and goes
through every shield, and a cancel scope, which strikes again and again and halts at shields.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import anyio
import anyio.lowlevel

from sitq.adapters.current import current_loop

NATIVE, SCOPE = "Task.cancel()", "a cancel scope"
NEVER = 300


class Point(NamedTuple):
    """Where to cancel: at suspension *at* (1, 2, ...), so many turns of the loop later.

    And once more at suspension *again* of those that follow; 0: not.
    """

    way: str
    at: int
    again: int = 0
    turns: int = 0


@dataclass
class Seen:
    """What came of one call."""

    point: Point
    suspensions: int = 0
    unwinding: int = 0  # suspensions since the cancellation was heard
    asked: int = 0  # cancellations, before it had ended
    heard: bool = False
    ended: bool = False
    error: BaseException | None = None
    value: object = None

    @property
    def returned(self) -> bool:
        return self.error is None


class Stepped:
    """Awaits *coroutine*; says in *seen* how it goes, and calls *cancel* at the point."""

    def __init__(self, coroutine, seen: Seen) -> None:
        self._coroutine = coroutine
        self._seen = seen
        self._loop = current_loop()
        self.cancel: Callable[[], object] = lambda: None
        self.cancel_again: Callable[[], object] = lambda: None

    def __await__(self):
        seen = self._seen
        step, sent = self._coroutine.send, None
        while True:
            try:
                waits_for = step(sent)
            except StopIteration as end:
                seen.ended = True
                seen.value = end.value
                return end.value
            except BaseException as error:
                seen.ended = True
                seen.error = error
                raise
            self._suspended()
            try:
                sent = yield waits_for
                step = self._coroutine.send
            except BaseException as thrown:
                step, sent = self._coroutine.throw, thrown
            # asyncio throws it, and trio sends what will raise it
            news = getattr(sent, "error", sent)
            if seen.asked and isinstance(news, anyio.get_cancelled_exc_class()):
                seen.heard = True

    def _suspended(self) -> None:
        seen = self._seen
        seen.suspensions += 1
        if seen.suspensions == seen.point.at:
            self._after(seen.point.turns, self.cancel)
        if seen.heard:
            seen.unwinding += 1
            if seen.unwinding == seen.point.again:
                self._after(0, self.cancel_again)

    def _after(self, turns: int, cancel: Callable[[], object]) -> None:
        if self._seen.ended:
            return
        if turns:
            self._loop.soon(lambda: self._after(turns - 1, cancel))
        else:
            self._seen.asked += 1
            cancel()


async def call(make, point: Point, meanwhile=None) -> Seen:
    """Call *make()* and cancel it at *point*; check that its caller hears of it, or of nothing.

    *meanwhile* runs beside it, and is given what is seen so far.
    """
    seen = Seen(point)
    async with anyio.create_task_group() as beside:
        if meanwhile is not None:
            beside.start_soon(meanwhile, seen)
        if point.way == NATIVE:
            await _natively(make, seen)
        else:
            await _by_scope(make, seen)
        beside.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()  # nothing is left that would strike here
    return seen


async def _natively(make, seen: Seen) -> None:
    async def caller():
        return await stepped

    stepped = Stepped(make(), seen)
    task = asyncio.ensure_future(caller())
    stepped.cancel = stepped.cancel_again = task.cancel
    await asyncio.wait([task])
    if seen.asked:
        assert task.cancelled(), f"the cancellation was swallowed: {seen}"
    elif seen.error is not None:
        raise seen.error


async def _by_scope(make, seen: Seen) -> None:
    stepped = Stepped(make(), seen)
    cancelled = anyio.get_cancelled_exc_class()
    with anyio.CancelScope() as outer, anyio.CancelScope() as inner:
        stepped.cancel, stepped.cancel_again = inner.cancel, outer.cancel
        try:
            await stepped
        except cancelled:
            assert seen.asked, f"a cancellation that nobody asked for: {seen}"
            raise
        await anyio.lowlevel.checkpoint()  # one that was kept out by a shield strikes here
        assert not seen.asked, f"the cancellation was swallowed: {seen}"
    assert (inner.cancelled_caught or outer.cancelled_caught) == bool(seen.asked)


async def every_point(way: str, attempt, most: int) -> list[Seen]:
    """Have *attempt* made with each point that there is, up to *most*; return what was seen.

    With real threads the number of suspensions is not the same each time. So none is counted
    beforehand: it goes on until two calls in a row have ended before they came to their point.
    """
    seen: list[Seen] = []
    at = missed = 0
    while missed < 2 and at < most:
        at += 1
        seen.append(await attempt(Point(way, at)))
        if seen[-1].suspensions < at:
            missed += 1
            continue
        missed = 0
        seen.extend([await attempt(Point(way, at, turns=turns)) for turns in (1, 2)])
        for again in range(1, 100):
            seen.append(await attempt(Point(way, at, again)))
            if seen[-1].unwinding < again:
                break
        else:
            raise AssertionError("the unwinding has no end")
    assert at < NEVER, "the call has no end"
    return seen
