"""Which bytes of a recording are on the disk, and who waits for them: nobody.

There are two files, *path* and *path*.2, and one lock on the first of them. The newer one is
written to, until it is half of the limit long; then the older one is emptied for what comes next. A
file that is no recording is never touched.
"""

import contextlib
import json
import logging
import os
import stat
import sys
import threading
from queue import SimpleQueue
from typing import Final

from sitq.adapters.recording import MARK, Begin, begin_line
from sitq.adapters.virtual import virtual

if sys.platform != "win32":
    import fcntl

log: Final = logging.getLogger("sitq.recording")

BACKLOG: Final = 4 * 2**20
"""Bytes that may wait for the disk."""
CLOSE_WITHIN: Final = 1.0
"""Seconds that a worker waits at its end for the disk."""


def paths(path: str) -> tuple[str, str]:
    return path, f"{path}.2"


def segment_of(first_line: bytes) -> int | None:
    """Return the number of the segment that begins so, None if this begins no recording."""
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(first_line)
        if isinstance(said, dict) and MARK in said and isinstance(said.get("segment"), int):
            return int(said["segment"])
    return None


class Files:
    """Raises `OSError` for whatever goes wrong."""

    def __init__(self, path: str, limit: int) -> None:
        self._paths = paths(path)
        self.longest = limit // 2
        """Bytes that each of the two may have."""
        self.found = 0
        """Bytes that were in the file with which this run goes on."""
        self._locked: int | None = None
        self._file: int | None = None
        self._size = 0
        self._at = 0  # which of the two
        self._segment = 0

    def begin(self, begin: Begin) -> None:
        """Go on with a new run in the newer file; or, later on, in the other one."""
        if self._locked is None:
            self._find_place()
        else:
            self._turn_over()
        self.write(begin_line(begin._replace(segment=self._segment)).encode())

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._size += len(data)
        if self._size > self.longest:
            raise OSError(f"more came at once than {self._paths[0]} may hold")
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        opened, self._file, self._locked = {self._file, self._locked}, None, None
        for descriptor in opened:
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def _find_place(self) -> None:
        self._locked = _opened(self._paths[0])
        _lock(self._locked, self._paths[0])
        segments = [_segment(path) for path in self._paths]
        self._at, self._segment = segments.index(max(segments)), max(segments)
        if self._segment == 0:
            self._segment = 1
        self._file = _opened(self._paths[self._at])
        self._size = self.found = os.fstat(self._file).st_size
        if self._size > self.longest // 2:
            self.found = 0
            self._turn_over()
        elif self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self.write(b"\n")  # the line before was cut off in the middle

    def _turn_over(self) -> None:
        if self._file != self._locked and self._file is not None:
            os.close(self._file)
        self._at = 1 - self._at
        self._segment += 1
        self._file = self._locked if self._at == 0 else _opened(self._paths[1])
        assert self._file is not None
        os.ftruncate(self._file, 0)
        self._size = 0


def _opened(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no file")
    return descriptor


def _lock(descriptor: int, path: str) -> None:
    """Keep others from writing to *path*, for as long as *descriptor* is open."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"another worker records to {path}; give each a file of its own"
            ) from None


def _segment(path: str) -> int:
    """Return the number of the segment in *path*, 0 if nothing is there yet."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            first = file.readline(2**20)
    except FileNotFoundError:
        return 0
    found = segment_of(first) if first else 0
    if found is None:
        raise OSError(f"{path} is there already, and is no recording; it is left as it is")
    return found


class Writer:
    """Has *files* written in a thread; in a virtual run at once.

    It is called by one thread at a time. What goes wrong ends the recording with a line in the log.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._at_once = virtual() is not None
        self._queue: SimpleQueue[Begin | bytes | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._taken = self._written = 0  # bytes
        self._failed = False

    def put(self, item: Begin | bytes) -> bool:
        """Have *item* written; return False once nothing is written any more."""
        if self._at_once:
            self._write(item)
            return not self._failed
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sitq recorder", daemon=True)
            self._thread.start()
        self._taken += len(item) if isinstance(item, bytes) else 0
        if self._taken - self._written > BACKLOG:
            self._fail("the disk is too slow")
        self._queue.put(item)
        return not self._failed

    def close(self) -> None:
        """Write what waits, if the disk takes it soon."""
        if self._thread is None:
            self._files.close()
        else:
            self._queue.put(None)
            self._thread.join(CLOSE_WITHIN)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._write(item)
            self._written += len(item) if isinstance(item, bytes) else 0
        self._files.close()

    def _write(self, item: Begin | bytes) -> None:
        if self._failed:
            return
        try:
            if isinstance(item, Begin):
                self._files.begin(item)
            else:
                self._files.write(item)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is not the worker's concern
            self._fail(str(error))

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            log.warning("nothing is recorded any more, and the worker goes on: %s", why)
