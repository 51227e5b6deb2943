"""A queue file, looked at from outside: read-only, and without unpickling anything.

The promises: what is no queue of sitq is refused by name, in the same words as everywhere;
and a look leaves nothing behind. A file that nobody has open is read as immutable, because
SQLite would otherwise put a `-wal` and a `-shm` beside it, which a reader must leave there,
and which might then belong to the wrong user.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

from sitq.adapters import clocks, sqlite_file
from sitq.adapters.presence import lock_files
from sitq.exceptions import FileRefusedError, SitqError, StoreError
from sitq.storage.moving import AWAY, COMING
from sitq.storage.program import Done, Program, Query, resume
from sitq.storage.sqlite_schema import check_database

T = TypeVar("T")

QUIET_TRIES: Final = 3
"""After which a file is read as one that is open, even if that leaves a -wal beside it."""


def look(path: str, at: Callable[[sqlite3.Connection, str], T]) -> T:
    """Return what *at* finds with a read-only connection to the queue file.

    Raises `FileRefusedError` if it is no queue file, `StoreError` if it cannot be read.
    """
    path = sqlite_file.checked_path(path)
    if not os.path.lexists(path):
        raise FileRefusedError(f"there is no file {path!r}")
    db = sqlite_file.inspect(path)  # which refuses what cannot be a queue
    if db is None:
        raise FileRefusedError(f"{path!r} is empty: no queue has used it yet")
    db.close()
    for _ in range(QUIET_TRIES):
        if _is_open(path):
            break
        before = _signature(path)
        found: T | SitqError
        with closing(connected(path, immutable=True)) as db:
            try:
                found = _look(db, path, at)
            except (FileRefusedError, StoreError) as error:
                found = error
        if _is_open(path) or _signature(path) != before:
            continue  # somebody came meanwhile, and may have changed what was being read
        if isinstance(found, SitqError):
            raise found
        return found
    with closing(connected(path)) as db:
        return _look(db, path, at)


def _signature(path: str) -> tuple[int, ...]:
    """Return what differs after somebody has opened the file, written and closed it again."""
    found = os.stat(path)  # noqa: PTH116
    return found.st_ino, found.st_size, found.st_mtime_ns


def connected(path: str, *, immutable: bool = False) -> sqlite3.Connection:
    """Return a connection that cannot write."""
    name = quote(os.fsencode(path))  # a file name is bytes: as such it is quoted
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    return sqlite3.connect(f"file:{name}?{options}", uri=True, timeout=10, isolation_level=None)


def _is_open(path: str) -> bool:
    return os.path.lexists(beside(path, "-wal"))


def beside(path: str, suffix: str) -> str:
    """Return where SQLite keeps what belongs to the file: it follows links first."""
    return os.path.realpath(path) + suffix


def _look(db: sqlite3.Connection, path: str, at: Callable[[sqlite3.Connection, str], T]) -> T:
    try:
        if _read(db, check_database(path)) == 0:
            raise FileRefusedError(f"{path!r} is an SQLite file without tables: no queue used it")
        return at(db, path)
    except sqlite3.Error as error:
        raise (
            sqlite_file.refusal(path, error) or StoreError(f"{path!r} could not be read: {error}")
        ) from error
    except sqlite_file.NONSENSE as error:
        raise sqlite_file.damaged(path, error) from error


def _read(db: sqlite3.Connection, program: Program[T]) -> T:
    """Run a program that only asks."""
    step = resume(program, None)
    while not isinstance(step, Done):
        assert isinstance(step, Query)
        step = resume(program, db.execute(step.sql, step.params).fetchall())
    return step.value


# -- what is in it ---------------------------------------------------------------------


class WorkerRow(NamedTuple):
    """*alive* is None where there is no lock to see, and the lease has not run out."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    slots: int
    running: int
    alive: bool | None
    lease_s: float | None
    """Until its lease runs out; None if that was in another life of this machine."""


def workers(db: sqlite3.Connection, path: str) -> list[WorkerRow]:
    """Return what is known of each worker."""
    now = clocks.moment()
    found = db.execute(
        "SELECT id, host, pid, queues, max_concurrency, epoch, lease_until_ms,"
        " (SELECT count(*) FROM sitq_tasks WHERE worker_id = sitq_workers.id AND state = 'running')"
        " FROM sitq_workers ORDER BY registered_ms"
    ).fetchall()
    rows: list[WorkerRow] = []
    for id_, host, pid, queues, slots, epoch, until_ms, running in found:
        lease = round((until_ms - now.lease_ms) / 1000, 1) if epoch == now.epoch else None
        lock = f"{path}-workers/{id_}.lock"
        alive: bool | None = None if lease is not None and lease > 0 else False
        if os.path.lexists(lock):
            alive = not lock_files(f"{path}-workers").dead((id_,))
        rows.append(WorkerRow(id_, host, pid, _names(queues), slots, running, alive, lease))
    return rows


def _names(queues: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(queues)))
    except (ValueError, TypeError):  # it was not sitq that wrote this
        return (queues,)


def pids(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return (worker, process id)."""
    return db.execute("SELECT id, pid FROM sitq_workers").fetchall()


def done_by(db: sqlite3.Connection, task_ids: Iterable[str]) -> list[tuple[str, int]]:
    """Return (worker, how many of these tasks it has ended)."""
    return db.execute(
        "SELECT worker_id, count(*) FROM sitq_tasks"
        " WHERE id IN (SELECT value FROM json_each(?)) GROUP BY worker_id",
        (json.dumps(list(task_ids)),),
    ).fetchall()


def orphans(path: str, known: Iterable[WorkerRow]) -> list[str]:
    """Return the names of lock files that no process holds and no worker is registered for."""
    folder = Path(f"{path}-workers")
    ids = {lock.stem for lock in folder.glob("*.lock")} - {worker.id for worker in known}
    return [f"{id_}.lock" for id_ in sorted(lock_files(str(folder)).dead(sorted(ids)))]


def strangers(db: sqlite3.Connection, path: str) -> list[str]:
    """Return the ids of living workers that hold a lock beside the file, and are not in it."""
    folder = Path(f"{path}-workers")
    ids = {lock.stem for lock in folder.glob("*.lock")} - {id_ for id_, _ in pids(db)}
    return sorted(ids - set(lock_files(str(folder)).dead(sorted(ids))))


def counts(db: sqlite3.Connection) -> list[tuple[str, str, int]]:
    """Return (queue, state, number of tasks)."""
    return db.execute(
        "SELECT queue, state, count(*) FROM sitq_tasks GROUP BY queue, state ORDER BY 1, 2"
    ).fetchall()


def oldest_waiting_s(db: sqlite3.Connection) -> float | None:
    """Return for how many seconds the oldest task that is due has waited."""
    ((since,),) = db.execute(
        "SELECT min(run_at_ms) FROM sitq_tasks WHERE state = 'queued'"
    ).fetchall()
    return None if since is None else round((clocks.wall_ms() - since) / 1000, 1)


def next_due_s(db: sqlite3.Connection) -> float | None:
    """Return in how many seconds the next scheduled task is due."""
    ((due,),) = db.execute(
        "SELECT min(run_at_ms) FROM sitq_tasks WHERE state = 'scheduled'"
    ).fetchall()
    return None if due is None else round((due - clocks.wall_ms()) / 1000, 1)


COPYING: Final = "on their way in a `sitq copy`"
PARKED_BECAUSE: Final = (
    f"CASE WHEN parked_stamp LIKE '{AWAY}%' OR parked_stamp LIKE '{COMING}%' THEN '{COPYING}'"
    " ELSE error END"
)


def parked(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return why tasks are parked, and how many for each reason."""
    return db.execute(
        f"SELECT {PARKED_BECAUSE}, count(*) FROM sitq_tasks WHERE state = 'parked' GROUP BY 1"
    ).fetchall()


def from_the_future(db: sqlite3.Connection, more_than_ms: int) -> int:
    """Return how many tasks were enqueued later than now, by this machine's clock."""
    ((count,),) = db.execute(
        "SELECT count(*) FROM sitq_tasks WHERE enqueued_ms > ?", (clocks.wall_ms() + more_than_ms,)
    ).fetchall()
    return int(count)


def journal_mode(db: sqlite3.Connection, path: str) -> str:
    """Return what SQLite calls it; an immutable connection cannot tell, but the header can."""
    ((mode,),) = db.execute("PRAGMA journal_mode").fetchall()
    if mode != "wal":
        with open(path, "rb") as file:  # noqa: PTH123  # this process holds no lock on it
            header = file.read(20)
        if header[18:20] == b"\2\2":  # sqlite.org/fileformat2.html, section 1.3.4
            return "wal"
    return str(mode)


def inode(path: str) -> int | None:
    """Return the number of a file, None if it is not there."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116
    except OSError:
        return None


def size(path: str) -> int:
    """Return the bytes of a file, 0 if it is not there."""
    try:
        return os.stat(path).st_size  # noqa: PTH116  # a stat opens no descriptor
    except OSError:
        return 0
