"""What all are compared with: a loop of some lines over aiosqlite, as one writes it without a library.

It claims ten tasks, runs them at the same time, and stores their ten results in one transaction. It
has no leases, no retries and no shutdown; a task whose worker dies is lost. It polls.
"""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

import aiosqlite

from benchmarks.peers.base import MANY, NOTHING, Call, Copy, Peer, copy_on_sqlite, count_rows
from benchmarks.tasks import act

POLL = 0.01
LOOK = 0.005
"""Seconds between two looks for a result."""
AT_ONCE = 10
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL, what TEXT NOT NULL, number INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0, priority INTEGER NOT NULL DEFAULT 0, result
);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_uid ON jobs (uid);
CREATE INDEX IF NOT EXISTS jobs_waiting ON jobs (priority, id) WHERE state = 0;
"""
INSERT = "INSERT INTO jobs (uid, what, number) VALUES (?, ?, ?)"
CLAIM = """
UPDATE jobs SET state = 1 WHERE id IN
    (SELECT id FROM jobs WHERE state = 0 ORDER BY priority, id LIMIT ?)
RETURNING id, what, number
"""
END = "UPDATE jobs SET state = 2, result = ? WHERE id = ? AND state = 1"
ANEW = {"id": None, "uid": "lower(hex(randomblob(16)))"}


class ByHand(Peer):
    def __init__(self, place: str, synchronous: str) -> None:
        super().__init__(place)
        self._path = str(Path(place, "jobs.db"))
        self._synchronous = synchronous

    async def open(self) -> None:
        self._db = await aiosqlite.connect(self._path, isolation_level=None, timeout=30)
        await self._db.execute("PRAGMA journal_mode = WAL")
        await self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
        await self._db.executescript(SCHEMA)

    async def enqueue(self, what: str, number: int) -> str:
        uid = uuid.uuid4().hex
        await self._db.execute(INSERT, (uid, what, number))
        return uid

    async def enqueue_many(self, calls: Sequence[Call]) -> None:
        await self._db.execute("BEGIN IMMEDIATE")
        await self._db.executemany(INSERT, [(uuid.uuid4().hex, *call) for call in calls])
        await self._db.execute("COMMIT")

    async def result(self, handle: str) -> int:
        query = "SELECT result FROM jobs WHERE uid = ? AND state = 2"
        while True:
            for (result,) in await self._db.execute_fetchall(query, (handle,)):
                return result
            await asyncio.sleep(LOOK)

    async def work(self, slots: int) -> None:
        at_once = AT_ONCE if slots == self.slots else slots
        while True:
            rows = list(await self._db.execute_fetchall(CLAIM, (at_once,)))
            if not rows:
                await asyncio.sleep(POLL)
                continue
            results = await asyncio.gather(*(act(what, number) for _, what, number in rows))
            await self._db.execute("BEGIN IMMEDIATE")
            ended = [(result, row[0]) for result, row in zip(results, rows, strict=True)]
            await self._db.executemany(END, ended)
            await self._db.execute("COMMIT")

    async def work_beside(self, slots: int) -> None:
        beside = ByHand(self.place, self._synchronous)  # a transaction is of one connection
        await beside.open()
        await beside.work(slots)

    async def fill(self, count: int) -> None:
        if count <= MANY:
            await super().fill(count)
            return
        await self.enqueue(*NOTHING)
        copy_on_sqlite(self._path, Copy("jobs", "state = 0", ANEW), count)

    async def retire(self, count: int) -> None:
        await self.enqueue(*NOTHING)
        end = "UPDATE jobs SET state = 2, result = 1"
        copy_on_sqlite(self._path, Copy("jobs", "state = 2", ANEW), count, first=end)

    async def retired(self) -> int:
        return count_rows(self._path, "jobs", "state = 2")
