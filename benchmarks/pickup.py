"""Milliseconds from the call of `enqueue` to the first line of the task, and to its result."""

import random
import time
from functools import partial

from benchmarks import loop
from benchmarks.bench import Bench
from benchmarks.figures import quantile
from benchmarks.peers import PEERS

PAUSES = (0.02, 0.05)
"""Seconds between two tasks, at least and at most: the worker is idle when one comes."""
WARM = 5
LIMIT = 10.0
"""Seconds after which there are as many samples as there are."""


async def across(bench: Bench) -> dict[str, float]:
    """The worker is another process."""
    await bench.crew.hire(1, bench.slots)
    return await _measured(bench)


async def inside(bench: Bench) -> dict[str, float]:
    """The worker is in the caller's event loop."""
    bench.crew.hire_here(partial(bench.peer.work_beside, bench.slots))
    return await _measured(bench)


async def _measured(bench: Bench) -> dict[str, float]:
    pickups: list[float] = []
    trips: list[float] = []
    has_result = "result" not in PEERS[bench.job.peer].lacks
    chance = random.Random(7)
    over = time.monotonic() + LIMIT
    for number in range(WARM + bench.size.samples):
        await loop.sleep(chance.uniform(*PAUSES))
        called = time.monotonic_ns()
        handle = await bench.peer.enqueue("stamp", number)
        if has_result:
            await bench.peer.result(handle)
            trips.append((time.monotonic_ns() - called) / 1e6)
        await bench.crew.until(partial(bench.marks.stamped, number), f"begin task {number}")
        pickups.append((bench.marks.stamped(number) - called) / 1e6)
        if time.monotonic() > over and len(pickups) > WARM:
            break
    found = {"p50": quantile(pickups[WARM:], 0.5), "p99": quantile(pickups[WARM:], 0.99)}
    if len(trips) > WARM:
        found["trip p50"] = quantile(trips[WARM:], 0.5)
        found["trip p99"] = quantile(trips[WARM:], 0.99)
    return found
