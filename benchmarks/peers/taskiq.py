"""taskiq on Redis: its stream, whose messages are acknowledged, and results in Redis as well."""

from typing import Any

from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import tasks
from benchmarks.peers.base import Peer


async def act(what: str, number: int) -> int:
    return await tasks.act(what, number)


class OnRedis(Peer):
    has_bulk = False

    def __init__(self, place: str) -> None:
        super().__init__(place)
        results: Any = RedisAsyncResultBackend(place, result_ex_time=3600)
        self._broker = RedisStreamBroker(place).with_result_backend(results)
        self._act = self._broker.register_task(act, "act")

    async def open(self) -> None:
        await self._broker.startup()

    async def enqueue(self, what: str, number: int) -> Any:
        return await self._act.kiq(what, number)

    async def result(self, handle: Any) -> Any:
        return (await handle.wait_result()).return_value

    async def work(self, slots: int) -> None:
        await run_receiver_task(self._broker, max_async_tasks=slots)
