"""What a workload has in hand: a peer, its size, and worker processes."""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks import loop
from benchmarks.job import Job, Size
from benchmarks.marks import COUNT, FIRST, LAST, PID, Marks
from benchmarks.peers import PEERS

PATIENCE = 60.0
"""Seconds after which what should have happened is given up."""


class Crew:
    """Worker processes, which are killed when they are no longer wanted."""

    def __init__(self, job: Job, marks: Marks, start: loop.Start) -> None:
        self._job = job
        self._start = start
        self._failure: Exception | None = None
        self._marks = marks
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def hire(self, count: int, slots: int) -> None:
        """Start *count* of them, and let them begin once all are ready."""
        for index in range(count):
            self._processes.append(self._started(index, slots))
        await self.until(lambda: self._marks.of_workers(PID)[:count] == self.pids, "get ready")
        self._marks.go()

    def _started(self, index: int, slots: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.work", self._job.text(), str(index)]
        with Path(self._job.folder, "workers.log").open("ab") as log:
            return subprocess.Popen([*command, str(slots)], stdout=log, stderr=log)

    def hire_here(self, work: loop.Job) -> None:
        """Let a worker run in this process, beside what is measured."""

        async def try_to() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # raised where somebody waits for it
                self._failure = error

        self._start(try_to)

    async def until(self, condition, what: str) -> None:
        """Wait for *condition*; raise if a worker ends, or if it takes too long."""
        began = time.monotonic()
        while not condition():
            if self._failure is not None:
                raise self._failure
            if any(process.poll() is not None for process in self._processes):
                raise RuntimeError(f"a worker has ended:\n{self._last_words()}")
            if time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"the workers did not {what}:\n{self._last_words()}")
            await loop.sleep(0.002)

    def dismiss(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()
        self._marks.clear()

    def _last_words(self) -> str:
        return Path(self._job.folder, "workers.log").read_text(encoding="utf-8")[-3000:]


class Bench:
    def __init__(self, job: Job, size: Size, start: loop.Start) -> None:
        self.job = job
        self.size = size
        self.peer = job.make_peer()
        self.marks = Marks(job.marks)
        self.crew = Crew(job, self.marks, start)
        self.start = start

    @property
    def slots(self) -> int:
        return self.peer.slots

    @property
    def most(self) -> int:
        return PEERS[self.job.peer].most

    def done(self) -> int:
        return sum(self.marks.of_workers(COUNT))

    async def drained(self, count: int, limit: float) -> float:
        """Wait until *count* tasks have begun, or for *limit*; return how many began in a second."""
        await self.crew.until(self.done, "begin the first task")
        over = time.monotonic() + limit
        while self.done() < count and time.monotonic() < over:
            await loop.sleep(0.002)
        done, now = self.done(), time.monotonic_ns()
        if done < 2:
            raise RuntimeError(f"of {count:,} tasks {done} began in {limit} s: were they there?")
        first = min(at for at in self.marks.of_workers(FIRST) if at)
        # If it was cut off, a pause at its end counts as well.
        last = max(self.marks.of_workers(LAST)) if done >= count else now
        return (done - 1) / max(last - first, 1) * 1e9

    async def rate_of(
        self,
        count: int,
        *,
        processes: int = 1,
        slots: int | None = None,
        limit: float | None = None,
    ) -> float:
        """Return how fast new workers drain the *count* tasks that wait."""
        await self.crew.hire(processes, slots or self.slots)
        rate = await self.drained(count, limit or self.size.limit)
        self.crew.dismiss()
        return rate
