"""Whether a worker that lives is let be, however busy it and the machine are."""

import signal
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from sitq import SQLiteBackend, SyncTaskQueue, Task
from sitq.testing.simulation.history import Kind
from torture import tasks
from torture.crew import Crew, Process
from torture.waiting import wait_until
from torture.witness import Record, read

LEASE: Final = 3.0
"""Seconds: short, so that it must be renewed often while all is busy."""


class Alive(NamedTuple):
    """*started_again* counts the tasks that were taken from a worker that lived."""

    tasks: int
    started_again: int
    leases_lost: int


def left_alone(seconds: float, hogs: int, count: int) -> Alive:
    """Keep a worker's loop busy for *seconds* under full load; say what was taken from it.

    It holds *count* tasks meanwhile, and *hogs* processes keep the processors busy. Another worker
    looks at it all the time, and would take its tasks if it could.
    """
    crew = Crew(Path(tempfile.mkdtemp(prefix="sitq-alive-")))
    try:
        with SyncTaskQueue(SQLiteBackend(crew.path)) as queue:
            holder = crew.start("worker", "asyncio", count + 1, LEASE)
            queue.enqueue_many([Task(tasks.short, n, seconds + 5.0) for n in range(count)])
            wait_until(lambda: len(_of(crew, holder, Kind.START)) >= count)
            # Before there is another worker, which might take it.
            blocker = queue.enqueue(tasks.spins, count, seconds)
            wait_until(lambda: _of(crew, holder, Kind.BLOCKED))
            for _ in range(hogs):
                crew.start("hog")
            watcher = crew.start("worker", "trio", 1, LEASE)
            wait_until(lambda: _of(crew, watcher, Kind.HELD))
            assert queue.get_result(blocker, timeout=seconds * 10 + 60) is not None
            wait_until(lambda: len(_of(crew, holder, Kind.TOLD)) > count, seconds + 120)
        for worker in (holder, watcher):
            worker.ask_to_stop(signal.SIGTERM, 5.0)
            worker.bury()
        starts = [*_of(crew, holder, Kind.START), *_of(crew, watcher, Kind.START)]
        lost = [*_of(crew, holder, Kind.LET_GO), *_of(crew, watcher, Kind.LET_GO)]
        return Alive(count + 1, len(starts) - len({record.task for record in starts}), len(lost))
    finally:
        crew.close()


def _of(crew: Crew, worker: Process, kind: Kind) -> list[Record]:
    return [record for record in read(crew.witness_of(worker.name)) if record.kind is kind]
