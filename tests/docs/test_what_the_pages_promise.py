"""Sentences of the pages that no example shows, held against the code."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from sitq import (
    MemoryBackend,
    SerializationError,
    SQLiteBackend,
    SyncTaskQueue,
    Task,
    TaskQueue,
    Worker,
)
from sitq.adapters import presence
from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import Count, Register, Reserve


def work() -> str:
    return "done"


# -- how-to/retries.md: "for all tasks that say nothing else" ------------------------------


def queues_of(backend: MemoryBackend) -> list[str]:
    (counted,) = backend.open_store().apply([Count()])
    return [queue for queue, _, n in counted.rows for _ in range(n)]


def test_the_defaults_of_a_queue_hold_for_a_task_with_an_eta() -> None:
    backend = MemoryBackend()
    queue = SyncTaskQueue(backend, queue="mail")

    queue.enqueue(work, eta=datetime.now(UTC) + timedelta(days=1))

    assert queues_of(backend) == ["mail"]


def test_the_defaults_of_a_queue_hold_for_a_task_with_options_of_its_own() -> None:
    backend = MemoryBackend()
    queue = SyncTaskQueue(backend, queue="mail")

    queue.enqueue_many([Task(work).using(priority=1)])

    assert queues_of(backend) == ["mail"]


# -- how-to/testing.md: "drain() works until nothing is due" -------------------------------


def leave_a_free_lock(backend: SQLiteBackend, worker_id: str) -> None:
    folder = Path(backend.path + "-workers")
    folder.mkdir()
    (folder / f"{worker_id}.lock").touch()


@pytest.mark.anyio
async def test_drain_runs_what_a_dead_worker_has_left(tmp_path, monkeypatch) -> None:
    backend = SQLiteBackend(tmp_path / "tasks.db")
    task_id = await TaskQueue(backend).enqueue(work)
    store = backend.open_store()
    dead = Register("dead", "here", 1, ("default",), 1, lease_for=3600.0)
    store.apply([dead])
    store.apply([Reserve("dead", ("default",), 1)])
    store.close()
    leave_a_free_lock(backend, "dead")
    look = presence.LockFiles.dead

    def a_little_later(self, worker_ids):  # as it is on a busy machine
        time.sleep(0.05)
        return look(self, worker_ids)

    monkeypatch.setattr(presence.LockFiles, "dead", a_little_later)
    await Worker(backend).drain()

    result = await TaskQueue(backend).get_result(task_id, timeout=0)
    assert result is not None
    assert (result.status, result.crashes) == ("success", 1)
    await backend.close()


# -- explanation/sqlite.md: the modes of what lies on the disk -----------------------------


@pytest.mark.anyio
async def test_all_that_lies_on_the_disk_is_for_its_owner_alone(tmp_path) -> None:
    backend = SQLiteBackend(tmp_path / "tasks.db")
    async with backend, Worker(backend):
        queue = TaskQueue(backend)
        assert await queue.result(await queue.enqueue(work)) == "done"
        found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    assert found == {
        "tasks.db": 0o600,
        "tasks.db-wal": 0o600,
        "tasks.db-shm": 0o600,
        "tasks.db-workers": 0o700,
    }


# -- explanation/security.md: what reads pickles, and what does not -------------------------


class Trap:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return _spring, ()


def _spring() -> None:
    raise AssertionError("a pickle was read")


def trap() -> Trap:
    return Trap()


@pytest.mark.anyio
async def test_asking_how_a_task_ended_reads_no_pickle() -> None:
    backend = MemoryBackend()
    queue = TaskQueue(backend)
    task_id = await queue.enqueue(trap)
    await Worker(backend).drain()

    result = await queue.get_result(task_id)
    assert result is not None
    assert result.status == "success"
    assert await queue.cancel(task_id) is False
    with pytest.raises(SerializationError, match="a pickle was read"):
        queue.deserialize_result(result)


# -- explanation/delivery.md: "hands it back; no attempt and no crash is charged" ------------


@pytest.mark.anyio
async def test_what_a_stop_interrupts_goes_back_without_a_charge() -> None:
    backend = MemoryBackend()
    queue = TaskQueue(backend)

    task_id = await queue.enqueue(anyio.sleep, 60)
    async with Worker(backend, grace=0):
        with anyio.fail_after(10):
            await something_runs(backend)
    await queue.cancel(task_id)

    result = await queue.get_result(task_id)
    assert result is not None
    assert (result.status, result.attempt, result.crashes) == ("cancelled", 0, 0)


async def something_runs(backend: MemoryBackend) -> None:
    def states() -> set[TaskState]:
        (counted,) = backend.open_store().apply([Count()])
        return {state for _, state, _ in counted.rows}

    while TaskState.RUNNING not in states():  # noqa: ASYNC110  # the store has no event to wait for
        await anyio.sleep(0.01)
