"""What a process holds, and whether that grows."""

import gc
import os
import resource
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from sitq import Worker
from tests.soak.tasks import live

MIB = 2**20


@dataclass
class Sample:
    """At one moment, between two batches."""

    at: float
    tasks: int
    rss: int  # bytes
    descriptors: int
    threads: int
    wal: int  # bytes
    objects: int  # all that the garbage collector knows
    tracked: int  # arguments and results of tasks that have ended
    ours: Counter = field(default_factory=Counter)  # objects of sitq's own classes, by class
    held: dict[str, int] = field(default_factory=dict)  # what worker and session still keep


def sample(started: float, tasks: int, worker: Worker, path: str) -> Sample:
    gc.collect()
    objects = gc.get_objects()
    ours = Counter(
        type(one).__qualname__ for one in objects if str(type(one).__module__).startswith("sitq.")
    )
    count = len(objects)
    del objects
    return Sample(
        at=time.monotonic() - started,
        tasks=tasks,
        rss=_rss(),
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        wal=os.path.getsize(path + "-wal"),
        objects=count,
        tracked=len(live),
        ours=ours,
        held=held(worker),
    )


def held(worker: Worker) -> dict[str, int]:
    """What is kept for tasks, by place; nothing, where no task waits or runs."""
    driver = worker._driver
    assert driver is not None
    machine, session = driver._machine, driver._session
    return {
        "running": len(machine._running),
        "lingering": machine._lingering,
        "settles": len(machine._settles),
        "asked": len(machine._asked),
        "time limits": len(machine._time_limits),
        "executions": len(driver._executions),
        "inbox": len(driver._inbox),
        "waiters": len(session.hints._waiters),
        "replies": len(session.writer._replies) + len(session.reader._replies),
        "groups": len(session.writer._groups) + len(session.writer._machine._waiting),
    }


def _rss() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@dataclass(frozen=True)
class Bounds:
    """By how much the last sample may exceed the first one after the warm-up."""

    rss: int = 24 * MIB
    objects: int = 3_000
    ours: int = 200  # of one class: time limits that are forgotten in bulk, an answer on its way
    threads: int = 24  # idle ones of the loop, which come and go
    descriptors: int = 8  # connections for checkpoints, which are made when first needed
    wal: int = 12 * MIB  # all of it
    held: int = 1
    time_limits: int = 200


BOUNDS = Bounds()


def growing(first: Sample, last: Sample, bounds: Bounds = BOUNDS) -> list[str]:
    """Say what has grown beyond its bound."""
    found = [
        f"{name}: {before:,} -> {after:,}"
        for name, before, after, most in (
            ("rss", first.rss, last.rss, bounds.rss),
            ("objects", first.objects, last.objects, bounds.objects),
            ("threads", first.threads, last.threads, bounds.threads),
            ("descriptors", first.descriptors, last.descriptors, bounds.descriptors),
            ("wal", 0, last.wal, bounds.wal),
            ("tracked", 0, last.tracked, 0),
        )
        if after - before > most
    ]
    found += [
        f"objects of {name}: {first.ours[name]:,} -> {number:,}"
        for name, number in last.ours.items()
        if number - first.ours[name] > bounds.ours
    ]
    found += [
        f"kept as {name}: {first.held[name]:,} -> {number:,}"
        for name, number in last.held.items()
        if number - first.held[name]
        > (bounds.time_limits if name == "time limits" else bounds.held)
    ]
    return found
