"""Records what the machines of a worker hear and how they answer, for `sitq replay`.

The promises:
- Nothing that goes wrong here hurts the worker: it ends the recording, with one line in the log.
- What is recorded is one order of what two threads hear, and complete from each `Begin` on: that
  of a run, or another one with all that the machines know, once the file is full.

The lock is held while a machine decides, and never while anything is written.
"""

import logging
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from sitq.adapters import clocks
from sitq.adapters.ids import new_id
from sitq.adapters.recording import (
    Begin,
    Heard,
    begin_line,
    digest,
    encoded,
    heard_line,
    known_names,
    line,
    raised,
    state_of,
)
from sitq.adapters.recording_files import Files, Writer
from sitq.protocol.lease import LeaseConfig, LeaseEffect, LeaseEvent, LeaseMachine
from sitq.protocol.worker import (
    TurnEnded,
    WorkerConfig,
    WorkerEffect,
    WorkerEvent,
    WorkerMachine,
)

log: Final = logging.getLogger("sitq.recording")

LIMIT: Final = 16 * 2**20
"""Bytes that the recording may have on the disk."""

SPARE: Final = 0.25
"""Of a file, for what is heard in one turn after it was found to be full."""

E = TypeVar("E")
F = TypeVar("F")


class Recorder:
    """The recording of one run: its machines are made here, and tell it what they hear.

    *worker_now* is the time on the clock of the worker's machine.
    """

    def __init__(self, path: str, *, worker_now: float, limit: int = LIMIT) -> None:
        self.lock = threading.Lock()
        self._start = Begin(
            sitq=str(sys.modules["sitq"].__version__),  # an import would go upwards
            run=new_id(),
            wall_ms=clocks.wall_ms(),
            clocks={"worker": worker_now, "lease": clocks.lease_seconds()},
            config={},
            state={},
        )
        self._machines: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self._lines: list[str] = []
        self._drawn: list[float] = []
        self._begun = 0
        self._size = 0  # of what was written since
        self._over = False
        self._files = Files(path, limit)
        self._writer = Writer(self._files)

    def worker(self, config: WorkerConfig, unit: Callable[[], float]) -> WorkerMachine:
        machine = RecordedWorker(config, unit, self)
        self._machines["worker"] = machine, known_names(WorkerMachine(config, unit))
        return machine

    def lease(self, config: LeaseConfig) -> LeaseMachine:
        machine = RecordedLease(config, self)
        self._machines["lease"] = machine, known_names(LeaseMachine(config))
        return machine

    def drawn(self, number: float) -> float:
        """Note a number that was drawn by the machine which decides just now."""
        self._drawn.append(number)
        return number

    def step(
        self, name: str, receive: Callable[[E, float], list[F]], event: E, now: float
    ) -> list[F]:
        """Have a machine told of *event*, and note what it does."""
        with self.lock:
            self._begin_where_due()
            try:
                effects = receive(event, now)
            except Exception as bug:
                self._note(name, event, now, bug)
                self._hand_over()
                raise
            self._note(name, event, now, effects)
            if name == "lease" or type(event) is TurnEnded:
                self._hand_over()
            return effects

    def close(self, error: BaseException | None) -> None:
        """End the recording; *error* is what ended the run."""
        with self.lock:
            if self._begun:
                self._lines.append(line("" if error is None else type(error).__name__))
                self._hand_over()
            self._over = True
        self._writer.close()

    def _begin_where_due(self) -> None:
        """Before a machine hears more, begin the run; or another file, with all they know."""
        if self._over or not self._is_due():
            return
        with self._giving_up():
            knows = {} if self._begun == 0 else self._machines
            begin = self._start._replace(
                config={
                    name: encoded(machine.config) for name, (machine, _) in self._machines.items()
                },
                state={name: state_of(machine, names) for name, (machine, names) in knows.items()},
            )
            self._hand_over()
            self._over |= not self._writer.put(begin)
            self._begun += 1
            self._size = len(begin_line(begin))

    def _is_due(self) -> bool:
        found = self._files.found if self._begun == 1 else 0
        return self._begun == 0 or found + self._size > self._files.longest * (1 - SPARE)

    def _note(self, name: str, event: Any, now: float, answer: list[Any] | Exception) -> None:
        drawn, self._drawn = tuple(self._drawn), []
        if not self._over:
            with self._giving_up():
                did = raised(answer) if isinstance(answer, Exception) else digest(answer)
                self._lines.append(heard_line(Heard(name, now, event, did, drawn)))

    def _hand_over(self) -> None:
        if self._lines and not self._over:
            data, self._lines = "".join(self._lines).encode(), []
            self._size += len(data)
            self._over = not self._writer.put(data)

    @contextmanager
    def _giving_up(self) -> Generator[None]:
        try:
            yield
        except Exception:
            self._over = True
            log.exception("nothing is recorded any more, and the worker goes on")


class RecordedWorker(WorkerMachine):
    def __init__(self, config: WorkerConfig, unit: Callable[[], float], recorder: Recorder) -> None:
        super().__init__(config, lambda: recorder.drawn(unit()))
        self._recorder = recorder

    def receive(self, event: WorkerEvent, now: float) -> list[WorkerEffect]:
        return self._recorder.step("worker", super().receive, event, now)

    def next_deadline(self) -> float | None:
        with self._recorder.lock:  # it tidies up, and the lease's thread may be looking
            return super().next_deadline()


class RecordedLease(LeaseMachine):
    def __init__(self, config: LeaseConfig, recorder: Recorder) -> None:
        super().__init__(config)
        self._recorder = recorder

    def receive(self, event: LeaseEvent, now: float) -> list[LeaseEffect]:
        return self._recorder.step("lease", super().receive, event, now)
