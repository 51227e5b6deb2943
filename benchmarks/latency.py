"""How soon another process starts a task, and how soon its caller has the result.

    python benchmarks/latency.py [--loop asyncio|trio] [--tasks N] [--poll SECONDS] [--bare]

A worker runs in a process of its own, and is idle when each task is enqueued. Printed are the
milliseconds from the call of `enqueue` to the first line of the task (pickup), and to the return of
`result` (round trip). With `--bare` the same is done without bells, by polling alone, for comparison.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import anyio

from sitq import SQLiteBackend, TaskQueue, Worker
from sitq.adapters import bells
from sitq.adapters.bells import NoBells

PAUSE = 0.03
"""Seconds between two tasks: the worker has nothing to do then."""


def started() -> int:
    return time.monotonic_ns()


def without_bells() -> None:
    bells.SocketFiles.hang = NoBells.hang
    bells.SocketFiles.ring = NoBells.ring


async def work(path: str, poll: float) -> None:
    await Worker(SQLiteBackend(path), poll_interval=poll).start()


async def measure(path: str, tasks: int) -> None:
    pickups, trips = [], []
    async with SQLiteBackend(path) as backend:
        queue = TaskQueue(backend)
        await queue.result(await queue.enqueue(started))
        for _ in range(tasks):
            await anyio.sleep(PAUSE)
            called = time.monotonic_ns()
            began = await queue.result(await queue.enqueue(started))
            trips.append((time.monotonic_ns() - called) / 1e6)
            pickups.append((began - called) / 1e6)
    for name, times in (("pickup", pickups), ("round trip", trips)):
        times.sort()
        p50, p95, p99 = (times[int(len(times) * q)] for q in (0.5, 0.95, 0.99))
        print(f"{name:10}  p50 {p50:8.2f} ms  p95 {p95:8.2f} ms  p99 {p99:8.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--poll", type=float, default=1.0, help="the worker's poll_interval")
    parser.add_argument("--bare", action="store_true", help="without bells")
    parser.add_argument("--work", help=argparse.SUPPRESS)  # the file, in the worker's process
    options = parser.parse_args()
    if options.bare:
        without_bells()
    if options.work:
        anyio.run(partial(work, options.work, options.poll), backend=options.loop)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "tasks.db")
        again = [sys.executable, __file__, *sys.argv[1:], "--work", path]
        worker = subprocess.Popen(again)
        try:
            anyio.run(partial(measure, path, options.tasks), backend=options.loop)
        finally:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    main()
