"""sitq itself, on a file and on Postgres."""

import gc
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import (
    MANY,
    NOTHING,
    Call,
    Copy,
    Peer,
    copy_on_postgres,
    copy_on_sqlite,
    count_rows,
)
from benchmarks.tasks import act
from sitq import Backend, PostgresBackend, SQLiteBackend, Task, TaskId, TaskQueue, Worker
from sitq.adapters.sqlite import Durability
from sitq.protocol.lifecycle import TaskState

NOW = "unixepoch() * 1000"
LONG_AGO = f"{NOW} - 1000000000"
# Ids as `sitq.adapters.ids` makes them, ten in a millisecond: those of tasks that were enqueued one
# after the other, and end and are pruned like that, lie side by side in their index.
AFRESH = {
    "seq": "nextval('task_numbers')",
    "id": r"""regexp_replace(
        lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint + i / 10), 12, '0')
            || '7' || substr(md5(random()::text), 14),
        '(.{8})(.{4})(.{4})(.{4})', '\1-\2-\3-\4-'
    )""",
}


def anew(since_ms: str) -> dict[str, str | None]:
    """Let SQLite number a task, and make its id of so many ms since 1970, an SQL expression."""
    ms = f"({since_ms} + i / 10)"
    return {
        "seq": None,
        "id": f"""printf(
            '%08x-%04x-7%03x-%04x-%012x', {ms} >> 16, {ms} & 65535, random() & 4095,
            32768 | (random() & 16383), random() & 281474976710655
        )""",
    }


ENDED = TaskState.SUCCESS
END = f"""
    UPDATE sitq_tasks SET state = '{ENDED}', started_ms = 0, finished_ms = {LONG_AGO},
        result = payload WHERE state = '{TaskState.QUEUED}'
"""


class Sitq(Peer):
    def __init__(self, place: str, backend: Backend) -> None:
        super().__init__(place)
        self._backend = backend
        self._queue = TaskQueue(backend)

    async def open(self) -> None:
        await self._backend.connect()

    async def enqueue(self, what: str, number: int) -> TaskId[int]:
        return await self._queue.enqueue(act, what, number)

    async def enqueue_many(self, calls: Sequence[Call]) -> None:
        await self._queue.enqueue_many(Task(act, what, number) for what, number in calls)

    async def result(self, handle: TaskId[int]) -> int:
        return await self._queue.result(handle)

    async def work(self, slots: int) -> None:
        """Work as `sitq worker` does: full collections of garbage pass over what was imported."""
        gc.collect()
        gc.freeze()
        await self.work_beside(slots)

    async def work_beside(self, slots: int) -> None:
        await Worker(self._backend, max_concurrency=slots).start()


class OnPostgres(Sitq):
    """*place*: behind a #, it may name a schema."""

    def __init__(self, place: str) -> None:
        url, _, schema = place.partition("#")
        super().__init__(url, PostgresBackend(url, schema=schema or "sitq"))

    async def fill(self, count: int) -> None:
        if count <= MANY:
            await super().fill(count)
            return
        await self.enqueue(*NOTHING)
        its_schema = f"{self.place}?options=-csearch_path%3Dsitq"
        copy_on_postgres(its_schema, Copy("tasks", f"state = '{TaskState.QUEUED}'", AFRESH), count)


class OnSqlite(Sitq):
    def __init__(self, place: str, durability: Durability) -> None:
        self._path = str(Path(place, "tasks.db"))
        super().__init__(place, SQLiteBackend(self._path, durability=durability))

    async def fill(self, count: int) -> None:
        if count <= MANY:
            await super().fill(count)
            return
        await self.enqueue(*NOTHING)
        queued = Copy("sitq_tasks", f"state = '{TaskState.QUEUED}'", anew(NOW))
        copy_on_sqlite(self._path, queued, count)

    async def retire(self, count: int) -> None:
        await self.enqueue(*NOTHING)
        ended = Copy("sitq_tasks", f"state = '{ENDED}'", anew(LONG_AGO))
        copy_on_sqlite(self._path, ended, count, first=END)

    async def retired(self) -> int:
        return count_rows(self._path, "sitq_tasks", f"finished_ms <= {LONG_AGO}")
