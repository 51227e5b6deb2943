"""How long the disk itself stands still: a few bytes beside what is measured, synced now and then.

Where several machines share a disk, one sync may take as long as a thousand do otherwise, whatever
is written here. A pause of a worker counts for little where the disk had one: so when it was slow is
noted.
"""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.marks import SPAN, place

EVERY: Final = 0.01
"""Seconds between two syncs: few enough not to be felt."""
SIZE: Final = 4096
QUICK: Final = 20_000_000
"""Nanoseconds. What takes longer is no sync that this disk takes when it is well."""


class DiskWatch:
    """Syncs a file of its own in *folder*, while it is entered."""

    def __init__(self, folder: str) -> None:
        self._file = Path(folder, "disk-watch")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: OSError | None = None
        self.longest = 0.0
        """milliseconds that one sync took"""
        self._slow: set[int] = set()  # those of a long one, the one before, and two after it

    def was_quick(self, span: int) -> bool:
        """Say whether the disk was well in that span of time, see `place`."""
        return span not in self._slow

    def __enter__(self) -> Self:
        os.sync()  # what filled the store is no part of what is watched
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._sync_now_and_then()
        except OSError as failure:  # raised where it is watched: a 0 would be no measurement
            self._failure = failure

    def _sync_now_and_then(self) -> None:
        with self._file.open("wb", buffering=0) as file:
            while not self._over.wait(EVERY):
                file.seek(0)
                file.write(bytes(SIZE))
                began = time.monotonic_ns()
                os.fdatasync(file.fileno())
                self._note(began, time.monotonic_ns())

    def _note(self, began: int, ended: int) -> None:
        self.longest = max(self.longest, (ended - began) / 1e6)
        if ended - began > QUICK:
            self._slow.update(map(place, range(began - SPAN, ended + 2 * SPAN, SPAN)))
