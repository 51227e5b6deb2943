"""How a worker hears of what its own process stores: in the transaction itself, and in its own turn."""

import threading
from contextvars import ContextVar

import anyio
import pytest

from sitq import SQLiteBackend, TaskQueue, Worker
from sitq.adapters.committer import Committer
from sitq.adapters.doorbell import ring
from sitq.protocol.ops import Enqueue, Reserve, Settle

pytestmark = pytest.mark.anyio

NEVER = 3600.0
SOON = 20.0
WHOSE = ContextVar("whose", default="nobody's")


def whose() -> str:
    return WHOSE.get()


async def change_whose() -> str:
    before = WHOSE.get()
    WHOSE.set("a task's")
    return before


@pytest.fixture
def batches(monkeypatch):
    """The kinds of ops of every transaction that writes, once all who asked have their answer."""
    seen = []
    landed = Committer._landed

    def noting(committer, batch_id, ops, answer):
        landed(committer, batch_id, ops, answer)
        kinds = [
            kind.__name__ for kind in (Settle, Enqueue, Reserve) if kind in set(map(type, ops))
        ]
        if kinds:
            seen.append(kinds)

    monkeypatch.setattr(Committer, "_landed", noting)
    return seen


async def until(condition) -> None:
    with anyio.fail_after(SOON):
        while not condition():  # noqa: ASYNC110  # what a thread has done makes it true
            await anyio.sleep(0.002)


async def test_an_idle_worker_reserves_in_the_transaction_that_enqueues(tmp_path, batches) -> None:
    async with SQLiteBackend(tmp_path / "tasks.db") as backend:
        queue = TaskQueue(backend)
        async with Worker(backend, max_concurrency=2, poll_interval=NEVER):
            await until(lambda: batches == [["Reserve"]])
            for _ in range(3):
                batches.clear()
                with anyio.fail_after(SOON):
                    assert await queue.result(await queue.enqueue(len, "abc")) == 3
                await until(lambda: len(batches) >= 2)
                assert batches == [["Enqueue", "Reserve"], ["Settle", "Reserve"]]


async def test_one_that_serves_other_queues_leaves_it_alone(tmp_path, batches) -> None:
    async with SQLiteBackend(tmp_path / "tasks.db") as backend:
        async with Worker(backend, poll_interval=NEVER, queues=["mail"]):
            await until(lambda: batches == [["Reserve"]])
            await TaskQueue(backend).enqueue(len, "abc")
            await until(lambda: len(batches) >= 2)
        assert batches[1] == ["Enqueue"]


async def test_tasks_inherit_what_was_set_when_their_worker_began(tmp_path) -> None:
    WHOSE.set("the worker's")
    async with SQLiteBackend(tmp_path / "tasks.db") as backend:
        queue = TaskQueue(backend)
        async with Worker(backend, poll_interval=NEVER):
            WHOSE.set("the caller's")
            for function in (whose, change_whose, change_whose, whose):
                with anyio.fail_after(SOON):
                    found = await queue.result(await queue.enqueue(function))
                assert found == "the worker's"


async def test_other_processes_are_told_by_the_thread_that_commits(tmp_path, monkeypatch) -> None:
    rung = []

    def note(*args) -> None:
        rung.append(threading.current_thread())
        ring(*args)

    monkeypatch.setattr("sitq.adapters.doorbell.ring", note)
    async with SQLiteBackend(tmp_path / "tasks.db") as backend:
        await TaskQueue(backend).enqueue(len, "abc")
    (thread,) = rung
    assert thread is not threading.current_thread()
