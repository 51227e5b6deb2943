"""Real processes on one file, and the witness that they leave."""

import importlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sitq.protocol.lifecycle import TaskState
from sitq.testing.simulation.history import Event, Kind
from sitq.testing.simulation.invariants import Checker, Violation

HERE = Path(__file__).parent


@pytest.fixture
def tasks(monkeypatch):
    """The module of the tasks, under the name by which the workers import it."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("witness_tasks")


class Crew:
    """Worker and producer processes on one file, ended for certain at the end of a test."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "tasks.db")
        self.log = str(folder / "witness.log")
        self._errors = folder / "errors.log"
        self._all: list[subprocess.Popen[str]] = []
        self._kills: list[Event] = []

    def worker(self, loop="asyncio", slots=8, lease_for=30.0) -> subprocess.Popen[str]:
        return self._start("run_worker.py", self.path, loop, slots, lease_for)

    def producer(self, first: int, count: int) -> subprocess.Popen[str]:
        return self._start("run_producer.py", self.path, self.log, first, count)

    def _start(self, script: str, *args: object) -> subprocess.Popen[str]:
        with self._errors.open("a") as errors:
            process = subprocess.Popen(
                [sys.executable, str(HERE / script), *map(str, args)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._all.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill a process, and note when."""
        self._kills.append(Event(time.monotonic(), Kind.KILLED, str(process.pid)))
        process.kill()
        process.wait()

    def stop(self, process: subprocess.Popen[str]) -> int:
        """Ask a worker to stop by closing its input; return its exit code."""
        process.stdin.close()
        return process.wait(20)

    def end(self) -> None:
        for process in self._all:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
                process.kill()
            process.wait()
            process.stdout.close()
            process.stdin.close()

    # -- what they left behind -----------------------------------------------------------

    def errors(self) -> str:
        return self._errors.read_text() if self._errors.exists() else ""

    def witnessed(self, word: str) -> Counter[int]:
        """How often each number was started, or ended."""
        try:
            lines = Path(self.log).read_text().splitlines()
        except FileNotFoundError:
            return Counter()
        return Counter(int(line.split()[1]) for line in lines if line.startswith(word + " "))

    def count(self, where: str = "1") -> int:
        with closing(sqlite3.connect(self.path, timeout=30)) as db:
            return db.execute(f"SELECT count(*) FROM sitq_tasks WHERE {where}").fetchone()[0]

    def wait_until(self, condition, seconds: float = 40.0) -> float:
        """Wait for *condition*; return the seconds that it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, f"not in {seconds} s: {self.errors()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def wait_drained(self) -> None:
        waiting = "state NOT IN ('success', 'failed', 'cancelled')"
        self.wait_until(lambda: self.count(waiting) == 0)

    def violations(
        self, acknowledged: Mapping[str, int], *, asked: Iterable[int] = (), calm: bool = False
    ) -> list[Violation]:
        """Judge what was witnessed by the simulator's own invariants.

        *acknowledged* are the numbers of the tasks, by id, whose enqueue has returned; *asked* those
        that a producer may have been enqueueing when it was killed.
        """
        ids = {number: task_id for task_id, number in acknowledged.items()}
        maybe = tuple(f"unknown {number}" for number in asked)
        history = [Event(0.0, Kind.ENQUEUE, value=(*ids.values(), *maybe))]
        history += [Event(0.0, Kind.ENQUEUED, value=tuple(ids.values()))]
        seen = [*self._kills]
        for line in Path(self.log).read_text().splitlines():
            word, number, pid, time_ns = line.split()
            task_id = ids.get(int(number), f"unknown {number}")
            at, value = int(time_ns) / 1e9, ("", None) if word == "start" else "returned"
            kind = Kind.START if word == "start" else Kind.END
            seen.append(Event(at, kind, pid, task_id, len(seen), value))
        history += sorted(seen, key=lambda event: event.at)
        with closing(sqlite3.connect(self.path, timeout=30)) as db:
            states = dict(db.execute("SELECT id, state FROM sitq_tasks"))
        for task_id in ids.values():
            state = states.get(task_id)
            state = None if state is None else TaskState(state)
            history.append(Event(time.monotonic(), Kind.STANDS, task=task_id, value=state))
        history.append(Event(time.monotonic(), Kind.SOUND, value=self.integrity() == "ok"))
        history.append(Event(time.monotonic(), Kind.QUIET))
        return Checker(calm=calm).check(history)

    def integrity(self) -> str:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute("PRAGMA integrity_check").fetchone()[0]


@pytest.fixture
def crew(tmp_path):
    crew = Crew(tmp_path)
    yield crew
    crew.end()
