"""Numbers the calls of a run, keeps the disk as they change it, and refuses those it is told to."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from tests.disk.disk import Disk, Image, Moment
from tests.disk.vfs import OK, Call


class Point(NamedTuple):
    """A moment at which a process can die."""

    n: int
    when: str
    """`before` or `after` call *n*."""
    call: Call
    disk: Moment
    acked: int
    """How many steps had been answered."""

    def __str__(self) -> str:
        return f"{self.when} call {self.n} ({self.call})"


class Fault(Protocol):
    def code(self, n: int, call: Call) -> int | None:
        """Return with which code call *n* fails, None if it does not."""
        ...

    def part(self, call: Call) -> int: ...


class Recorder:
    """A watcher. It counts while *counts* is set, and keeps points if *keep* is set."""

    def __init__(self, files: Image, *, keep: bool = True, fault: Fault | None = None) -> None:
        self.disk = Disk(files)
        self.fault = fault
        self.counts = False
        self.acked = 0
        self.n = 0
        self.points: list[Point] = []
        self.struck: list[str] = []
        """The calls that were made to fail."""
        self.on_call: Callable[[int, Call], None] | None = None
        self._keep = keep

    def before(self, call: Call) -> int | None:
        if not self.counts:
            return None
        self.n += 1
        self._point("before", call)
        if self.on_call is not None:
            self.on_call(self.n, call)
        code = None if self.fault is None else self.fault.code(self.n, call)
        if code is not None:
            self.struck.append(f"call {self.n} ({call}) failed with {code}")
        return code

    def part_of(self, call: Call) -> int:
        part = 0 if self.fault is None else self.fault.part(call)
        if part:
            self.disk.change(call._replace(data=call.data[:part]))
        return part

    def after(self, call: Call, code: int) -> None:
        if code == OK:
            self.disk.change(call)
        elif call.kind == "sync":
            self.disk.fail_to_sync(call.file)
        self._point("after", call)

    def answered(self, what: str) -> None:
        """Take in that a step which changes the state has returned."""
        self.acked += 1
        self._point("after", Call(f"answer to {what}", "tasks.db"))

    def _point(self, when: str, call: Call) -> None:
        if self._keep and self.counts:
            self.points.append(Point(self.n, when, call, self.disk.now(), self.acked))
