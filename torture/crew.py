"""The processes of a run: they are started, signalled and buried here, and each of it is noted."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sitq.testing.simulation.history import Kind
from torture.witness import FILE, MUTANT, WRONG_BY, Record

ROOT: Final = Path(__file__).parent.parent
GONE_WITHIN: Final = 20.0
"""Seconds that a process may take to end, before the run is given up."""


@dataclass(eq=False)
class Process:
    """One life of a process, and what was done to it."""

    name: str
    kind: str
    popen: subprocess.Popen[bytes]
    started_at: float
    done_to_it: list[Record] = field(default_factory=list)
    signals: int = 0
    """How often it was asked to stop."""
    suspended_until: float | None = None
    was_killed: bool = False
    stopped_at: float | None = None
    _suspended_ns: int = 0

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def note(self, kind: Kind, value: object = None) -> None:
        self.done_to_it.append(Record(time.monotonic_ns(), kind, value=value))

    def kill(self) -> bool:
        """Send SIGKILL; return False if it had died by itself."""
        before = Record(time.monotonic_ns(), Kind.KILLED)
        if not self.is_alive():
            return False
        self.was_killed = True
        self.done_to_it.append(before)
        self._signal(signal.SIGKILL)
        return True

    def ask_to_stop(self, number: int, grace: float) -> None:
        """Send SIGTERM or SIGINT: the first leaves *grace* seconds, the second none, the third kills.

        Of one that has died by itself nothing is noted: a death that is written down too late would
        come after the rescue that it explains.
        """
        before = time.monotonic_ns()
        if not self.is_alive():
            return
        self.signals += 1
        if self.signals == 1:
            self.stopped_at = time.monotonic()
        if self.signals == 3:
            self.done_to_it.append(Record(before, Kind.KILLED))
        elif self.signals < 3:
            self.note(Kind.STOP_ASKED, grace if self.signals == 1 else 0.0)
        self._signal(number)

    def suspend(self, seconds: float) -> None:
        self._suspended_ns = time.monotonic_ns()
        self.suspended_until = time.monotonic() + seconds
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; only now it is known for how long it was suspended."""
        self._signal(signal.SIGCONT)
        seconds = (time.monotonic_ns() - self._suspended_ns) / 1e9
        self.done_to_it.append(Record(self._suspended_ns, Kind.PAUSED, value=seconds))
        self.suspended_until = None

    def bury(self) -> int:
        """Wait for its end; return its exit code."""
        code = self.popen.wait(GONE_WITHIN)
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                stream.close()
        return code

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.popen.send_signal(number)


class Crew:
    """All processes on one file in *folder*; none of them outlives it.

    A *mutant* is a bug of the simulator's list, which is planted in each of them.
    """

    def __init__(self, folder: Path, mutant: str | None = None) -> None:
        self.folder = folder
        self._set = {} if mutant is None else {MUTANT: mutant}
        self.path = folder / "tasks.db"
        self.errors = folder / "errors.log"
        self.all: list[Process] = []

    def start(
        self,
        kind: str,
        *args: object,
        where: str = "",
        clock: float = 0.0,
        watched: bool = True,
    ) -> Process:
        """Start `torture.run_<kind>` with *args* on the file, or on another store.

        Its wall clock is wrong by *clock* seconds. Unless it is *watched*, it is as in production.
        """
        name = f"{kind[0]}{len(self.all)}"
        where = where or str(self.path)
        command = [sys.executable, "-m", f"torture.run_{kind}", where, *map(str, args)]
        own = {FILE: str(self.witness_of(name)), WRONG_BY: str(clock)} if watched else {}
        with self.errors.open("a") as errors:
            popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | self._set | own,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        process = Process(name, kind, popen, time.monotonic())
        self.all.append(process)
        return process

    def witness_of(self, name: str) -> Path:
        return self.folder / f"{name}.witness"

    def living(self, kind: str) -> list[Process]:
        return [process for process in self.all if process.kind == kind and process.is_alive()]

    def close(self) -> None:
        """End all that is still there."""
        for process in self.all:
            if process.is_alive():
                process.popen.send_signal(signal.SIGCONT)
                process.popen.kill()
            process.bury()
