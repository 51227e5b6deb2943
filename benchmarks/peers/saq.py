"""SAQ on Redis."""

from typing import Any

import saq

from benchmarks import tasks
from benchmarks.peers.base import Peer


async def act(_: Any, *, what: str, number: int) -> int:
    return await tasks.act(what, number)


class OnRedis(Peer):
    slots = 10  # its default; more is not faster
    has_bulk = False

    async def open(self) -> None:
        self._queue = saq.Queue.from_url(self.place)
        await self._queue.connect()

    async def enqueue(self, what: str, number: int) -> Any:
        return await self._queue.enqueue("act", what=what, number=number, timeout=3600)

    async def result(self, handle: Any) -> Any:
        await handle.refresh(until_complete=0)
        return handle.result

    async def work(self, slots: int) -> None:
        await saq.Worker(self._queue, [act], concurrency=slots).start()
