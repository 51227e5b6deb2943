"""Some minutes of a small shop, which leaves little of sitq out; told line by line, with times and ids.

    python -m tests.testing.story LOOP SEED [FILE]

prints the lines of one virtual run.
"""

import sys
from datetime import timedelta

import anyio

from sitq import MemoryBackend, Retry, SQLiteBackend, SyncTaskQueue, TaskQueue, Worker, testing

lines: list[str] = []


def note(text: str) -> None:
    lines.append(f"{testing.now():%d %H:%M:%S.%f} {text}")


async def bake(n: int) -> int:
    await anyio.sleep(60)
    note(f"baked {n}")
    return n


async def ask_the_miller(n: int) -> None:
    note(f"asked for {n}")
    raise ConnectionError("the miller does not answer")


async def wait_for_ever() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        note("stopped waiting")


def count_the_till(n: int) -> int:
    note(f"counted {n}")
    return n * n


def deliver(n: int):
    note(f"left with {n}")
    return bake(n)


async def shop(file: str | None) -> None:
    backend = SQLiteBackend(file, durability="normal") if file else MemoryBackend()
    queue = TaskQueue(backend)
    async with backend, Worker(backend, max_concurrency=8), Worker(backend, max_concurrency=3):
        ids = [await queue.enqueue(bake, n) for n in range(20)]
        ids += [await queue.using(delay=30 * n).enqueue(bake, 100 + n) for n in range(5)]
        ids += [
            await queue.using(eta=testing.now() + timedelta(minutes=4)).enqueue(count_the_till, n)
            for n in range(5)
        ]
        ids.append(await queue.using(retry=Retry(attempts=4, delay=5.0)).enqueue(ask_the_miller, 1))
        ids.append(await queue.using(timeout=30).enqueue(wait_for_ever))
        ids.append(await queue.enqueue(deliver, 7))
        with SyncTaskQueue(backend) as desk:
            ids.append(desk.enqueue(count_the_till, 12))
        unwanted = await queue.enqueue(wait_for_ever)
        await anyio.sleep(100)
        await queue.cancel(unwanted)
        async with anyio.create_task_group() as waiting:
            for task_id in (*ids, unwanted):
                waiting.start_soon(tell_the_end, queue, task_id)
    async with anyio.create_task_group() as idle:
        for n in range(10):
            idle.start_soon(idle_about, n)
        await anyio.sleep(1)
        idle.cancel_scope.cancel()


async def tell_the_end(queue: TaskQueue, task_id: str) -> None:
    result = await queue.get_result(task_id)
    assert result is not None
    note(f"{task_id} {result.status} {result.attempt} {result.error} {result.finished_at}")


async def idle_about(n: int) -> None:
    try:
        await anyio.sleep(3600)
    finally:
        note(f"sent home {n}")


def tell(loop: str, seed: int, file: str | None = None) -> list[str]:
    lines.clear()
    testing.run(shop, file, backend=loop, seed=seed)
    return lines[:]


if __name__ == "__main__":
    from tests.testing import story  # so that tasks and lines belong to one and the same module

    _, loop, seed, *file = sys.argv
    print(*story.tell(loop, int(seed), *file), sep="\n")
