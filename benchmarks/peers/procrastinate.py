"""procrastinate on Postgres. It keeps no results."""

from collections.abc import Sequence
from typing import Any

from procrastinate import App, PsycopgConnector

from benchmarks import tasks
from benchmarks.peers.base import MANY, NOTHING, Call, Copy, Peer, copy_on_postgres

WAITING = Copy("procrastinate_jobs", "status = 'todo'", {"id": None})


async def act(what: str, number: int) -> int:
    return await tasks.act(what, number)


class OnPostgres(Peer):
    slots = 10  # its default is 1

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._app = App(connector=PsycopgConnector(conninfo=place, min_size=4, max_size=20))
        self._act = self._app.task(act, name="act")

    async def open(self) -> None:
        await self._app.open_async()
        if not await self._app.check_connection_async():
            await self._app.schema_manager.apply_schema_async()

    async def enqueue(self, what: str, number: int) -> Any:
        return await self._act.defer_async(what=what, number=number)

    async def enqueue_many(self, calls: Sequence[Call]) -> None:
        await self._act.batch_defer_async(*({"what": w, "number": n} for w, n in calls))

    async def work(self, slots: int) -> None:
        await self._app.run_worker_async(concurrency=slots, install_signal_handlers=False)

    async def fill(self, count: int) -> None:
        if count <= MANY:
            await super().fill(count)
            return
        await self.enqueue(*NOTHING)
        copy_on_postgres(self.place, WAITING, count)
