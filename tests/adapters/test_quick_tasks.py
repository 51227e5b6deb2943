"""Of tasks that are over at once, SQLite is told together, where that saves transactions."""

import pytest

from sitq import SQLiteBackend, Task, TaskQueue, Worker
from sitq.adapters.on_asyncio import AiosqliteDriver
from sitq.adapters.sqlite import SqliteStore
from sitq.protocol import ahead
from sitq.protocol.ops import Settle

pytestmark = pytest.mark.anyio

SLOTS = 10


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def settled(monkeypatch) -> list[int]:
    """How many tasks were settled, by each transaction that settled any.

    None is handed back, however long this machine stands still.
    """
    monkeypatch.setattr(ahead, "PATIENCE", 1000)
    seen = []
    apply = SqliteStore.apply

    def noting(store, ops):
        settles = sum(isinstance(op, Settle) for op in ops)
        if settles:
            seen.append(settles)
        return apply(store, ops)

    monkeypatch.setattr(SqliteStore, "apply", noting)
    return seen


async def nothing() -> None:
    pass


async def test_all_that_was_held_ahead_is_settled_together(tmp_path, settled, monkeypatch) -> None:
    """And not slot by slot, with the questions for more in transactions of their own."""
    monkeypatch.setattr(AiosqliteDriver, "quick", 10.0)  # however busy this machine is
    async with SQLiteBackend(tmp_path / "tasks.db") as backend:
        await TaskQueue(backend).enqueue_many([Task(nothing) for _ in range(400)])
        await Worker(backend, max_concurrency=SLOTS).drain()
    assert sum(settled) == 400
    once_known_to_be_short = settled[1:-1]
    assert all(settles > SLOTS for settles in once_known_to_be_short)
