"""A queue file, looked at from outside: read-only, and without unpickling anything."""

import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sitq.adapters import clocks, sqlite_file
from sitq.adapters.presence import lock_files
from sitq.exceptions import FileRefusedError, NewerSchemaError
from sitq.protocol.lifecycle import TaskState
from sitq.storage.sqlite_schema import VERSION

WAITING = (TaskState.QUEUED, TaskState.SCHEDULED, TaskState.PARKED)


@contextmanager
def opened(path: str) -> Generator[sqlite3.Connection]:
    """Give a read-only connection to a queue file; raise `FileRefusedError` if it is none."""
    path = sqlite_file.checked_path(path)
    if not Path(path).exists():
        raise FileRefusedError(f"there is no file {path!r}")
    db = sqlite_file.inspect(path)
    if db is None:
        raise FileRefusedError(f"{path!r} is empty: no queue has used it yet")
    with closing(db):
        try:
            found = db.execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'sitq_schema'"
            ).fetchone()
            if not found[0]:
                raise FileRefusedError(f"{path!r} is an SQLite file, but no queue of sitq")
            ((version,),) = db.execute("SELECT version FROM sitq_schema").fetchall()
        except sqlite3.DatabaseError as error:
            raise (sqlite_file.refusal(path, error) or error) from error
        if version > VERSION:
            raise NewerSchemaError(
                f"{path!r} has schema version {version}, and this sitq knows {VERSION} at most"
            )
        yield db


def counts(db: sqlite3.Connection) -> list[tuple[str, str, int]]:
    return db.execute(
        "SELECT queue, state, count(*) FROM sitq_tasks GROUP BY queue, state ORDER BY 1, 2"
    ).fetchall()


def workers(db: sqlite3.Connection, path: str) -> list[dict[str, Any]]:
    """Return what is known of each worker; *alive* until it is certain that its process died."""
    presence = lock_files(path + "-workers")
    now = clocks.moment()
    rows = db.execute(
        "SELECT id, host, pid, queues, max_concurrency, epoch, lease_until_ms,"
        " (SELECT count(*) FROM sitq_tasks WHERE worker_id = sitq_workers.id AND state = 'running')"
        " FROM sitq_workers ORDER BY registered_ms"
    ).fetchall()
    return [
        {
            "id": id_,
            "host": host,
            "pid": pid,
            "queues": queues,
            "slots": slots,
            "running": running,
            "alive": not presence.dead((id_,)) and epoch == now.epoch,
            "lease_s": round((until - now.lease_ms) / 1000, 1) if epoch == now.epoch else None,
        }
        for id_, host, pid, queues, slots, epoch, until, running in rows
    ]


def oldest_waiting_s(db: sqlite3.Connection) -> float | None:
    """Return for how many seconds the oldest task that is due has waited."""
    ((since,),) = db.execute(
        "SELECT min(run_at_ms) FROM sitq_tasks WHERE state = 'queued'"
    ).fetchall()
    return None if since is None else round((clocks.wall_ms() - since) / 1000, 1)


def next_due_s(db: sqlite3.Connection) -> float | None:
    ((due,),) = db.execute(
        "SELECT min(run_at_ms) FROM sitq_tasks WHERE state = 'scheduled'"
    ).fetchall()
    return None if due is None else round((due - clocks.wall_ms()) / 1000, 1)


def parked(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return why tasks are parked, and how many for each reason."""
    return db.execute(
        "SELECT error, count(*) FROM sitq_tasks WHERE state = 'parked' GROUP BY error"
    ).fetchall()


def size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0
