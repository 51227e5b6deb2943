"""A month of 100,000 tasks in virtual time: how long it takes, and whether it is always the same.

    python benchmarks/virtual_month.py [--trio] [--tasks N] [--seed N]

Each task is due at a minute of the month, by chance, and then sleeps for up to an hour: some 70 of
them sleep at any time, in one worker that has room for 100. What is printed last is the digest of
who ended when; it is the same for the same seed, on any machine.
"""

import argparse
import hashlib
import random
import time
from dataclasses import dataclass
from datetime import timedelta

import anyio

from sitq import MemoryBackend, Task, TaskQueue, Worker, testing

DAYS = 30
MINUTES = DAYS * 24 * 60
TASKS = 100_000
AT_ONCE = 1000
"""Tasks in one transaction when they are enqueued."""

_digest = hashlib.sha256()
_ended = 0


@dataclass(frozen=True)
class Month:
    """*took* is in real seconds."""

    tasks: int
    digest: str
    until: str
    took: float


async def work(number: int, minutes: int) -> int:
    global _ended  # noqa: PLW0603  # it is what the tasks of this one run have in common
    await anyio.sleep(60 * minutes)
    _digest.update(f"{testing.now()} {number}\n".encode())
    _ended += 1
    return number


async def month(tasks: int, span: timedelta) -> str:
    queue = TaskQueue(MemoryBackend())
    chance = random.Random(1)
    minutes = int(span / timedelta(minutes=1))
    start = testing.now()
    for first in range(0, tasks, AT_ONCE):
        await queue.enqueue_many(
            Task(work, number, chance.randrange(1, 61)).using(
                eta=start + timedelta(minutes=chance.randrange(minutes))
            )
            for number in range(first, min(tasks, first + AT_ONCE))
        )
    async with Worker(queue.backend, max_concurrency=100, lease_for=86400):
        await anyio.sleep(span.total_seconds() + 86400)
    return str(testing.now())


def measure(loop: str, tasks: int = TASKS, seed: int = 0) -> Month:
    """Run a month with as many tasks in a minute as the whole one has."""
    global _digest, _ended
    _digest, _ended = hashlib.sha256(), 0
    began = time.perf_counter()
    span = timedelta(minutes=max(1, MINUTES * tasks // TASKS))
    until = testing.run(month, tasks, span, backend=loop, seed=seed)
    return Month(_ended, _digest.hexdigest()[:16], until, time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trio", action="store_true")
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    done = measure("trio" if asked.trio else "asyncio", asked.tasks, asked.seed)
    print(
        f"{done.tasks:,} tasks until {done.until} in {done.took:.1f} s, {done.digest}",
        flush=True,
    )


if __name__ == "__main__":
    # Under its own name, so that tasks are stored by reference, and find what they share.
    import virtual_month

    virtual_month.main()
