"""A worker under mixed load for so many tasks or minutes, looked at between the batches."""

import time
from collections.abc import Callable

import anyio

from sitq import SQLiteBackend, TaskQueue, Worker
from tests.soak.load import Load
from tests.soak.measure import Sample, held, sample
from tests.soak.tasks import sleep_briefly, stay

WARM_UP = 3
"""Samples at the beginning that are not compared: pools and caches fill."""


async def soak(
    path: str,
    *,
    tasks: int | None = None,
    minutes: float | None = None,
    batch: int = 500,
    every: int = 1,
    told: Callable[[Sample], None] = lambda sample: None,
) -> list[Sample]:
    """Return a sample of every so many batches; the last one is of the very end."""
    started = time.monotonic()
    backend = SQLiteBackend(path, durability="normal", retention=60)
    load = Load(TaskQueue(backend))
    samples: list[Sample] = []
    async with backend, Worker(backend, max_concurrency=32) as worker:
        # One that runs all the while, with a time limit before that of the many others.
        staying = await load.queue.using(timeout=80_000).enqueue(stay)
        done = 0
        while True:
            await load.batch(batch)
            done += 1
            over = _over(load.enqueued, tasks, time.monotonic() - started, minutes)
            if done % every == 0 or over:
                await _quiet(load.queue, worker)
                samples.append(sample(started, load.enqueued, worker, path))
                told(samples[-1])
            if over:
                await load.queue.cancel(staying)
                return samples


def _over(enqueued: int, tasks: int | None, seconds: float, minutes: float | None) -> bool:
    return (tasks is not None and enqueued >= tasks) or (
        minutes is not None and seconds >= minutes * 60
    )


async def _quiet(queue: TaskQueue, worker: Worker) -> None:
    """Wait until nothing is under way any more; what is kept then is kept for good."""
    with anyio.move_on_after(5):
        while any(held(worker)[name] for name in ("settles", "asked", "replies", "groups")):  # noqa: ASYNC110
            await anyio.sleep(0.01)
    # The threads of the stores know their last batch until the next one: be it a small one.
    await queue.get_results(["nobody"])
    await queue.cancel(await queue.using(delay=3600).enqueue(sleep_briefly, None))
