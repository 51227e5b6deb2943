"""Commits and checkpoints from many processes at once, on the SQLite that this Python links.

Of SQLite 3.7.0 to 3.51.2 it is known that such a race can lose commits (sqlite.org/wal.html, "The
WAL-reset bug"); sitq then checkpoints behind a gate. Here it is seen to hold, or not.
"""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from sitq.protocol.lifecycle import TaskState
from sitq.testing.simulation.history import Kind
from torture.crew import Crew
from torture.kept import kept_in_file
from torture.waiting import wait_until
from torture.witness import read


class Written(NamedTuple):
    """*lost* counts what was acknowledged and is not in the file."""

    tasks: int
    checkpoints: int
    lost: int
    is_whole: bool
    ended_badly: int


def nothing(data: bytes) -> None:
    """Be enqueued."""


def write(processes: int, seconds: float, seed: int) -> Written:
    """Have *processes* write to one file for *seconds*, while a reader looks at it."""
    crew = Crew(Path(tempfile.mkdtemp(prefix="sitq-wal-")))
    try:
        writers = [crew.start("writer", seed + n, seconds) for n in range(processes)]
        wait_until(crew.path.exists)
        while any(writer.is_alive() for writer in writers):
            with closing(sqlite3.connect(crew.path, timeout=30)) as db:
                db.execute("PRAGMA wal_autocheckpoint = 0")
                db.execute("SELECT count(*) FROM sqlite_master").fetchall()
        codes = [writer.bury() for writer in writers]
        records = [record for writer in writers for record in read(crew.witness_of(writer.name))]
        tasks = [id_ for r in records if r.kind is Kind.ENQUEUED for id_ in r.value]
        cancelled = [record.task for record in records if record.kind is Kind.CANCELLED]
        kept = kept_in_file(crew.path)
        rows = kept.rows
        lost = [id_ for id_ in tasks if id_ not in rows]
        lost += [id_ for id_ in cancelled if rows.get(id_) is not TaskState.CANCELLED]
        return Written(
            tasks=len(tasks),
            checkpoints=sum(record.kind is Kind.FAULT for record in records),
            lost=len(lost),
            is_whole=kept.is_whole,
            ended_badly=sum(code != 0 for code in codes),
        )
    finally:
        crew.close()
