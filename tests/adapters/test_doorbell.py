"""What is committed by one session is heard by another at once, whatever loop each runs in."""

import logging
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sitq import SQLiteBackend, SyncTaskQueue, TaskQueue, Worker
from sitq.protocol import waiter

pytestmark = pytest.mark.anyio

NEVER = 3600.0
"""Seconds between two looks: what is found before that was told."""
SOON = 20.0


@pytest.fixture(autouse=True)
def without_looking(monkeypatch):
    monkeypatch.setattr(waiter, "QUICKEST", NEVER)
    monkeypatch.setattr(waiter, "SLOWEST", NEVER)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tasks.db"


async def idle_worker(backend, group) -> Worker:
    """A worker that has looked once, found nothing, and will not look again."""
    worker = Worker(backend, poll_interval=NEVER)
    group.start_soon(worker.start)
    done = await TaskQueue(backend).enqueue(len, "ab")
    with anyio.fail_after(SOON):
        assert await TaskQueue(backend).result(done) == 2
    return worker


async def stay_the_first_time(begun: str) -> str:
    if Path(begun).exists():  # noqa: ASYNC240
        return "again"
    Path(begun).touch()  # noqa: ASYNC240
    await anyio.sleep(NEVER)
    return "at last"


async def test_a_worker_hears_of_work_and_a_caller_of_its_end(path) -> None:
    async with (
        SQLiteBackend(path) as one,
        SQLiteBackend(path) as other,
        anyio.create_task_group() as group,
    ):
        worker = await idle_worker(one, group)
        queue = TaskQueue(other)
        with anyio.fail_after(SOON):
            for text in ("a", "abc"):
                assert await queue.result(await queue.enqueue(len, text)) == len(text)
        await worker.stop()


async def test_a_worker_hears_of_a_queue_without_a_loop(path) -> None:
    async with SQLiteBackend(path) as backend, anyio.create_task_group() as group:
        worker = await idle_worker(backend, group)
        with SyncTaskQueue(SQLiteBackend(path)) as queue:
            enqueue = partial(queue.enqueue, len, "abc")
            task_id = await anyio.to_thread.run_sync(enqueue)
        with anyio.fail_after(SOON):
            assert await TaskQueue(backend).result(task_id) == 3
        await worker.stop()


async def test_what_a_worker_hands_back_is_heard_by_another(path) -> None:
    async with (
        SQLiteBackend(path) as one,
        SQLiteBackend(path) as other,
        anyio.create_task_group() as group,
    ):
        first = await idle_worker(one, group)
        begun = path.with_name("begun")
        task_id = await TaskQueue(one).enqueue(stay_the_first_time, str(begun))
        with anyio.fail_after(SOON):
            while not begun.exists():  # noqa: ASYNC110  # a task of another session makes it
                await anyio.sleep(0.01)
            second = await idle_worker(other, group)  # the first has no slot free
            await first.stop(grace=0)
            assert await TaskQueue(one).result(task_id) == "again"
        await second.stop()


async def test_nothing_is_left_in_the_folder_when_all_are_closed(path) -> None:
    async with SQLiteBackend(path) as backend, anyio.create_task_group() as group:
        worker = await idle_worker(backend, group)
        folder = path.with_name("tasks.db-workers")
        assert {file.suffix for file in folder.iterdir()} == {".lock", ".work", ".ends"}
        await worker.stop()
    assert list(folder.iterdir()) == []


def test_one_loop_after_another_hangs_bells_of_its_own(path, caplog) -> None:
    caplog.set_level(logging.INFO)
    backend = SQLiteBackend(path)

    async def once() -> int:
        queue = TaskQueue(backend)
        async with Worker(backend, poll_interval=0.02):
            return await queue.result(await queue.enqueue(len, "abc"))

    assert [anyio.run(once, backend=loop) for loop in ("asyncio", "trio", "asyncio")] == [3, 3, 3]
    folder = path.with_name("tasks.db-workers")
    assert len(list(folder.glob("*.work"))) <= 1
    assert not [record for record in caplog.records if record.name == "sitq.bells"]
