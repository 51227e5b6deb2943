"""What is seen of a history on a picture: for each process and each task, what lies on its lane.

Nothing is drawn here, and nothing judged: spans and moments are read off the events, in seconds.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from sitq.protocol.lifecycle import FINAL, TaskState
from sitq.testing.simulation.history import Batch, Change, History, Kind


class Span(NamedTuple):
    begin: float
    end: float


class TaskRun(NamedTuple):
    """A function that ran. *end* is when the process died, if it did not end before."""

    task: str
    token: int
    begin: float
    end: float
    how: str
    row: int
    """Tasks that run at once in one process lie on different rows."""


class Stay(NamedTuple):
    """A task's time in one state; *token* is what it had then."""

    begin: float
    end: float
    state: TaskState
    token: int


@dataclass(slots=True)
class Life:
    """One life of a process."""

    name: str
    begin: float
    end: float = 0.0
    how: str = ""
    """dies | stops | "" (it is there when the run ends)."""
    runs: list[TaskRun] = field(default_factory=list[TaskRun])
    leases: list[Span] = field(default_factory=list[Span])
    pauses: list[Span] = field(default_factory=list[Span])
    blocked: list[Span] = field(default_factory=list[Span])
    faults: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    @property
    def rows(self) -> int:
        return max((run.row for run in self.runs), default=0) + 1


@dataclass(slots=True)
class Lanes:
    """All of them. *end* is the last moment that is shown."""

    end: float
    lives: dict[str, Life] = field(default_factory=dict[str, Life])
    tasks: dict[str, list[Stay]] = field(default_factory=dict[str, list[Stay]])
    commits: list[tuple[float, bool]] = field(default_factory=list[tuple[float, bool]])
    """When, and whether a task was changed."""
    world: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """What went wrong for all."""
    healed_at: float | None = None


def lanes(history: History) -> Lanes:
    """Read the lanes off *history*, to its end."""
    return _Reader(history).read()


class _Reader:
    def __init__(self, history: History) -> None:
        self._history = history
        self._lanes = Lanes(history[-1].at if history else 0.0)
        self._running: dict[
            tuple[str, str, int], tuple[float, int]
        ] = {}  # since when, on which row
        self._leased: dict[str, float] = {}
        self._stays: dict[str, tuple[float, TaskState, int]] = {}

    def read(self) -> Lanes:
        for event in self._history:
            at, who = event.at, event.who
            match event.kind:
                case Kind.UP:
                    self._lanes.lives[who] = Life(who, at)
                case Kind.KILLED:
                    self._gone(who, at, "dies")
                case Kind.STOPPED:
                    self._gone(who, at, "stops")
                case Kind.PAUSED:
                    self._life(who).pauses.append(Span(at, at + event.value))
                case Kind.BLOCKED:
                    self._life(who).blocked.append(Span(at, at + event.value))
                case Kind.HELD:
                    self._leased.setdefault(who, at)
                case Kind.LET_GO:
                    self._let_go(who, at)
                case Kind.START:
                    self._start(who, event.task, event.token, at)
                case Kind.END:
                    self._end(who, event.task, event.token, at, event.value)
                case Kind.FAULT if who:
                    self._life(who).faults.append((at, event.value))
                case Kind.FAULT:
                    self._lanes.world.append((at, event.value))
                case Kind.HEALED:
                    self._lanes.healed_at = at
                case Kind.BATCH:
                    batch: Batch = event.value
                    if batch.ops:
                        self._lanes.commits.append((at, False))
                case Kind.ROW:
                    self._row(event.task, event.value, at)
                case _:
                    pass
        self._close()
        return self._lanes

    def _life(self, who: str) -> Life:
        return self._lanes.lives.setdefault(who, Life(who, 0.0))

    def _gone(self, who: str, at: float, how: str) -> None:
        life = self._life(who)
        life.end, life.how = at, how
        self._let_go(who, at)
        for key in [key for key in self._running if key[0] == who]:
            self._end(*key, at, how)

    def _let_go(self, who: str, at: float) -> None:
        since = self._leased.pop(who, None)
        if since is not None:
            self._life(who).leases.append(Span(since, at))

    def _start(self, who: str, task: str, token: int, at: float) -> None:
        taken = {row for key, (_, row) in self._running.items() if key[0] == who}
        row = next(row for row in range(len(taken) + 1) if row not in taken)
        self._running[who, task, token] = at, row

    def _end(self, who: str, task: str, token: int, at: float, how: str) -> None:
        begun = self._running.pop((who, task, token), None)
        if begun is not None:  # else it could not be read, and never ran
            since, row = begun
            self._life(who).runs.append(TaskRun(task, token, since, at, how, row))

    def _row(self, task: str, change: Change, at: float) -> None:
        if self._lanes.commits:
            self._lanes.commits[-1] = self._lanes.commits[-1][0], True
        if change.old is not change.new or change.old_token != change.token:
            self._stayed(task, at)
            if change.new is not None:
                self._stays[task] = at, change.new, change.token

    def _stayed(self, task: str, at: float) -> None:
        before = self._stays.pop(task, None)
        if before is not None:
            since, state, token = before
            self._lanes.tasks.setdefault(task, []).append(Stay(since, at, state, token))

    def _close(self) -> None:
        end = self._lanes.end
        for task in list(self._stays):
            self._stayed(task, end)
        for life in self._lanes.lives.values():
            if not life.how:
                life.end = end
                self._let_go(life.name, end)
        for key in list(self._running):
            self._end(*key, end, "")


def is_over(stay: Stay) -> bool:
    return stay.state in FINAL
