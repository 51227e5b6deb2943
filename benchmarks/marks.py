"""What tasks leave behind, in memory that is shared: a count and two times for each worker, and the
longest pause between two tasks, by when it ended.

A mark costs about a microsecond, and the same in every library. CLOCK_MONOTONIC is one clock for
all processes of a machine, so that a time from one can be compared with one from another.
"""

import mmap
import threading
import time
from pathlib import Path
from typing import Final

GO: Final = 0
WORKERS: Final = 16
_FIELDS: Final = 8
PID, COUNT, FIRST, LAST = range(4)
_STAMPS: Final = _FIELDS * (WORKERS + 1)
STAMPS: Final = 16_384
SPAN: Final = 100_000_000
"""Nanoseconds. The longest pause is kept of each span, for those of the last minute or so."""
_PAUSES: Final = _STAMPS + STAMPS
_SPANS: Final = 1_024


class Marks:
    """The shared memory. *index* is the worker whose marks are made here."""

    def __init__(self, path: str, index: int = 0) -> None:
        size = 8 * (_PAUSES + _SPANS)
        file = Path(path)
        if not file.exists():
            file.write_bytes(bytes(size))
        with file.open("r+b") as opened:
            self._cells = memoryview(mmap.mmap(opened.fileno(), size)).cast("q")
        self._at = _FIELDS * (index + 1)
        self._lock = threading.Lock()

    def tick(self) -> int:
        now = time.monotonic_ns()
        cells, at = self._cells, self._at
        with self._lock:
            if not cells[at + COUNT]:
                cells[at + FIRST] = now
            elif now - cells[at + LAST] > cells[span := _PAUSES + now // SPAN % _SPANS]:
                cells[span] = now - cells[at + LAST]
            cells[at + LAST] = now
            cells[at + COUNT] += 1
        return 1

    def stamp(self, number: int, at: int) -> None:
        self._cells[_STAMPS + number] = at

    def stamped(self, number: int) -> int:
        """Return when task *number* began, 0 if it has not."""
        return self._cells[_STAMPS + number]

    def ready(self, pid: int) -> None:
        self._cells[self._at + PID] = pid

    def go(self) -> None:
        self._cells[GO] = 1

    @property
    def may_go(self) -> bool:
        return bool(self._cells[GO])

    def of_workers(self, field: int) -> list[int]:
        """Return a field of each worker, 0 where there is none."""
        start = _FIELDS + field
        return [self._cells[start + _FIELDS * worker] for worker in range(WORKERS)]

    def pauses(self) -> dict[int, int]:
        """Return the longest of each span in ns, by the place of the span; of one worker, mostly."""
        return {span: ns for span, ns in enumerate(self._cells[_PAUSES:]) if ns}

    def clear(self) -> None:
        """Forget everything; no worker may be there."""
        for cell in range(_PAUSES + _SPANS):
            self._cells[cell] = 0


def place(at: int) -> int:
    """Return the place of the span that *at* is in."""
    return at // SPAN % _SPANS


here: Marks
"""Those of this process; `work` and `measure` set it."""
