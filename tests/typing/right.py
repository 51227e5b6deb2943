"""Every line of this file must type-check, with these very types."""

from datetime import UTC, datetime, timedelta
from typing import assert_type

import psycopg

from sitq import (
    MemoryBackend,
    Result,
    Retry,
    SQLiteBackend,
    SyncTaskQueue,
    Task,
    TaskId,
    TaskQueue,
    Worker,
    current_task,
)

backend = MemoryBackend()
queue = TaskQueue(backend, queue="mail", timeout=5)
sync = SyncTaskQueue(SQLiteBackend("x.db"))


def add(a: int, b: int = 2) -> int:
    return a + b


async def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@queue.task
async def send(to: str) -> bytes:
    return to.encode()


@queue.task(retry=Retry(attempts=5), timeout=timedelta(minutes=1))
def count(words: list[str]) -> int:
    return len(words)


@sync.task
def size(path: str) -> int:
    return len(path)


@sync.task(priority=3)
async def name(path: str) -> str:
    return path


async def main() -> None:
    assert_type(await queue.enqueue(add, 1), TaskId[int])
    assert_type(await queue.enqueue(add, 1, b=3), TaskId[int])
    assert_type(await queue.enqueue(greet, "Ann", loud=True), TaskId[str])
    assert_type(await queue.enqueue(greet, "Ann", eta=datetime.now(UTC)), TaskId[str])
    assert_type(await queue.enqueue(send, "Ann"), TaskId[bytes])
    assert_type(await queue.using(delay=5, priority=1).enqueue(add, 1), TaskId[int])
    assert_type(await send.enqueue("Ann"), TaskId[bytes])
    assert_type(await send.using(task_id="x").enqueue(to="Ann"), TaskId[bytes])
    assert_type(await count.enqueue(["a"]), TaskId[int])
    assert_type(await send("Ann"), bytes)
    assert_type(count(["a"]), int)

    assert_type(Task(add, 1), Task[int])
    assert_type(Task(greet, "Ann"), Task[str])
    assert_type(send.call("Ann"), Task[bytes])
    assert_type(await queue.enqueue_many([Task(add, n) for n in range(3)]), list[TaskId[int]])

    task_id = await queue.enqueue(greet, "Ann")
    assert_type(await queue.result(task_id), str)
    assert_type(await queue.get_result(task_id, timeout=timedelta(seconds=1)), Result | None)
    assert_type(await queue.get_results([task_id]), dict[str, Result])
    assert_type(await queue.cancel(task_id), bool)
    text: str = task_id  # an id is a string
    async with Worker(backend, max_concurrency=4, queues=["mail"]) as worker:
        await worker.stop(grace=timedelta(seconds=1))
    print(text)


async def within(own: psycopg.AsyncConnection) -> None:
    assert_type(await queue.within(own).enqueue(greet, "Ann"), TaskId[str])
    assert_type(await queue.within(own).using(priority=1).enqueue(send, "Ann"), TaskId[bytes])
    await current_task().finish("done", within=own)


def within_without_a_loop(own: psycopg.Connection) -> None:
    assert_type(sync.within(own).enqueue(greet, "Ann"), TaskId[str])
    assert_type(sync.within(own).enqueue_many([Task(add, 1)]), list[TaskId[int]])
    current_task().finish("done", within=own)
    assert_type(current_task().id, str)


def without_a_loop() -> None:
    assert_type(sync.enqueue(add, 1), TaskId[int])
    assert_type(sync.enqueue(greet, "Ann"), TaskId[str])
    assert_type(sync.enqueue(send, "Ann"), TaskId[bytes])
    assert_type(sync.using(queue="mail").enqueue(greet, "Ann"), TaskId[str])
    assert_type(size.enqueue("x"), TaskId[int])
    assert_type(name.enqueue("x"), TaskId[str])
    assert_type(sync.result(sync.enqueue(greet, "Ann")), str)
    assert_type(sync.enqueue_many([Task(add, 1)]), list[TaskId[int]])
