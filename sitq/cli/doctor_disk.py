"""What `sitq doctor` finds out about the disk, the WAL, and who has the file open."""

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from sitq.adapters import clocks
from sitq.cli import file_locks, queue_file
from sitq.cli.finding import Finding

LOW_ROOM: Final = 256 * 2**20
NO_ROOM: Final = 2**20
"""Bytes without which hardly anything can be committed."""
LARGE_WAL: Final = 64 * 2**20
REGISTERING: Final = 0.5
"""Seconds that a worker may hold its lock before it is in the file, on a disk that is not slow."""


def room(path: str) -> Iterator[Finding]:
    """Find out whether there is room, and whether it may be used."""
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
    free = shutil.disk_usage(folder).free
    found = f"{free:,} bytes free"
    if free < NO_ROOM:
        to_do = "make room: until then nothing can be enqueued, and no end of a task be stored"
        yield Finding("FAIL", "room", found, to_do)
    elif free < LOW_ROOM:
        yield Finding("WARN", "room", found, "make room, or keep finished tasks less long")
    else:
        yield Finding("OK", "room", found)
    if not os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        found = f"you may not write in {folder}, where SQLite has to make -wal and -shm"
        yield Finding("WARN", "writing", found, "give the user of the workers the folder, too")


def wal(db: sqlite3.Connection, path: str) -> Iterator[Finding]:
    """Find out how the WAL stands, and who keeps others waiting."""
    name = queue_file.beside(path, "-wal")
    if not os.path.lexists(name):
        alive = [row for row in queue_file.workers(db, path) if row.alive]
        if not alive and not os.path.lexists(queue_file.beside(path, "-shm")):
            yield Finding("OK", "WAL", "none: nobody has the file open")
            return
        at_work = f" by {len(alive)} workers" if alive else ""
        yield Finding(
            "FAIL",
            "WAL",
            f"{name} is gone, and the file is open{at_work}: it was deleted or renamed",
            "put it back if it was moved; end all programs by SIGTERM, so that the last one writes"
            " back what only it can see; then start them again",
        )
        return
    before = db.execute("PRAGMA data_version").fetchall()
    held = file_locks.held_for_long(path)
    size = queue_file.size(name)
    if size > LARGE_WAL:
        who = f", and pid {_pids(held.reading)} reads all the time" if held.reading else ""
        to_do = "a program keeps a long read open; find and end it"
        yield Finding("WARN", "WAL", f"{size:,} bytes{who}", to_do)
    else:
        yield Finding("OK", "WAL", f"{size:,} bytes")
    # A busy fleet holds the lock all the time, too; but then something is committed.
    if held.writing and db.execute("PRAGMA data_version").fetchall() == before:
        yield Finding(
            "WARN",
            "write lock",
            f"pid {_pids(held.writing)} holds it for a second and more, and commits nothing",
            "nobody else can enqueue, or store the end of a task: have it end its transaction",
        )


def _pids(found: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(found)))


def replaced(db: sqlite3.Connection, path: str) -> Iterator[Finding]:
    """Find workers that have another file open, which was at this path before."""
    found = queue_file.strangers(db, path)
    if found:
        clocks.sleep(REGISTERING)
        found = sorted({*found}.intersection(queue_file.strangers(db, path)))
    if found:
        yield Finding(
            "FAIL",
            "replaced",
            f"{len(found)} living workers have a lock here and are not in this file: they have"
            f" another one open, which was deleted, renamed or replaced ({', '.join(found[:3])})",
            "end them by SIGTERM, and start them again",
        )
