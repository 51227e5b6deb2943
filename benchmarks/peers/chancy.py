"""chancy on Postgres. It keeps no results; that a task has ended can be waited for, by polling."""

import logging
from collections.abc import Sequence
from typing import Any

from chancy import Chancy, Queue, Worker, job

from benchmarks import tasks
from benchmarks.peers.base import MANY, NOTHING, Call, Copy, Peer, copy_on_postgres

WAITING = Copy("chancy_jobs", "state = 'pending'", {"id": "gen_random_uuid()"})


@job(queue="default")
async def act(*, what: str, number: int) -> None:
    await tasks.act(what, number)


class OnPostgres(Peer):
    async def open(self) -> None:
        log = logging.getLogger("chancy")
        log.setLevel(logging.WARNING)
        self._chancy = Chancy(self.place, log=log)
        await self._chancy.__aenter__()
        await self._chancy.migrate()

    async def enqueue(self, what: str, number: int) -> Any:
        return await self._chancy.push(act.job.with_kwargs(what=what, number=number))

    async def enqueue_many(self, calls: Sequence[Call]) -> None:
        jobs = [act.job.with_kwargs(what=what, number=number) for what, number in calls]
        async for _ in self._chancy.push_many(jobs):
            pass

    async def result(self, handle: Any) -> Any:
        return await self._chancy.wait_for_job(handle)

    async def work(self, slots: int) -> None:
        # Without eager polling it takes no more than so many tasks in each interval.
        await self._chancy.declare(
            Queue(
                "default",
                concurrency=slots,
                executor=Chancy.Executor.Async,
                eager_polling=True,
                polling_interval=1,
            )
        )
        async with Worker(self._chancy) as worker:
            await worker.wait_for_shutdown()

    async def fill(self, count: int) -> None:
        if count <= MANY:
            await super().fill(count)
            return
        await self.enqueue(*NOTHING)
        copy_on_postgres(self.place, WAITING, count)
