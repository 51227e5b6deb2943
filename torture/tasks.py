"""The tasks that run under torture: short and long, well and badly behaved."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import anyio

from sitq.testing.simulation.history import Kind
from torture import witness
from torture.witness import Called


def _entered(number: int) -> None:
    witness.note(None, value=Called(number, left=False))


def _left(number: int) -> int:
    witness.note(None, value=Called(number, left=True))
    return number


async def short(number: int, seconds: float) -> int:
    """Sleep, as most tasks do."""
    _entered(number)
    await anyio.sleep(seconds)
    return _left(number)


async def long(number: int, seconds: float) -> int:
    """Sleep for longer than others leave it alone."""
    return await short(number, seconds)


def in_thread(number: int, seconds: float) -> int:
    """Keep a thread."""
    _entered(number)
    time.sleep(seconds)
    return _left(number)


async def blocks(number: int, seconds: float) -> int:
    """Keep the event loop."""
    _entered(number)
    witness.note(Kind.BLOCKED, value=seconds)
    time.sleep(seconds)  # noqa: ASYNC251  # this is what it is for
    return _left(number)


async def spins(number: int, seconds: float) -> int:
    """Keep the event loop, and the interpreter."""
    _entered(number)
    witness.note(Kind.BLOCKED, value=seconds)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return _left(number)


async def fails(number: int, seconds: float) -> int:
    """Fail now and then, so that it is tried again."""
    _entered(number)
    await anyio.sleep(seconds)
    if time.monotonic_ns() % 3:
        raise ValueError(number)
    return _left(number)


async def forks(number: int, seconds: float) -> int:
    """Leave behind a child that outlives this call, and knows nothing of the queue."""
    _entered(number)
    child = os.fork()
    if child == 0:
        time.sleep(seconds)  # noqa: ASYNC251  # no loop goes on in it
        os._exit(0)
    await anyio.to_thread.run_sync(os.waitpid, child, 0)
    return _left(number)


async def poison(number: int, seconds: float) -> int:
    """Take the worker down."""
    _entered(number)
    await anyio.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)
    return _left(number)


STYLES: Final[dict[Callable[..., Any], tuple[int, float]]] = {
    # how often of 1,000 tasks, and for how many seconds at most
    short: (720, 0.05),
    long: (40, 1.0),
    in_thread: (80, 0.05),
    blocks: (20, 0.1),
    spins: (10, 0.1),
    fails: (100, 0.02),
    forks: (20, 0.05),
    poison: (10, 0.02),
}
