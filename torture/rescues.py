"""How long the tasks of a killed worker wait until another one runs them."""

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sitq import SQLiteBackend, SyncTaskQueue
from sitq.testing.simulation.history import Kind
from torture import tasks
from torture.crew import Crew, Process
from torture.waiting import wait_until
from torture.witness import read

LEASE: Final = 3600.0
"""Seconds: nobody is rescued because a lease ran out."""
PROMISED: Final = 2.0
"""Seconds: decisions, promise 5."""
IDLE_UP_TO: Final = 1.0
"""Seconds: the kill comes at any moment of the second between two looks at the peers."""


def rescue_times(count: int, seed: int) -> Iterator[float]:
    """Kill a worker in the middle of a task, *count* times; yield the seconds until it runs again."""
    dice = random.Random(seed)
    crew = Crew(Path(tempfile.mkdtemp(prefix="sitq-rescues-")))
    try:
        with SyncTaskQueue(SQLiteBackend(crew.path), max_crashes=1000) as queue:
            queue.enqueue(tasks.short, 0, LEASE)
            workers = [_worker(crew, dice) for _ in range(2)]
            holder = _wait_for_start(crew, workers, 0)
            for _ in range(count):
                time.sleep(IDLE_UP_TO * dice.random())
                killed_at = time.monotonic_ns()
                holder.kill()
                holder.bury()
                workers = [worker for worker in workers if worker is not holder]
                holder = _wait_for_start(crew, workers, killed_at)
                yield (_started_ns(crew, holder) - killed_at) / 1e9
                workers.append(_worker(crew, dice))
    finally:
        crew.close()


def _worker(crew: Crew, dice: random.Random) -> Process:
    """Start a worker, and wait until it holds its lease: it is there to rescue others."""
    worker = crew.start("worker", dice.choice(("asyncio", "trio")), 1, LEASE)
    wait_until(lambda: any(r.kind is Kind.HELD for r in read(crew.witness_of(worker.name))))
    return worker


def _wait_for_start(crew: Crew, workers: list[Process], since_ns: int) -> Process:
    def started() -> Process | None:
        return next((w for w in workers if _started_ns(crew, w) > since_ns), None)

    wait_until(lambda: started() is not None)
    found = started()
    assert found is not None
    return found


def _started_ns(crew: Crew, worker: Process) -> int:
    """Return when *worker* last started a task, 0 if it has not."""
    starts = (r.ns for r in read(crew.witness_of(worker.name)) if r.kind is Kind.START)
    return max(starts, default=0)
