"""Rounds of faults: in each, one thing is done to the processes at a moment that the seed draws.

Rounds are played in plays of some dozen on one file. Each play ends well: nothing more goes wrong,
what is left is worked off, and the history of all processes is judged.
"""

import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sitq.protocol.lifecycle import FINAL
from torture.crew import Crew, Process
from torture.kept import Kept, kept_in_file
from torture.run_worker import GRACE
from torture.verdict import Verdict, judge
from torture.waiting import wait_until

ROUNDS_PER_PLAY: Final = 25
PAUSE: Final = 0.5
"""Seconds between two rounds, at most."""
WORKERS: Final = 3
PRODUCERS: Final = 2
LEASES: Final = (3.0, 10.0)
"""Seconds: the shorter one runs out while a worker is suspended."""
DRAINED_WITHIN: Final = 90.0
"""Seconds that the rest of a play may take; a planted bug may keep it from ending at all."""
DRAINED_WITH_A_MUTANT: Final = 10.0
_FINAL: Final = ", ".join(sorted(repr(state.value) for state in FINAL))
ENDED: Final = f"SELECT count(*) FROM sitq_tasks WHERE state IN ({_FINAL})"
WAITING: Final = f"SELECT count(*) FROM sitq_tasks WHERE state NOT IN ({_FINAL})"


class Play:
    """Some rounds on one file."""

    def __init__(self, seed: int, folder: Path, mutant: str | None = None) -> None:
        self.crew = Crew(folder, mutant)
        self.faults: Counter[str] = Counter()
        self.kills = 0
        self._dice = random.Random(seed)
        self._starts = 0
        self._patience = DRAINED_WITH_A_MUTANT if mutant else DRAINED_WITHIN

    # -- the processes -------------------------------------------------------------------

    def _worker(self) -> Process:
        dice = self._dice
        loop, slots = dice.choice(("asyncio", "trio")), dice.choice((1, 4, 16))
        return self.crew.start("worker", loop, slots, dice.choice(LEASES))

    def _producer(self) -> Process:
        dice = self._dice
        self._starts += 1
        loop, seed = dice.choice(("asyncio", "trio")), dice.randrange(2**32)
        return self.crew.start("producer", loop, seed, self._starts * 1_000_000, 0.1)

    def _fill_up(self) -> None:
        """Put others in the place of those that are gone."""
        for _ in range(WORKERS - len(self.crew.living("worker"))):
            self._worker()
        for _ in range(PRODUCERS - len(self.crew.living("producer"))):
            self._producer()

    def run(self, rounds: int) -> Verdict:
        try:
            self.begin()
            for _ in range(rounds):
                self.round()
            return self.end()
        finally:
            self.crew.close()

    def begin(self) -> None:
        """Have all at work before anything goes wrong."""
        self._fill_up()
        wait_until(lambda: self._count(ENDED))

    # -- what is done to them ------------------------------------------------------------

    def round(self) -> None:
        """Do one thing to them, at a moment of its own."""
        self._fill_up()
        self._wait(self._dice.random() * PAUSE)
        odds = self._odds()
        (fault,) = self._dice.choices(list(odds), list(odds.values()))
        self.count(fault.__name__)
        fault(self)

    def count(self, fault: str) -> None:
        """Count it, and write down when it was."""
        self.faults[fault] += 1
        with (self.crew.folder / "faults.log").open("a") as log:
            log.write(f"{time.monotonic_ns()} {fault}\n")

    def _odds(self) -> "dict[Callable[[Any], None], int]":
        return FAULTS

    def _wait(self, seconds: float) -> None:
        """Let time pass, and wake the suspended when their time has come."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            self._mend(now)
            if now >= until:
                return
            time.sleep(min(0.01, until - now))

    def _mend(self, now: float) -> None:
        for process in self.crew.all:
            if process.suspended_until is not None and process.suspended_until <= now:
                process.resume()

    def _one(self, kind: str) -> Process:
        self._fill_up()  # a task may have taken the last one down
        return self._dice.choice(self.crew.living(kind))

    def _kill(self, process: Process) -> None:
        self.kills += process.kill()

    def kill_a_worker(self) -> None:
        self._kill(self._one("worker"))

    def kill_a_producer(self) -> None:
        self._kill(self._one("producer"))

    def kill_all_workers(self) -> None:
        for process in self.crew.living("worker"):
            self._kill(process)

    def kill_a_worker_while_it_starts(self) -> None:
        self._kill(self._one("worker"))
        newcomer = self._worker()
        self._wait(self._dice.random() * 0.4)
        self._kill(newcomer)

    def suspend_for_a_moment(self) -> None:
        self._suspend(0.5 * self._dice.random())

    def suspend_beyond_the_lease(self) -> None:
        self._suspend(max(LEASES[0], 3.0) + self._dice.random())

    def _suspend(self, seconds: float) -> None:
        worker = self._one("worker")
        if worker.suspended_until is None:
            worker.suspend(seconds)

    def sigterm(self) -> None:
        self._ask_to_stop(signal.SIGTERM, 1)

    def sigint_twice(self) -> None:
        self._ask_to_stop(signal.SIGINT, 2)

    def sigterm_three_times(self) -> None:
        self._ask_to_stop(signal.SIGTERM, 3)

    def _ask_to_stop(self, number: int, times: int) -> None:
        worker = self._one("worker")
        for _ in range(times):
            worker.ask_to_stop(number, GRACE)
            self._wait(self._dice.random() * 0.1)

    # -- the end -------------------------------------------------------------------------

    def end(self) -> Verdict:
        """Let all be well, have the rest worked off, and judge."""
        self._mend(float("inf"))
        for producer in self.crew.living("producer"):
            assert producer.popen.stdin is not None
            producer.popen.stdin.close()
        late: list[str] = []  # what was not done in time
        until = time.monotonic() + self._patience
        while any(self.crew.living("producer")) or self._count(WAITING):
            if time.monotonic() > until:
                left = self._count(WAITING)
                late.append(f"L1: {left} tasks were left after {self._patience:g} s")
                break
            self._fill_up_workers()  # a task may still take its worker down
            time.sleep(0.05)
        for worker in self.crew.living("worker"):
            worker.ask_to_stop(signal.SIGTERM, GRACE)
        for process in self.crew.all:
            process.bury()
        return judge(self.crew, self._kept(), late)

    def _kept(self) -> Kept:
        return kept_in_file(self.crew.path)

    def _fill_up_workers(self) -> None:
        for _ in range(WORKERS - len(self.crew.living("worker"))):
            self._worker()

    def _count(self, sql: str) -> int:
        if not self.crew.path.exists():
            return 0
        with closing(sqlite3.connect(self.crew.path, timeout=30)) as db:
            try:
                ((count,),) = db.execute(sql).fetchall()
            except sqlite3.OperationalError:  # the first process has not made the tables yet
                return 0
        return int(count)


FAULTS: Final[dict[Callable[[Play], None], int]] = {
    # in how many of 100 rounds
    Play.kill_a_worker: 40,
    Play.kill_a_producer: 12,
    Play.kill_all_workers: 6,
    Play.kill_a_worker_while_it_starts: 6,
    Play.suspend_for_a_moment: 10,
    Play.suspend_beyond_the_lease: 6,
    Play.sigterm: 8,
    Play.sigint_twice: 6,
    Play.sigterm_three_times: 6,
}


def play(
    seed: int, rounds: int, *, keep: Path | None = None, mutant: str | None = None
) -> tuple[Play, Verdict]:
    """Play *rounds* from *seed*. The files stay in *keep*, if it is given.

    They also stay, in a temporary folder, where something is found and nobody planted it.
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="sitq-torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    played = Play(seed, folder, mutant)
    verdict = played.run(rounds)
    if keep is None and (mutant or not verdict.violations):
        shutil.rmtree(folder)
    return played, verdict
