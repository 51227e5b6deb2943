"""Two versions of sitq on one file: the older stops before it writes to what it does not know."""

import sqlite3
from contextlib import closing

import anyio
import pytest

from sitq import (
    ForeignFileError,
    NewerSchemaError,
    SQLiteBackend,
    SyncTaskQueue,
    TaskQueue,
    Worker,
)
from sitq.adapters.base import BatchError
from sitq.protocol.commit import Blame
from sitq.storage import sqlite_schema
from sitq.storage.sqlite_schema import STEPS, VERSION
from tests.adapters.asked import count, enqueue

NEXT_STEP = ("CREATE TABLE sitq_colours (name TEXT NOT NULL) STRICT",)


def change(path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def migrate(path) -> None:
    """Do to the file what the next version of sitq would."""
    change(
        path, "BEGIN IMMEDIATE", *NEXT_STEP, f"UPDATE sitq_schema SET version = {VERSION + 1}",
        "COMMIT",
    )  # fmt: skip


def rows(path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM sitq_tasks").fetchall()


@pytest.fixture
def next_version(monkeypatch):
    """Return a switch: from then on this process is one of the next version."""

    def upgrade() -> None:
        monkeypatch.setattr(sqlite_schema, "STEPS", (*STEPS, NEXT_STEP))
        monkeypatch.setattr(sqlite_schema, "VERSION", VERSION + 1)

    return upgrade


def test_one_that_is_open_is_refused_before_anything_is_written(open_store, sqlite_path) -> None:
    store = open_store()
    store.apply([enqueue("before")])
    migrate(sqlite_path)
    before = rows(sqlite_path)

    for ask in (lambda: store.apply([enqueue("after")]), lambda: count(store)):
        with pytest.raises(BatchError, match="Upgrade sitq here, too") as caught:
            ask()
        assert isinstance(caught.value.error, NewerSchemaError)
        assert caught.value.blame is Blame.STORE
    assert rows(sqlite_path) == before


begun = [None]


async def stay() -> None:
    begun[0].set()
    await anyio.sleep_forever()


@pytest.mark.anyio
async def test_a_worker_of_the_older_version_ends_with_the_error(sqlite_path) -> None:
    queue = TaskQueue(SQLiteBackend(sqlite_path))

    began = begun[0] = anyio.Event()
    async with queue.backend:
        await queue.enqueue(stay)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:

                @tasks.start_soon
                async def work() -> None:
                    with pytest.raises(NewerSchemaError, match=sqlite_path):
                        await Worker(queue.backend).start()

                await began.wait()
                migrate(sqlite_path)
                before = rows(sqlite_path)
    assert rows(sqlite_path) == before


def test_a_process_of_the_older_version_ends_with_the_error(crew, tasks) -> None:
    with SyncTaskQueue(SQLiteBackend(crew.path)) as queue:
        queue.enqueue(tasks.work, crew.log, 1, 0.0)
    worker = crew.worker()
    crew.wait_drained()
    migrate(crew.path)

    assert worker.wait(40) == 1
    assert "NewerSchemaError" in crew.errors()


def test_an_older_file_is_migrated_once_by_whoever_comes_first(
    open_store, sqlite_path, next_version
) -> None:
    open_store().apply([enqueue("a")])
    next_version()
    newer = [open_store() for _ in range(3)]

    for n, store in enumerate(newer):
        store.apply([enqueue(f"b{n}")])
        assert count(store) == n + 2
    with closing(sqlite3.connect(sqlite_path)) as db:
        assert db.execute("SELECT version FROM sitq_schema").fetchall() == [(VERSION + 1,)]


def test_what_changes_nothing_for_us_stops_nobody(open_store, sqlite_path) -> None:
    store = open_store()
    store.apply([enqueue("a")])
    change(sqlite_path, "ANALYZE", "VACUUM")

    store.apply([enqueue("b")])
    assert count(store) == 2


def test_a_trigger_that_somebody_adds_is_refused_until_it_is_dropped(
    open_store, sqlite_path
) -> None:
    store = open_store()
    change(
        sqlite_path,
        "CREATE TRIGGER spy AFTER INSERT ON sitq_tasks BEGIN DELETE FROM sitq_workers; END",
    )
    with pytest.raises(BatchError, match="trigger named 'spy'") as caught:
        store.apply([enqueue("a")])
    assert isinstance(caught.value.error, ForeignFileError)
    change(sqlite_path, "DROP TRIGGER spy")

    store.apply([enqueue("b")])
    assert count(store) == 1


def test_a_file_that_is_taken_back_to_nothing_is_refused(open_store, sqlite_path) -> None:
    store = open_store()
    change(
        sqlite_path, "DROP TABLE sitq_tasks", "DROP TABLE sitq_workers", "DROP TABLE sitq_schema"
    )

    with pytest.raises(BatchError, match=f"had schema version {VERSION} when it was opened, and"):
        store.apply([enqueue("a")])


def test_every_step_changes_the_schema() -> None:
    """That is how an older version notices; a step that only changes rows would go unseen."""
    for step in STEPS:
        assert any(statement.startswith(("CREATE", "ALTER", "DROP")) for statement in step)
