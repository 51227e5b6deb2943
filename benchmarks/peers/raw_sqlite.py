"""The limit for all that is stored in SQLite: `executemany`, with nothing around it."""

import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import Call, Peer
from benchmarks.peers.by_hand import INSERT, SCHEMA


class Raw(Peer):
    def __init__(self, place: str, synchronous: str) -> None:
        super().__init__(place)
        self._synchronous = synchronous

    async def open(self) -> None:
        path = str(Path(self.place, "jobs.db"))
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._db.executescript(SCHEMA)

    async def enqueue(self, what: str, number: int) -> str:
        uid = uuid.uuid4().hex
        self._db.execute(INSERT, (uid, what, number))
        return uid

    async def enqueue_many(self, calls: Sequence[Call]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(INSERT, [(uuid.uuid4().hex, *call) for call in calls])
        self._db.execute("COMMIT")
