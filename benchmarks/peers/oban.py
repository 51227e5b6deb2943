"""oban on Postgres. Results can be recorded, but not waited for."""

import asyncio
from collections.abc import Sequence
from typing import Any

from oban import Oban, worker
from oban.schema import install

from benchmarks import tasks
from benchmarks.peers.base import MANY, NOTHING, Call, Copy, Peer, copy_on_postgres

WAITING = Copy("oban_jobs", "state = 'available'", {"id": None})


@worker(queue="default")
class Act:
    async def process(self, job: Any) -> None:
        await tasks.act(job.args["what"], job.args["number"])


class OnPostgres(Peer):
    async def open(self) -> None:
        self._pool = await Oban.create_pool(self.place)
        async with self._pool.connection() as connection:
            found = await connection.execute("SELECT to_regclass('oban_jobs')")
            there = (await found.fetchone())[0]
        if there is None:
            await install(self._pool)
        self._oban = Oban(pool=self._pool)
        await self._oban.start()

    async def enqueue(self, what: str, number: int) -> Any:
        return await self._oban.enqueue(Act.new({"what": what, "number": number}))

    async def enqueue_many(self, calls: Sequence[Call]) -> None:
        await self._oban.enqueue_many([Act.new({"what": w, "number": n}) for w, n in calls])

    async def work(self, slots: int) -> None:
        async with Oban(pool=self._pool, name="worker", queues={"default": slots}):
            await asyncio.Event().wait()

    async def fill(self, count: int) -> None:
        if count <= MANY:
            await super().fill(count)
            return
        await self.enqueue(*NOTHING)
        copy_on_postgres(self.place, WAITING, count)
