"""What each peer has to offer: the interface of the files in this folder.

A peer enqueues calls of `act(what, number)`, works on them, and waits for their results. What its
library has no call for, it leaves as it is here, and its row in the table of peers says so.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from benchmarks import loop

Call: TypeAlias = tuple[str, int]

NOTHING: Call = ("mark", 0)
MANY = 2_000
"""Tasks above which a row is copied rather than enqueued so often."""
AT_ONCE = 1000
"""Tasks in one call of the bulk road."""


class Peer:
    """*place*: a folder, or the URL of a server."""

    slots = 100
    """Tasks at a time in one worker, unless the workload says otherwise."""
    has_bulk = True
    """Whether it has a call that enqueues many tasks at once."""

    def __init__(self, place: str) -> None:
        self.place = place

    async def open(self) -> None:
        """Connect, and make the tables if they are not there."""

    async def enqueue(self, what: str, number: int) -> Any:
        """Enqueue one call, durably; return what `result` takes."""
        raise NotImplementedError

    async def enqueue_among_many(self, what: str, number: int) -> Any:
        """Do the same, where many callers do so at the same time."""
        return await self.enqueue(what, number)

    async def enqueue_many(self, calls: Sequence[Call]) -> None:
        raise NotImplementedError

    async def result(self, handle: Any) -> Any:
        """Wait until the task has ended."""
        raise NotImplementedError

    async def work(self, slots: int) -> None:
        """Run tasks, *slots* at a time, for ever."""
        raise NotImplementedError

    async def work_beside(self, slots: int) -> None:
        """Do the same beside the caller, in the same event loop."""
        await self.work(slots)

    async def feed(self, calls: Sequence[Call]) -> None:
        """Enqueue all of *calls*, by the quickest way that there is."""
        step = AT_ONCE if self.has_bulk else self.slots
        for start in range(0, len(calls), step):
            some = calls[start : start + step]
            if self.has_bulk:
                await self.enqueue_many(some)
            else:
                await loop.together(partial(self.enqueue, *call) for call in some)

    async def fill(self, count: int) -> None:
        """Let *count* tasks that do nothing wait."""
        await self.feed([NOTHING] * count)

    async def retire(self, count: int) -> None:
        """Leave *count* tasks in the store that ended more than a week ago. Nobody works."""
        raise NotImplementedError

    async def retired(self) -> int:
        """Return how many finished tasks the store has."""
        raise NotImplementedError


class Copy(NamedTuple):
    """A row that is to be copied: one of *table* for which *which* holds.

    *anew* has an expression for what must differ, or None where the database has a default.
    """

    table: str
    which: str
    anew: Mapping[str, str | None]


def copies(copy: Copy, columns: Sequence[str], count: int) -> str:
    """Return SQL that makes so many of them, for SQLite and for Postgres."""
    table, which, anew = copy
    kept = [name for name in columns if anew.get(name, name) is not None]
    names = ", ".join(f'"{name}"' for name in kept)
    values = ", ".join(anew.get(name) or f'"{name}"' for name in kept)
    return (
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        f" INSERT INTO {table} ({names}) SELECT {values} FROM n"
        f" CROSS JOIN (SELECT * FROM {table} WHERE {which} LIMIT 1) AS one"
    )


def copy_on_sqlite(path: str, copy: Copy, count: int, *, first: str = "") -> None:
    """Let there be *count* of the row, after the statement *first*."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({copy.table})")]
    if first:
        connection.execute(first)
    connection.execute(copies(copy, columns, count - 1))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def copy_on_postgres(url: str, copy: Copy, count: int) -> None:
    """Do the same, and let Postgres look at what has become of the table."""
    import psycopg

    query = (
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name = %s AND is_generated = 'NEVER'"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        columns = [row[0] for row in connection.execute(query, [copy.table])]
        connection.execute(copies(copy, columns, count - 1))
        connection.execute(f"VACUUM ANALYZE {copy.table}")


def count_rows(path: str, table: str, condition: str) -> int:
    connection = sqlite3.connect(path, timeout=60)
    ((count,),) = connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}")
    connection.close()
    return int(count)
