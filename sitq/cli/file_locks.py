"""Who holds SQLite's locks on a queue file, as Linux tells; elsewhere nobody can be named.

Looked up in /proc/locks: asking for a lock would take a descriptor of our own, and closing that
drops the locks that SQLite holds for this process.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sitq.adapters import clocks
from sitq.cli import queue_file

LOCKS: Final = Path("/proc/locks")
EVERY: Final = 0.05
FOR: Final = 1.0

# Bytes of the -shm file (sqlite.org/walformat.html, section 2.3.1, counted from byte 120).
_WRITE: Final = 120
_READ: Final = range(123, 128)


class Holders(NamedTuple):
    """Process ids."""

    writing: frozenset[int]
    reading: frozenset[int]


def held_for_long(path: str) -> Holders:
    """Return who has held a lock for a whole second: at every look in it."""
    until = clocks.monotonic() + FOR
    held = _holders(path)
    while any(held) and clocks.monotonic() < until:
        clocks.sleep(EVERY)
        now = _holders(path)
        held = Holders(held.writing & now.writing, held.reading & now.reading)
    return held


def _holders(path: str) -> Holders:
    inode = queue_file.inode(queue_file.beside(path, "-shm"))
    found = [(first, last, pid) for i, first, last, pid in _locks() if i == inode]
    return Holders(
        frozenset(pid for first, last, pid in found if first <= _WRITE <= last),
        frozenset(pid for first, last, pid in found if first in _READ or last in _READ),
    )


def _locks() -> Iterator[tuple[int, int, int, int]]:
    """Yield inode, first byte, last byte and process of each lock on a range of bytes."""
    try:
        lines = LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        # proc_locks(5); a lock that is waited for has an arrow in the second place
        match line.split():
            case [_, "POSIX", _, _, pid, place, first, last] if last != "EOF":
                yield int(place.rpartition(":")[2]), int(first), int(last), int(pid)
            case _:
                pass
