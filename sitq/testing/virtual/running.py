"""`run`: your own program, with its workers and queues, in virtual time and in one known order.

An hour of sleeps passes in milliseconds, on asyncio and on trio. With the same seed everything
happens in the same order and at the same times, with the same ids: on any machine, and for any
PYTHONHASHSEED. With another seed it may happen in another order that the loop allows as well.

In a virtual run nothing is left to a thread: plain functions run on the loop, and take no time;
stores answer on the loop; and workers look after their leases on the loop. Code of yours that asks
`time.time()` or `datetime.now()` still gets the real time: `now()` tells the virtual one.
"""

import itertools
import os
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol, TypeAlias, TypeVar, TypeVarTuple

from sitq import validation
from sitq.adapters.current import current_loop
from sitq.adapters.virtual import Virtual, run_of_caller, virtual
from sitq.exceptions import NoEventLoopError, ValidationError, VirtualTimeError

T = TypeVar("T")
Args = TypeVarTuple("Args")
LoopName: TypeAlias = Literal["asyncio", "trio"]

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
LIMIT: Final = timedelta(days=366)

_numbers = itertools.count(1)


class VirtualTime(Protocol):
    """What a virtual event loop has to offer. Its time begins at 0."""

    def seconds(self) -> float:
        """Return how much time has passed."""
        ...

    def skip(self, seconds: float) -> None:
        """Let time pass in which nothing happens, as if a callback had blocked the loop."""

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Run *main* to its end, and clear up as the event loop's own `run` does."""
        ...


def run(
    main: Callable[[*Args], Awaitable[T]],
    *args: *Args,
    seed: int = 0,
    backend: LoopName = "asyncio",
    start: datetime = START,
    limit: timedelta | float = LIMIT,
) -> T:
    """Run `main(*args)` in virtual time; return what it returns, or raise what it raises.

    Args:
        main: an async function.
        seed: what decides wherever the event loop leaves the order open, and all of sitq's chance
            (ids, jitter of retries).
        backend: the event loop, `"asyncio"` or `"trio"`.
        start: what the virtual wall clock shows at first (default: the beginning of 2030, UTC).
        limit: how much virtual time it may take, in seconds or as a timedelta (default: a year).

    Raises:
        DeadlockError: nothing can happen any more, and *main* has not ended.
        VirtualTimeError: the limit was reached, or an event loop runs here already.
        ValidationError: an argument is wrong.
    """
    start_ms = _start_ms(start)
    seconds = validation.seconds("limit", limit, zero=False)
    _refuse_a_running_loop()
    chance = random.Random(validation.whole("seed", seed, -(2**63), 2**63))  # noqa: S311
    time = _time(backend)(chance.random, seconds)
    here = Virtual(
        start_ms=start_ms,
        epoch=f"virtual/{os.getpid()}/{next(_numbers)}",
        seconds=time.seconds,
        skip=time.skip,
        unit=chance.random,
    )
    with _inside(here):
        return time.run(lambda: main(*args))


def now() -> datetime:
    """Return what the wall clock of the virtual run shows, as an aware datetime in UTC.

    Raises `VirtualTimeError` outside of a virtual run.
    """
    here = virtual()
    if here is None:
        raise VirtualTimeError(
            "now() tells the time of a virtual run, and there is none here: call it from what"
            " sitq.testing.run runs, or use datetime.now(timezone.utc)"
        )
    return datetime.fromtimestamp(0, UTC) + timedelta(
        milliseconds=here.start_ms, seconds=here.seconds()
    )


@contextmanager
def _inside(here: Virtual) -> Generator[None]:
    token = run_of_caller.set(here)
    try:
        with here.at_end:
            yield
    finally:
        run_of_caller.reset(token)


def _start_ms(start: object) -> int:
    first = datetime(1970, 1, 1, tzinfo=UTC)
    if not isinstance(start, datetime) or start.utcoffset() is None or start < first:
        raise ValidationError(
            "start must be an aware datetime from 1970 on, such as"
            f" datetime(2030, 1, 1, tzinfo=timezone.utc), not {start!r}"
        )
    return validation.eta_ms(start)


def _time(backend: object) -> Callable[[Callable[[], float], float], VirtualTime]:
    if backend == "asyncio":
        from sitq.testing.virtual.on_asyncio import AsyncioTime

        return AsyncioTime
    if backend == "trio":
        from sitq.testing.virtual.on_trio import TrioTime

        return TrioTime
    raise ValidationError(f"backend must be 'asyncio' or 'trio', not {backend!r}")


def _refuse_a_running_loop() -> None:
    try:
        current_loop()
    except NoEventLoopError:
        return
    raise VirtualTimeError(
        "an event loop runs here already, and run() brings one of its own: call it from a plain"
        " function, or await main(...) where you are"
    )
