"""What the tasks of all peers do. Each peer registers one of these two, and nothing else."""

import time

from benchmarks import loop, marks

LONG = 3600.0
WORK = 40_000
"""Steps of a task that computes: about a millisecond."""


async def act(what: str, number: int) -> int:
    """Leave a mark, and do *what* is asked."""
    if what == "wait":
        marks.here.tick()
        await loop.sleep(LONG)
    return act_now(what, number)


def act_now(what: str, number: int) -> int:
    """Do the same in a thread, for libraries that have no async tasks."""
    if what == "stamp":
        marks.here.stamp(number, time.monotonic_ns())
        return number
    if what == "compute":
        sum(i for i in range(WORK))
    return marks.here.tick()


async def answer() -> int:
    """Do nothing at all: for counts, where no mark is needed."""
    return 42
