"""Steps through a recording in the machines of this version, and says where they differ.

The promises:
- Each machine hears what it heard then, at the same time by its clock, and draws the same numbers:
  as long as it decides as it did, so does its replay, step by step.
- A recording is read and never trusted: what it says becomes messages and nothing else.

A replay begins at the start of a run, or where the oldest file begins, with what its machines
knew. A machine that has decided otherwise may be told of answers that it never asked for. If it
raises an exception over that, its next steps have no effects, until a later `Begin`.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, Final, NamedTuple

from sitq.adapters.recording import (
    Begin,
    Ended,
    Heard,
    digest,
    lease_words,
    raised,
    read_line,
    restore,
    worker_words,
)
from sitq.adapters.recording_files import paths, segment_of
from sitq.exceptions import RecordingError
from sitq.protocol.lease import LeaseEffect, LeaseEvent, LeaseMachine
from sitq.protocol.ops import TaskKey
from sitq.protocol.worker import WorkerEffect, WorkerEvent, WorkerMachine

NO_CHANCE: Final = 0.0
"""What a machine draws that draws more than was recorded."""


class Step(NamedTuple):
    """One event, and what the machine of this version did.

    *now* is the time on the machine's clock, *at* by the calendar. *effects* is None where the
    machine raised an exception, which *raised* tells; and after one that was not recorded.
    """

    number: int
    run: int
    machine: str
    now: float
    at: datetime
    event: WorkerEvent | LeaseEvent
    effects: tuple[WorkerEffect | LeaseEffect, ...] | None
    agrees: bool
    raised: str | None = None


class Run(NamedTuple):
    """One run of the worker. *ended* is the type of what ended it, "" if it was stopped, and None
    if nothing is recorded of its end: it goes on, or its process died."""

    sitq: str
    host: str
    pid: int
    began: datetime
    is_whole: bool
    ended: str | None


class Replay:
    """A recording. Going through *steps* replays it; each time, from the beginning."""

    def __init__(self, path: str, lines: list[Begin | Heard | Ended]) -> None:
        self.path = path
        self.runs = _runs(lines)
        self._lines = lines

    def __len__(self) -> int:
        return sum(isinstance(said, Heard) for said in self._lines)

    @property
    def steps(self) -> Iterator[Step]:
        numbers, run = count(1), -1
        seen: set[str] = set()
        stage: _Stage | None = None
        for said in self._lines:
            match said:
                case Begin():
                    if said.run not in seen:
                        seen.add(said.run)
                        run += 1
                    stage = _Stage(said)
                case Heard():
                    assert stage is not None, "a recording opens with a Begin"
                    yield stage.step(said, next(numbers), run)
                case Ended():
                    pass

    @property
    def under_way(self) -> dict[TaskKey, str]:
        """The ids of the tasks that were running where a file begins, which gives them no name."""
        begins = (said for said in self._lines if isinstance(said, Begin) and said.state)
        return {
            key: running.task.id
            for begin in begins
            for key, running in begin.state["worker"].get("_running", {}).items()
        }

    @property
    def first_difference(self) -> Step | None:
        """The first step at which the machines of this version decide otherwise."""
        return next((step for step in self.steps if not step.agrees), None)


def replay(path: str | os.PathLike[str]) -> Replay:
    """Return the recording in *path* and *path*.2, ready to be replayed.

    Raises:
        RecordingError: it is no recording, a newer version has written it, or it is damaged.
    """
    path = os.fspath(path)
    return Replay(path, list(_lines(path)))


class _Stage:
    """The two machines of one run, from one `Begin` to the next."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._chance: list[float] = []
        self._machines: dict[str, Any] = {
            "worker": WorkerMachine(begin.config["worker"], self._unit),
            "lease": LeaseMachine(begin.config["lease"]),
        }
        for name, state in begin.state.items():
            restore(self._machines[name], state)

    def step(self, heard: Heard, number: int, run: int) -> Step:
        tell = partial(Step, number, run, heard.machine, heard.now, self._at(heard), heard.event)
        machine = self._machines.get(heard.machine)
        if machine is None:
            return tell(effects=None, agrees=False)
        self._chance = list(heard.chance)
        try:
            effects = tuple(machine.receive(heard.event, heard.now))
        except Exception as bug:  # noqa: BLE001  # that it raises is what is to be known
            agrees = raised(bug) == heard.did
            if not agrees:
                del self._machines[heard.machine]
            return tell(effects=None, agrees=agrees, raised=f"{type(bug).__name__}: {bug}")
        return tell(effects=effects, agrees=digest(effects) == heard.did)

    def _unit(self) -> float:
        return self._chance.pop(0) if self._chance else NO_CHANCE

    def _at(self, heard: Heard) -> datetime:
        began = _calendar(self._begin.wall_ms)
        return began + timedelta(seconds=heard.now - self._begin.clocks[heard.machine])


def _runs(lines: list[Begin | Heard | Ended]) -> tuple[Run, ...]:
    runs: dict[str, Run] = {}
    latest = ""
    for said in lines:
        if isinstance(said, Begin):
            latest = said.run
            lease = said.config["lease"]
            run = Run(
                said.sitq, lease.host, lease.pid, _calendar(said.wall_ms), not said.state, None
            )
            runs.setdefault(latest, run)
        elif isinstance(said, Ended):
            runs[latest] = runs[latest]._replace(ended=said.error)
    return tuple(runs.values())


def _calendar(wall_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=wall_ms)


# -- reading the files ---------------------------------------------------------------------


def _lines(path: str) -> Iterator[Begin | Heard | Ended]:
    words = {"worker": worker_words(), "lease": lease_words()}
    parts = {name: _content(name) for name in paths(path)}
    if not parts[path]:
        raise RecordingError(f"{path} is no recording: it is empty")
    found = [(segment_of(content[0]), name) for name, content in parts.items() if content]
    for segment, name in found:
        if segment is None:
            raise RecordingError(f"{name} is no recording of a worker")
    for _, name in sorted(found, key=lambda part: part[0] or 0):
        yield from _part(name, parts[name], words)


def _content(name: str) -> list[bytes]:
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            return [text for text in file.read().split(b"\n") if text]
    except FileNotFoundError:
        if name.endswith(".2"):
            return []
        raise RecordingError(f"there is no file {name}") from None
    except OSError as error:
        raise RecordingError(f"{name} cannot be read: {error.strerror}") from None


def _part(name: str, content: list[bytes], words: Mapping[str, Any]) -> Iterator[Any]:
    for number, text in enumerate(content, 1):
        try:
            yield read_line(text.decode(), words)
        except (RecordingError, UnicodeDecodeError) as error:
            after = content[number : number + 1]
            if number > 1 and (not after or segment_of(after[0]) is not None):
                continue  # the process or the disk has cut it off
            raise RecordingError(f"{name}, line {number}: {error}") from error
