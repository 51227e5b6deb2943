"""Whether a queue file is still the one that was opened.

SQLite goes on with the files that it has open, whatever becomes of their names, and says nothing.
What is committed to a file that was deleted or replaced is gone with the process, and nobody else
ever sees it. The promise: no such commit is acknowledged.

It is sound for all three files. While a connection is open it holds a shared lock on the
database, and SQLite removes -wal and -shm only under an exclusive one: so none of the three
changes its inode as long as we have it open, unless somebody meddles. And the number of an inode
that is open is given to no other file.

By `stat` alone: a descriptor of our own, once closed, would drop SQLite's locks on the file. And
mostly by that of the folder: whoever deletes, renames or replaces a file in it changes its time
stamp. As long as that stays as it was, so does all that was found.
"""

import errno
import os
from typing import Final, TypeAlias

from sitq.adapters import clocks
from sitq.exceptions import FileReplacedError, StoreError

SETTLED_AFTER_MS: Final = 50
"""Time stamps of folders are as coarse as a tick of the kernel (10 ms at most): another change may
hide behind one that is younger than this."""
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


Inode: TypeAlias = tuple[int, int]  # the device, and the number on it


class OpenedFile:
    """The three files of a database, as they were when it was opened."""

    def __init__(self, path: str) -> None:
        self._path = path
        # SQLite follows a link once, when it opens the file; -wal and -shm lie where it led.
        real = os.path.realpath(path)
        self._files = [(name, *inode(path, name)) for name in (path, f"{real}-wal", f"{real}-shm")]
        self._folders = {os.path.dirname(path), os.path.dirname(real)}  # noqa: PTH120
        self._unchanged: list[tuple[int, int, int]] | None = None  # the folders, since all was well

    @property
    def database(self) -> Inode:
        return self._files[0][1:]

    def check(self) -> None:
        """Raise `FileReplacedError` if one of the names leads to another file by now."""
        seen = self._time_stamps()
        if seen is None or seen != self._unchanged:
            self._look()
            self._unchanged = seen if seen is not None and self._is_settled(seen) else None

    def _time_stamps(self) -> list[tuple[int, int, int]] | None:
        try:
            found = map(os.stat, self._folders)
            return [(one.st_dev, one.st_ino, one.st_mtime_ns) for one in found]
        except OSError:
            return None

    def _is_settled(self, seen: list[tuple[int, int, int]]) -> bool:
        latest_ms = max(changed_ns for _, _, changed_ns in seen) // 1_000_000
        return clocks.wall_ms() - latest_ms > SETTLED_AFTER_MS

    def _look(self) -> None:
        for name, device, number in self._files:
            try:
                found = os.stat(name)  # noqa: PTH116
            except OSError as error:
                raise _unseen(self._path, name, error) from error
            if found.st_ino != number or found.st_dev != device:
                raise _replaced(self._path, name, "leads to another file now")


def inode(path: str, name: str | None = None) -> Inode:
    """Return which file *name* leads to: *path*, or one that belongs to it."""
    name = path if name is None else name
    try:
        found = os.stat(name)  # noqa: PTH116
    except OSError as error:
        raise _unseen(path, name, error) from error
    return found.st_dev, found.st_ino


def _unseen(path: str, name: str, error: OSError) -> StoreError:
    if error.errno in _GONE:
        return _replaced(path, name, "is gone")
    return StoreError(
        f"{name!r} cannot be looked at ({error.strerror}), so nobody knows whether it is still the"
        " file that was opened; nothing was stored. See who may enter its folder"
    )


def _replaced(path: str, name: str, what: str) -> FileReplacedError:
    return FileReplacedError(
        f"{name!r} {what}: it was deleted, renamed or replaced while this program had the queue"
        f" {path!r} open. Nothing more is stored through this connection. Put the file back if it"
        " was moved, end all programs that had it open (by SIGTERM, so that the last one writes"
        " back what only it can see), and start them again"
    )
