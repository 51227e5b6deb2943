"""A queue file, its -wal or its -shm that is deleted, renamed or replaced while it is open.

SQLite goes on with what it has open. Here nothing is acknowledged that went there.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from sitq import (
    CommitUnknownError,
    EnqueueUnknown,
    FileReplacedError,
    SQLiteBackend,
    StoreError,
    SyncTaskQueue,
    TaskQueue,
    Worker,
)
from sitq.adapters.base import BatchError
from sitq.adapters.sqlite import SqliteStore
from sitq.protocol.commit import Blame
from tests.adapters.asked import count, enqueue
from tests.adapters.recorded import Wrapped

FILES = ["", "-wal", "-shm"]


def deleted(file: Path) -> None:
    file.unlink()


def renamed(file: Path) -> None:
    file.rename(f"{file}.away")


def replaced(file: Path) -> None:
    shutil.copy(file, f"{file}.copy")
    os.replace(f"{file}.copy", file)


MEDDLING = [deleted, renamed, replaced]


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("meddle", MEDDLING)
def test_what_is_asked_afterwards_is_refused_and_not_stored(
    open_store, sqlite_path, suffix, meddle
) -> None:
    store = open_store()
    store.apply([enqueue("before")])
    meddle(Path(sqlite_path + suffix))

    for ask in (lambda: store.apply([enqueue("after")]), lambda: count(store)):
        with pytest.raises(BatchError, match="deleted, renamed or replaced") as caught:
            ask()
        assert isinstance(caught.value.error, FileReplacedError)
        assert caught.value.blame is Blame.STORE
        assert sqlite_path + suffix in str(caught.value)
    assert store._db.execute("SELECT id FROM sitq_tasks").fetchall() == [("before",)]


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("meddle", MEDDLING)
def test_a_commit_whose_file_turns_out_to_be_gone_is_in_doubt_and_not_acknowledged(
    open_store, sqlite_path, suffix, meddle
) -> None:
    store = open_store()

    def before(sql: str) -> None:
        if sql == "COMMIT":
            meddle(Path(sqlite_path + suffix))

    store._db = Wrapped(store._db, before)
    with pytest.raises(BatchError) as caught:
        store.apply([enqueue("a")])

    assert caught.value.blame is Blame.UNKNOWN
    assert isinstance(caught.value.error, FileReplacedError)


def test_a_caller_is_told_in_doubt_with_the_ids(sqlite_path, monkeypatch) -> None:
    with SyncTaskQueue(SQLiteBackend(sqlite_path)) as queue:
        queue.enqueue(len, "a")
        check = SqliteStore._check_committed
        monkeypatch.setattr(
            SqliteStore,
            "_check_committed",
            lambda self: (Path(sqlite_path).unlink(), check(self)),
        )
        with pytest.raises(EnqueueUnknown) as caught:
            queue.enqueue(len, "b")
        assert caught.value.task_ids
        assert isinstance(caught.value.__cause__, CommitUnknownError)
        assert isinstance(caught.value.__cause__.__cause__, (BatchError, FileReplacedError))

        with pytest.raises(FileReplacedError, match=r"Put the file back .* start them again"):
            queue.enqueue(len, "c")


def test_a_file_that_is_put_back_is_the_same_again(open_store, sqlite_path) -> None:
    store = open_store()
    store.apply([enqueue("a")])
    Path(sqlite_path).rename(sqlite_path + ".away")
    with pytest.raises(BatchError):
        store.apply([enqueue("b")])
    Path(sqlite_path + ".away").rename(sqlite_path)

    store.apply([enqueue("c")])
    assert count(store) == 2


def test_a_link_that_leads_elsewhere_by_now_is_noticed(tmp_path, open_store) -> None:
    for name in ("one.db", "two.db"):
        SQLiteBackend(tmp_path / name).open_store().close()
    link = tmp_path / "tasks.db"
    link.symlink_to("one.db")
    store = open_store(link)
    store.apply([enqueue("a")])
    link.unlink()
    link.symlink_to("two.db")

    with pytest.raises(BatchError, match="leads to another file now"):
        store.apply([enqueue("b")])


def test_a_folder_that_is_moved_takes_the_queue_along(tmp_path, open_store) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    store = open_store(folder / "tasks.db")
    folder.rename(tmp_path / "elsewhere")

    with pytest.raises(BatchError, match="is gone"):
        store.apply([enqueue("a")])


def test_what_cannot_be_looked_at_is_not_called_replaced(
    open_store, sqlite_path, monkeypatch
) -> None:
    store = open_store()
    stat = os.stat

    def forbidden(path, *args, **options):
        if str(path) == sqlite_path:
            raise PermissionError(13, "Permission denied")
        return stat(path, *args, **options)

    with monkeypatch.context() as here:
        here.setattr(os, "stat", forbidden)
        with pytest.raises(BatchError, match=r"cannot be looked at .Permission denied.") as caught:
            store.apply([enqueue("a")])
    assert type(caught.value.error) is StoreError
    assert caught.value.blame is Blame.STORE

    store.apply([enqueue("b")])
    assert count(store) == 1


def test_a_file_that_is_replaced_while_it_is_opened_is_opened_again(
    tmp_path, open_store, monkeypatch
) -> None:
    path = tmp_path / "tasks.db"
    for name in ("tasks.db", "other.db"):
        SQLiteBackend(tmp_path / name).open_store().close()
    connect = SqliteStore._connect
    connected = []

    def replaced_at_first(self):
        db = connect(self)
        if not connected:
            os.replace(tmp_path / "other.db", path)
        connected.append(db)
        return db

    monkeypatch.setattr(SqliteStore, "_connect", replaced_at_first)
    store = open_store(path)
    store.apply([enqueue("a")])

    assert len(connected) == 2
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM sitq_tasks").fetchall() == [("a",)]


def test_one_that_is_replaced_without_end_is_refused(tmp_path, open_store, monkeypatch) -> None:
    path = tmp_path / "tasks.db"
    SQLiteBackend(path).open_store().close()
    connect = SqliteStore._connect

    def always_replaced(self):
        db = connect(self)
        replaced(path)
        return db

    monkeypatch.setattr(SqliteStore, "_connect", always_replaced)
    with pytest.raises(FileReplacedError, match="again and again"):
        open_store(path)


def test_a_file_that_is_deleted_while_it_is_opened_is_not_made_anew(
    tmp_path, open_store, monkeypatch
) -> None:
    """SQLite would make it, and with a mode that lets others read it."""
    path = tmp_path / "tasks.db"
    SQLiteBackend(path).open_store().close()
    connect = SqliteStore._connect
    monkeypatch.setattr(SqliteStore, "_connect", lambda self: (path.unlink(), connect(self))[1])

    with pytest.raises(Exception, match="cannot be written"):
        open_store(path)
    assert not path.exists()


def test_one_who_leaves_a_replaced_file_takes_nothing_from_those_who_have_the_new_one(
    tmp_path, open_store
) -> None:
    """The last to close a database removes its -wal by name; that name is another's by now."""
    path = tmp_path / "tasks.db"
    old = open_store(path)
    old.apply([enqueue("old")])
    for suffix in FILES:
        Path(f"{path}{suffix}").rename(f"{path}{suffix}.away")
    new = open_store(path)
    new.apply([enqueue("new")])
    wal = Path(f"{path}-wal").stat().st_ino
    with pytest.raises(BatchError):
        old.apply([enqueue("late")])
    old.close()

    assert Path(f"{path}-wal").stat().st_ino == wal
    new.apply([enqueue("newer")])
    assert count(new) == 2


def test_the_last_who_leaves_writes_back_what_a_deleted_wal_held(open_store, sqlite_path) -> None:
    """So what was acknowledged before is not lost, if all programs end in an orderly way."""
    store = open_store()
    store.apply([enqueue("a"), enqueue("b")])
    Path(f"{sqlite_path}-wal").unlink()
    with pytest.raises(BatchError):
        store.apply([enqueue("c")])
    store.close()

    assert count(open_store()) == 2


# -- programs -----------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("suffix", FILES)
async def test_a_worker_tells_its_tasks_and_ends_with_the_error(sqlite_path, suffix) -> None:
    """Also one that is busy, and asks for nothing: the thread of its lease looks every second."""
    queue = TaskQueue(SQLiteBackend(sqlite_path))
    began, told = anyio.Event(), []

    async def stays() -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            told.append("interrupted")
            raise

    async with queue.backend:
        in_process[0] = stays
        await queue.enqueue(run_in_process)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:

                @tasks.start_soon
                async def work() -> None:
                    with pytest.raises(FileReplacedError, match="start them again"):
                        await Worker(queue.backend).start()

                await began.wait()
                os.unlink(sqlite_path + suffix)
    assert told == ["interrupted"]


in_process = [None]


async def run_in_process() -> None:
    await in_process[0]()


@pytest.mark.parametrize("meddle", MEDDLING)
def test_processes_notice_and_what_they_acknowledged_is_in_the_file_that_was_there(
    crew, tasks, meddle
) -> None:
    worker, producer = crew.worker(slots=4), crew.producer(first=0, count=100_000)
    crew.wait_until(lambda: sum(crew.witnessed("end").values()) > 50)
    path = Path(crew.path)
    kept = path.with_name("kept.db")
    os.link(path, kept)
    for suffix in ("-wal", "-shm"):
        os.link(f"{path}{suffix}", f"{kept}{suffix}")
    meddle(path)

    printed, _ = producer.communicate(timeout=40)
    acknowledged = {line.split()[0] for line in printed.splitlines()}
    assert (worker.wait(40), producer.returncode) == (1, 1)
    assert crew.errors().count("FileReplacedError") >= 2
    # The one who closed last could not write back to a file of another name; its WAL could be kept.
    with closing(sqlite3.connect(kept)) as db:
        stored = {id_ for (id_,) in db.execute("SELECT id FROM sitq_tasks")}
    assert len(acknowledged) > 50
    assert acknowledged <= stored
