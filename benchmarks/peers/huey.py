"""huey on SQLite. Its tasks are plain functions, and so are its calls."""

import asyncio
from pathlib import Path
from typing import Any

from huey import SqliteHuey
from huey.consumer import Consumer

from benchmarks.peers.base import Copy, Peer, copy_on_sqlite
from benchmarks.tasks import act_now


class OnSqlite(Peer):
    slots = 4
    has_bulk = False

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._path = str(Path(place, "huey.db"))
        self._huey = SqliteHuey("bench", filename=self._path)
        self._act = self._huey.task()(act_now)

    async def enqueue(self, what: str, number: int) -> Any:
        return self._act(what, number)

    async def enqueue_among_many(self, what: str, number: int) -> Any:
        return await asyncio.to_thread(self._act, what, number)

    async def result(self, handle: Any) -> Any:
        return await asyncio.to_thread(handle.get, blocking=True)

    async def work(self, slots: int) -> None:
        # With its defaults: it polls every 0.1 s, and up to every 10 s when there is nothing.
        Consumer(self._huey, workers=slots, worker_type="thread").run()

    async def fill(self, count: int) -> None:
        self._act("mark", 0)
        copy_on_sqlite(self._path, Copy("task", "true", {"id": None}), count)
