"""Tasks in a second: enqueued, drained, and both where much waits or has ended already."""

import os
import statistics
import time
from functools import partial

from benchmarks import loop
from benchmarks.bench import Bench
from benchmarks.disk import DiskWatch
from benchmarks.peers.base import AT_ONCE, NOTHING

CALLERS = 100
FEW = 1000
REPEATED = 5
"""A second of a shared disk, and fifty ms of a shared processor, say little."""
MOST_RATE = 50_000
"""Nobody drains more in a second."""


async def enqueue_one(bench: Bench) -> dict[str, float]:
    return {"rate": await _one_by_one(bench)}


async def _one_by_one(bench: Bench) -> float:
    await bench.peer.enqueue(*NOTHING)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < bench.size.seconds:
        await bench.peer.enqueue(*NOTHING)
        count += 1
    return count / (time.perf_counter() - began)


async def enqueue_100(bench: Bench) -> dict[str, float]:
    count = 0

    async def call(until: float) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await bench.peer.enqueue_among_many(*NOTHING)
            count += 1

    await loop.together([partial(call, time.perf_counter())])  # it connects
    await bench.peer.enqueue(*NOTHING)
    count, began = 0, time.perf_counter()
    await loop.together([partial(call, began + bench.size.seconds)] * CALLERS)
    return {"rate": count / (time.perf_counter() - began)}


async def enqueue_bulk(bench: Bench) -> dict[str, float]:
    await bench.peer.enqueue_many([NOTHING])
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < bench.size.seconds:
        await bench.peer.enqueue_many([NOTHING] * AT_ONCE)
        count += AT_ONCE
    return {"rate": count / (time.perf_counter() - began)}


async def drain(bench: Bench, *, processes: int = 1) -> dict[str, float]:
    count = min(bench.size.backlog, bench.most)
    await bench.peer.fill(count)
    return {"rate": await bench.rate_of(count, processes=processes)}


async def drain_serial(bench: Bench) -> dict[str, float]:
    count = min(bench.size.backlog // 5, bench.most)
    await bench.peer.fill(count)
    return {"rate": await bench.rate_of(count, slots=1)}


async def compute(bench: Bench) -> dict[str, float]:
    rates = []
    for processes in (1, 2):
        count = processes * bench.size.backlog // 20
        await bench.peer.feed([("compute", 0)] * count)
        rates.append(await bench.rate_of(count, processes=processes))
    return {"one": rates[0], "two": rates[1], "scaling": rates[1] / rates[0]}


async def backlog(bench: Bench) -> dict[str, float]:
    """Drain as many of what is little and of what is much; and of what is much, for longer."""
    few = min(FEW, bench.size.deep)
    little = await _in_bursts(bench, few)
    await bench.peer.fill(bench.size.deep)
    os.sync()  # what filled the store is no part of what is measured
    long = await bench.rate_of(bench.size.deep)
    much = await _in_bursts(bench, few)
    return {"few": little, "many": much, "kept": much / little, "long": long}


async def _in_bursts(bench: Bench, count: int) -> float:
    """Return how fast *count* tasks are drained, which are enqueued before."""
    rates = []
    for _ in range(REPEATED):
        await bench.peer.fill(count)
        rates.append(await bench.rate_of(count))
    return statistics.median(rates)


async def history(bench: Bench) -> dict[str, float]:
    """Enqueue one by one, into an empty store and into one that has kept much."""
    empty = await _again_and_again(bench)
    await bench.peer.retire(bench.size.deep)
    os.sync()  # as above
    full = await _again_and_again(bench)
    return {"none": empty, "many": full, "kept": full / empty}


async def _again_and_again(bench: Bench) -> float:
    return statistics.median([await _one_by_one(bench) for _ in range(REPEATED)])


async def stalls(bench: Bench) -> dict[str, float]:
    """Look for the longest pause between two tasks, while what has ended is pruned."""
    await bench.peer.retire(bench.size.deep)
    before = await bench.peer.retired()
    count = int(MOST_RATE * bench.size.stalls)
    await bench.peer.fill(count)
    with DiskWatch(bench.job.folder) as disk:
        await bench.crew.hire(1, bench.slots)
        began = time.monotonic()
        rate = await bench.drained(count, bench.size.stalls)
        took = time.monotonic() - began
    pruned = before - await bench.peer.retired()
    pauses = bench.marks.pauses()
    quiet = [ns for span, ns in pauses.items() if disk.was_quick(span)]
    return {
        "gap": max(pauses.values()) / 1e6,
        **({"quiet": max(quiet) / 1e6} if quiet else {}),
        "disk": disk.longest,
        "rate": rate,
        "pruned": max(pruned, 0) / took,
    }
