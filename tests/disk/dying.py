"""A program: real processes that die at each call, alone or beside one that goes on.

Run by a test, in a Python without threads: threads and forks do not mix. A child is forked before
anybody has the file open, since connections do not live through a fork; it dies by `os._exit`, and
what it leaves is what the operating system has. Prints a line of JSON.
"""

import contextlib
import itertools
import json
import os
import sys
import time
from pathlib import Path

from sitq.adapters import clocks, sqlite as adapter
from sitq.protocol.ops import Moment
from tests.disk import vfs
from tests.disk.crashing import record
from tests.disk.files import files_of, new_folder
from tests.disk.judging import Judge, broken, play, store_on
from tests.disk.recorder import Recorder
from tests.disk.scenarios import NAME, Scenario, scenario_named
from tests.disk.vfs import Call

FINISHED = 7
"""How a child ends that came to its end alive."""


class Dies(Recorder):
    """A recorder whose process ends before or after call *n*; *acks* hears of each answer."""

    def __init__(self, n: int, when: str, acks: int) -> None:
        super().__init__((), keep=False)
        self._at = (n, when)
        self._acks = acks

    def before(self, call: Call) -> int | None:
        code = super().before(call)
        if self.counts and self._at == (self.n, "before"):
            os._exit(0)
        return code

    def after(self, call: Call, code: int) -> None:
        if self.counts and self._at == (self.n, "after"):
            os._exit(0)

    def answered(self, what: str) -> None:
        os.write(self._acks, b"a")


class Child:
    """A process that opens the store, waits for `go`, does the scenario, and dies in the midst."""

    def __init__(self, scenario: Scenario, folder: Path, n: int, when: str) -> None:
        self._pipes = (*os.pipe(), *os.pipe())
        go, self._say_go, self._heard, say = self._pipes
        self._acked = sum(step.changes for step in scenario.steps[: scenario.first])
        self._pid = os.fork()
        if self._pid == 0:
            try:
                vfs.forget_dice()
                store = store_on(folder)
                for step in scenario.steps[: scenario.first]:
                    step.do(store)
                os.write(say, b"r")
                os.read(go, 1)
                for _ in play(scenario, store, Dies(n, when, say), start=scenario.first):
                    pass
                os._exit(FINISHED)
            finally:
                os._exit(1)
        os.read(self._heard, 1)

    def die(self) -> tuple[bool, int]:
        """Let it run; return whether it died at its point, and how many steps were answered."""
        os.write(self._say_go, b"g")
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        assert code in {0, FINISHED}, f"the child failed with {code}"
        os.write(self._pipes[3], b"end")
        acked = self._acked + len(os.read(self._heard, 100)) - len(b"end")
        for pipe in self._pipes:
            os.close(pipe)
        return code == 0, acked


def alone(scenario: Scenario) -> tuple[int, list[str]]:
    """Compare what each child leaves with what the recorder says is left."""
    problems = []
    image = scenario.prepared()
    points = [p for p in record(scenario) if not p.call.kind.startswith("answer")]
    for point in points:
        with new_folder(image) as folder:
            child = Child(scenario, folder, point.n, point.when)
            died, acked = child.die()
            # An empty file may be sitq's own making, before SQLite opens it: no VFS sees that.
            left = tuple(file for file in files_of(folder) if file != (NAME, b""))
            told = tuple(file for file in point.disk.killed() if file != (NAME, b""))
            if not died or acked != point.acked or left != told:
                problems.append(f"{scenario.name}, killed {point}: other files")
    return len(points), problems


def beside_another(scenario: Scenario) -> tuple[int, list[str]]:
    """Let another process, which had the file open all the time, go on after each death."""
    image = scenario.prepared()
    judge = Judge(scenario)
    tried, problems = 0, []
    for n, when in ((n, when) for n in itertools.count(1) for when in ("before", "after")):
        with new_folder(image) as folder:
            child = Child(scenario, folder, n, when)
            with contextlib.closing(store_on(folder)) as store:
                db = store.open()
                died, acked = child.die()
                if not died:
                    break
                tried += 1
                index = judge.index(db)
                store.tidy()
                problem = judge.asked_again(store, index or 0)
                store.tidy()
                problem = problem or broken(db)
            if problem or index not in {acked, acked + 1}:
                problems.append(
                    f"{scenario.name}, killed {when} call {n}: state {index} after {acked} answers;"
                    f" {problem}"
                )
    return tried, problems


KINDS = {"alone": alone, "beside": beside_another}


def main(kind: str, *names: str) -> None:
    vfs.install()
    skipped = 0.0

    def sleep(seconds: float) -> None:
        nonlocal skipped
        skipped += seconds

    clocks.sleep = clocks.step_aside = sleep
    clocks.monotonic = lambda: time.monotonic() + skipped
    clocks.moment = lambda: Moment(1_700_000_000_000, 50_000, "boot")
    adapter.CHECKPOINT_AT = 8192
    adapter.needs_gate = lambda version: True
    tried, problems = 0, []
    for name in names:
        how_many, found = KINDS[kind](scenario_named(name))
        tried += how_many
        problems += found
    vfs.raise_what_broke()
    print(json.dumps({"tried": tried, "problems": problems}))


if __name__ == "__main__":
    main(*sys.argv[1:])
