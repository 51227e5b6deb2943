"""A backend on which calls are cancelled, and what each of them has left behind.

It is looked at from outside, over a connection of its own that is opened for one look: so each
look also shows that no transaction was left open.
"""

import gc
import os
import sqlite3
import threading
from contextlib import closing

from sitq import MemoryBackend, SQLiteBackend, TaskQueue
from sitq.adapters import sqlite
from sitq.adapters.virtual import virtual
from sitq.protocol.ops import Count, Fetch
from tests.cancellation.tasks import Gate, pass_by, until


class Place:
    """One file, or one memory; *backend* and *queue* are used for many calls, each cancelled."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.is_real = virtual() is None
        self.backend: MemoryBackend | SQLiteBackend
        self.queue: TaskQueue
        self.group = None  # of what runs beside the calls
        self.gate = Gate()
        self.memo: dict = {}  # what a case keeps from before its call
        self._threads = set(threading.enumerate())
        self.renew()

    def renew(self) -> None:
        """Have a backend that was never connected."""
        if self.path is None:
            self.backend = MemoryBackend()
        else:
            self.backend = SQLiteBackend(self.path, durability="normal")
        self.queue = TaskQueue(self.backend)

    # -- what is stored ----------------------------------------------------------------------

    def total(self) -> int:
        """The number of tasks."""
        if self.path is None:
            (counted,) = self.backend.open_store().apply([Count()])
            return sum(number for _, _, number in counted.rows)
        ((number,),) = self._look("SELECT count(*) FROM sitq_tasks")
        return number

    def task(self, task_id: str) -> tuple:
        """Its state, attempts and crashes."""
        if self.path is None:
            (found,) = self.backend.open_store().apply([Fetch((task_id,))])
            row = found.rows[task_id]
            return str(row.state), row.attempt, row.crashes
        sql = f"SELECT state, attempt, crashes FROM sitq_tasks WHERE id = '{task_id}'"
        (row,) = self._look(sql)
        return row

    def _look(self, sql: str) -> list:
        """Look over a connection of its own, which could write at once."""
        if not os.path.exists(self.path) or os.path.getsize(self.path) == 0:
            return [(0,)]
        with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            rows = db.execute(sql).fetchall()
            db.execute("ROLLBACK")
            return rows

    async def flush(self) -> None:
        """Return once all that was asked of the writer before is stored, or never will be."""
        await self.queue.using(delay=3600).enqueue(pass_by)

    # -- what is left ------------------------------------------------------------------------

    def threads(self) -> list[str]:
        """Those of stores and leases that have come since."""
        ours = [t for t in threading.enumerate() if t not in self._threads and t.is_alive()]
        names = [thread.name for thread in ours]
        return [n for n in names if n.startswith("sitq") or "_connection_worker_thread" in n]

    def connections(self) -> int:
        """The stores of this file that are open."""
        stores = [s for s in list(sqlite._live) if s._settings.path == self.path]
        return sum(store._db is not None for store in stores)

    async def has(self, connections: int) -> None:
        """Check that just so many connections are open, once all threads had time to end."""
        if self.path is None:
            return
        await until(lambda: self.connections() == connections)
        threads = connections if self.is_real else 0
        await until(lambda: len(self.threads()) == threads)

    async def is_left(self) -> None:
        """Check that nothing is left of the file but the file."""
        await self.has(0)
        if self.path is None:
            return
        descriptors = [link for link in _descriptors() if link.startswith(self.path)]
        assert not descriptors
        gc.collect()
        for db in gc.get_objects():
            if type(db) is sqlite3.Connection:
                assert self.path not in _files(db)
        assert not _listed(self.path + "-workers")  # the liveness locks


def _listed(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.exists(folder) else []


def _descriptors() -> list[str]:
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return links


def _files(db: sqlite3.Connection) -> list[str]:
    try:
        return [file for _, _, file in db.execute("PRAGMA database_list").fetchall()]
    except sqlite3.ProgrammingError:
        return []  # it is closed, or of another thread
