"""How far a WAL has grown since it was last begun anew.

Its size does not tell: a WAL that is begun anew is written over from its beginning, and keeps its
length. That is worth keeping, for a commit that makes a file longer takes the disk twice as long.

Whoever begins it anew gives it a new salt, and each frame bears the salt of its time
(sqlite.org/fileformat2.html, section 4.1). So the frame at some place is of this time if its salt is
that of the header.

A descriptor of our own is harmless here, unlike one of the database: SQLite has no lock on this file.
"""

import os
from typing import Final

HEADER: Final = 32
FRAME: Final = 24
"""Bytes before each page."""


class Wal:
    """The WAL of the database at *path*."""

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path) + "-wal"
        self._descriptor: int | None = None

    def has_grown_to(self, size: int) -> bool:
        """Say whether it holds *size* bytes of frames; at least one."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            header = os.pread(self._descriptor, HEADER, 0)
            step = FRAME + int.from_bytes(header[8:12])
            at = HEADER + (max(1, size // step) - 1) * step
            salt = os.pread(self._descriptor, 8, at + 8)
        except OSError:
            return False
        return len(salt) == 8 and salt == header[16:24]

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
