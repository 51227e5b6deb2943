"""pgqueuer on Postgres. It keeps no results; that a task has ended can be waited for."""

import json
from collections.abc import Sequence
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.core.completion import CompletionWatcher
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from benchmarks import tasks
from benchmarks.peers.base import Call, Peer


def payload(call: Call) -> bytes:
    return json.dumps(call).encode()


class OnPostgres(Peer):
    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self.place, min_size=2, max_size=10)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        self._watcher: Any = None
        if not await self._queries.has_table("pgqueuer"):
            await self._queries.install()

    async def enqueue(self, what: str, number: int) -> Any:
        return (await self._queries.enqueue("act", payload((what, number))))[0]

    async def enqueue_many(self, calls: Sequence[Call]) -> None:
        many = len(calls)
        await self._queries.enqueue(["act"] * many, [payload(call) for call in calls], [0] * many)

    async def result(self, handle: Any) -> Any:
        if self._watcher is None:
            driver = AsyncpgDriver(await asyncpg.connect(self.place))
            self._watcher = CompletionWatcher(driver, queries=Queries(driver))
            await self._watcher.__aenter__()
        return await self._watcher.wait_for(handle)

    async def work(self, slots: int) -> None:
        worker = PgQueuer.from_asyncpg_pool(self._pool)

        @worker.entrypoint("act")
        async def act(job: Any) -> None:
            await tasks.act(*json.loads(job.payload))

        await worker.run(batch_size=slots)
