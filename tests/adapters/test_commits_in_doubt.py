"""A COMMIT that fails: nothing was stored, or nobody knows; and every caller is told which."""

import sqlite3

import anyio
import pytest

from sitq import (
    EnqueueUnknown,
    SQLiteBackend,
    StoreError,
    SyncTaskQueue,
    Task,
    TaskConflictError,
    TaskQueue,
)
from sitq.adapters import sqlite as adapter
from sitq.adapters.base import BatchError
from sitq.protocol.commit import Blame
from tests.adapters.asked import count, count_in, enqueue
from tests.adapters.recorded import Wrapped, disk_full, io_error


class Commits:
    """Lets the next COMMIT fail: before it has stored anything, or after it has."""

    def __init__(self) -> None:
        self.before = None
        self.after = None

    def __call__(self, sql: str):
        if sql != "COMMIT":
            return None
        error, self.before = self.before, None
        if error is not None:
            raise error
        error, self.after = self.after, None
        return error


@pytest.fixture
def commits(monkeypatch):
    """Every connection of every store goes through it."""
    commits = Commits()
    connect = adapter.SqliteStore._connect
    monkeypatch.setattr(
        adapter.SqliteStore, "_connect", lambda self: Wrapped(connect(self), commits)
    )
    return commits


@pytest.fixture(params=["stored", "not stored"])
def cut_off(request, commits):
    """Cut the next COMMIT off, once it has stored all or before it has stored anything."""

    def cut_off() -> None:
        if request.param == "stored":
            commits.after = io_error()
        else:
            commits.before = io_error()

    cut_off.stored = request.param == "stored"
    return cut_off


def test_a_commit_with_an_io_error_may_have_stored_or_not(open_store, cut_off) -> None:
    store = open_store()
    cut_off()
    with pytest.raises(BatchError) as caught:
        store.apply([enqueue("a")])

    assert caught.value.blame is Blame.UNKNOWN
    assert count(store) == cut_off.stored
    assert not store._db.in_transaction
    store.apply([enqueue("b")])
    assert count(store) == cut_off.stored + 1


def test_an_error_before_the_commit_is_no_doubt(open_store) -> None:
    store = open_store()

    def before(sql: str) -> None:
        if "INSERT" in sql:
            raise io_error()

    store._db = Wrapped(store._db, before)
    with pytest.raises(BatchError) as caught:
        store.apply([enqueue("a")])
    assert caught.value.blame is Blame.STORE
    assert count(store) == 0


def test_a_rollback_that_fails_as_well_takes_no_doubt_away(open_store) -> None:
    store = open_store()
    refused = ["COMMIT", "ROLLBACK"]

    def before(sql: str) -> None:
        if sql in refused:
            refused.remove(sql)
            raise io_error()

    store._db = Wrapped(store._db, before)
    with pytest.raises(BatchError) as caught:
        store.apply([enqueue("a")])
    assert caught.value.blame is Blame.UNKNOWN

    with pytest.raises(BatchError, match="within a transaction") as caught:
        store.apply([enqueue("b")])  # which is rolled back, with what was left open
    assert caught.value.blame is Blame.STORE
    store.apply([enqueue("c")])
    assert count(store) == 1


def test_a_commit_without_memory_may_have_stored_or_not(open_store, commits) -> None:
    store = open_store()
    commits.before = MemoryError()  # as the sqlite3 module says SQLITE_NOMEM
    with pytest.raises(BatchError, match=r"could not be used: .*MemoryError") as caught:
        store.apply([enqueue("a")])

    assert caught.value.blame is Blame.UNKNOWN
    store.apply([enqueue("b")])
    assert count(store) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (disk_full(), "no room is left on the disk of"),
        (io_error(), "could not be used: disk I/O error"),
        (MemoryError(), "could not be used: .*MemoryError"),
    ],
    ids=["full", "io", "memory"],
)
def test_a_file_whose_first_commit_fails_is_a_named_error(
    open_store, sqlite_path, commits, error, said
) -> None:
    commits.before = error
    with pytest.raises(StoreError, match=said) as caught:
        open_store()
    assert sqlite_path in str(caught.value)
    assert count(open_store()) == 0  # and the file can be used as soon as it can be written


@pytest.mark.anyio
async def test_the_caller_is_told_the_id_and_may_safely_ask_again(sqlite_path, cut_off) -> None:
    async with SQLiteBackend(sqlite_path) as backend:
        queue = TaskQueue(backend)
        cut_off()
        with pytest.raises(EnqueueUnknown, match="cut off inside COMMIT") as caught:
            await queue.enqueue(len, "text")
        task_id = caught.value.task_id
        assert task_id in str(caught.value)
        session = await backend.session()
        assert (await session.fetch(task_id) is not None) == cut_off.stored

        assert await queue.using(task_id=task_id).enqueue(len, "text") == task_id
        assert await queue.using(task_id=task_id).enqueue(len, "text") == task_id
        assert await count_in(session) == 1
        with pytest.raises(TaskConflictError):
            await queue.using(task_id=task_id).enqueue(len, "another text")


def test_so_is_a_caller_without_an_event_loop(sqlite_path, cut_off) -> None:
    with SyncTaskQueue(SQLiteBackend(sqlite_path)) as queue:
        queue.enqueue(len, "warm")
        cut_off()
        with pytest.raises(EnqueueUnknown) as caught:
            queue.enqueue(len, "text")

        task_id = caught.value.task_id
        assert queue.using(task_id=task_id).enqueue(len, "text") == task_id
        assert count(queue._open()) == 2


@pytest.mark.anyio
async def test_all_callers_of_one_commit_are_in_doubt_each_about_its_own(
    sqlite_path, cut_off
) -> None:
    async with SQLiteBackend(sqlite_path) as backend:
        queue = TaskQueue(backend)
        ids = []

        async def call(n: int) -> None:
            try:
                await queue.enqueue(len, str(n))
            except EnqueueUnknown as error:
                ids.append(error.task_id)

        async def all_call() -> None:
            async with anyio.create_task_group() as tasks:
                for n in range(10):
                    tasks.start_soon(call, n)

        await all_call()  # the first of a crowd goes alone; from here on they go together
        cut_off()
        await all_call()
        assert len(set(ids)) == 10
        assert await count_in(await backend.session()) == (20 if cut_off.stored else 10)


@pytest.mark.anyio
async def test_many_that_are_in_doubt_can_be_asked_again_by_what_the_error_says(
    sqlite_path, cut_off
) -> None:
    """Each under its own id: the list is not stored a second time."""
    async with SQLiteBackend(sqlite_path) as backend:
        queue = TaskQueue(backend)
        tasks = [Task(len, str(n)) for n in range(3)]
        cut_off()
        with pytest.raises(EnqueueUnknown) as caught:
            await queue.enqueue_many(tasks)

        ids = caught.value.task_ids
        assert len(ids) == 3
        again = [task.using(task_id=id_) for task, id_ in zip(tasks, ids, strict=True)]
        await queue.enqueue_many(again)
        assert await count_in(await backend.session()) == 3


# -- a full disk -----------------------------------------------------------------------------


def test_a_commit_that_finds_no_room_stores_nothing_and_says_so(open_store, commits) -> None:
    store = open_store()
    commits.before = disk_full()
    with pytest.raises(BatchError, match="no room is left on the disk") as caught:
        store.apply([enqueue("a")])

    assert caught.value.blame is Blame.STORE
    assert count(store) == 0


@pytest.mark.anyio
async def test_without_room_callers_are_told_and_work_goes_on_once_there_is_some(
    sqlite_path, monkeypatch
) -> None:
    connections = []
    connect = adapter.SqliteStore._connect

    def remembered(self) -> sqlite3.Connection:
        connections.append(connect(self))
        return connections[-1]

    monkeypatch.setattr(adapter.SqliteStore, "_connect", remembered)
    async with SQLiteBackend(sqlite_path) as backend:
        session = await backend.session()
        await session.writer.submit(enqueue("before"))
        for db in connections:
            ((pages,),) = db.execute("PRAGMA page_count").fetchall()
            db.execute(f"PRAGMA max_page_count = {pages + 2}")

        for _ in range(3):
            with pytest.raises(StoreError, match="no room is left on the disk of") as caught:
                await session.writer.submit(enqueue("big", size=100_000))
            assert sqlite_path in str(caught.value)
            assert "nothing was stored" in str(caught.value)
        assert await count_in(session) == 1

        for db in connections:
            db.execute("PRAGMA max_page_count = 1073741823")
        await session.writer.submit(enqueue("big", size=100_000))
        assert await count_in(session) == 2


def test_a_limit_on_the_size_of_files_loses_nothing_that_was_acknowledged(
    run_program, sqlite_path
) -> None:
    """The operating system itself refuses to write on, in the midst of whatever it is."""
    resource = pytest.importorskip("resource")
    assert resource.RLIMIT_FSIZE is not None
    lines = run_program(
        """
        import resource, sys
        from sitq import SQLiteBackend, StoreError, EnqueueUnknown, SyncTaskQueue

        queue = SyncTaskQueue(SQLiteBackend(sys.argv[1], durability="normal"))
        queue.enqueue(len, "first")
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
        known, doubtful = [], []
        for n in range(40):
            try:
                known.append(queue.enqueue(len, "x" * 20_000))
            except EnqueueUnknown as error:
                doubtful.append(error.task_id)
            except StoreError:
                pass
        assert len(known) < 40, "there was a limit"
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        for task_id in doubtful:
            known.append(queue.using(task_id=task_id).enqueue(len, "x" * 20_000))
        known.append(queue.enqueue(len, "room again"))
        assert len(set(known)) == len(known)
        with queue.backend.open_store()._db as db:
            print(db.execute("PRAGMA integrity_check").fetchone()[0])
            stored = {id_ for (id_,) in db.execute("SELECT id FROM sitq_tasks")}
            print(len(stored) == len(known) + 1, stored > set(known))
        """,
        sqlite_path,
    )
    assert lines == ["ok", "True True"]
