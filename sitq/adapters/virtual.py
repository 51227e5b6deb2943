"""Whether the caller is inside a virtual run, and by which clock and dice it goes there.

A virtual run is what `sitq.testing.run` makes: an event loop in which time passes only when
nothing else can happen, and nothing is left to chance. Outside of one, `virtual()` is None and
the clocks, the dice and the threads are the real ones. Whoever reads a clock, rolls dice or
would start a thread asks here first.

It is a context variable: a thread that is none of the run's own goes by what is real.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

_WHOLE: Final = 0.001
"""Milliseconds by which a time may miss a whole one: a float cannot say 1.001 s exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Virtual:
    """One virtual run.

    *seconds* tells the time since its start, *skip* lets some pass in which nothing happens;
    *unit* is its only source of chance. What is in *at_end* is closed once its loop is over.
    """

    start_ms: int
    epoch: str
    seconds: Callable[[], float]
    skip: Callable[[float], None]
    unit: Callable[[], float]
    at_end: ExitStack = field(default_factory=ExitStack)

    def lease_ms(self) -> int:
        return math.floor(self.seconds() * 1000 + _WHOLE)

    def wall_ms(self) -> int:
        return self.start_ms + self.lease_ms()


run_of_caller: Final[ContextVar[Virtual | None]] = ContextVar("sitq_virtual", default=None)


def virtual() -> Virtual | None:
    """Return the virtual run that the caller is in."""
    return run_of_caller.get()
