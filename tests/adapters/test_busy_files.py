"""A file that another program keeps locked: we wait, and say so only when time is up."""

import sqlite3
import threading
import time
from contextlib import closing, contextmanager

import anyio
import pytest

from sitq import SQLiteBackend, StoreBusyError, SyncTaskQueue
from sitq.adapters.base import BatchError
from sitq.protocol.commit import Blame
from tests.adapters.asked import count, count_in, enqueue
from tests.adapters.recorded import Wrapped, busy, lost_race


@contextmanager
def foreign_writer(path: str):
    """Another program in the midst of a transaction."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db


@pytest.mark.anyio
async def test_callers_wait_for_a_foreign_writer_and_see_no_error(sqlite_path) -> None:
    async with SQLiteBackend(sqlite_path) as backend:
        session = await backend.session()
        with foreign_writer(sqlite_path) as foreign:
            began = time.monotonic()
            ending = threading.Timer(0.3, foreign.execute, ["COMMIT"])
            ending.start()
            async with anyio.create_task_group() as tasks:
                for n in range(10):
                    tasks.start_soon(session.writer.submit, enqueue(f"t{n}"))
                tasks.start_soon(count_in, session)  # readers wait for nobody
            assert time.monotonic() - began >= 0.25
            ending.join()
        assert await count_in(session) == 10


@pytest.mark.anyio
async def test_a_file_that_stays_locked_is_named_and_work_goes_on_afterwards(sqlite_path) -> None:
    async with SQLiteBackend(sqlite_path, busy_timeout=0.05) as backend:
        session = await backend.session()
        with foreign_writer(sqlite_path):
            with pytest.raises(StoreBusyError, match="busy_timeout; nothing was stored") as caught:
                await session.writer.submit(enqueue("a"))
            assert sqlite_path in str(caught.value)
            assert await count_in(session) == 0

        await session.writer.submit(enqueue("a"))
        assert await count_in(session) == 1


def test_the_same_holds_without_an_event_loop(sqlite_path) -> None:
    with SyncTaskQueue(SQLiteBackend(sqlite_path, busy_timeout=0.05)) as queue:
        queue.enqueue(len, "a")
        with (
            foreign_writer(sqlite_path),
            pytest.raises(StoreBusyError, match=sqlite_path),
        ):
            queue.enqueue(len, "b")

        queue.enqueue(len, "c")


def test_the_store_is_to_blame_and_none_of_the_ops(open_store, sqlite_path) -> None:
    store = open_store(busy_timeout=0.01)
    with foreign_writer(sqlite_path), pytest.raises(BatchError) as caught:
        store.apply([enqueue("a")])
    assert caught.value.blame is Blame.STORE


def test_a_file_that_is_locked_while_it_is_opened_is_waited_for(sqlite_path) -> None:
    SQLiteBackend(sqlite_path).open_store().close()
    with closing(
        sqlite3.connect(sqlite_path, isolation_level=None, check_same_thread=False)
    ) as foreign:
        foreign.execute("PRAGMA locking_mode = EXCLUSIVE")
        foreign.execute("BEGIN IMMEDIATE")
        foreign.execute("DELETE FROM sitq_tasks")
        foreign.execute("COMMIT")  # it keeps the lock
        ending = threading.Timer(0.2, foreign.close)
        ending.start()
        with closing(SQLiteBackend(sqlite_path).open_store()) as store:
            assert count(store) == 0
        ending.join()


def test_opening_takes_no_longer_than_busy_timeout_either(sqlite_path) -> None:
    SQLiteBackend(sqlite_path).open_store().close()
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as foreign:
        foreign.execute("PRAGMA locking_mode = EXCLUSIVE")
        foreign.execute("BEGIN IMMEDIATE")
        foreign.execute("DELETE FROM sitq_tasks")
        foreign.execute("COMMIT")
        began = time.monotonic()
        with pytest.raises(StoreBusyError, match=sqlite_path):
            SQLiteBackend(sqlite_path, busy_timeout=0.05).open_store()
        assert time.monotonic() - began < 1


def test_a_commit_that_finds_the_file_busy_is_done_again_and_stores_once(open_store) -> None:
    store = open_store()
    refused = []

    def before(sql: str) -> None:
        if sql == "COMMIT" and len(refused) < 3:
            refused.append(sql)
            raise busy()

    store._db = Wrapped(store._db, before)
    store.apply([enqueue("a")])

    assert len(refused) == 3
    assert count(store) == 1


@pytest.mark.parametrize("at", ["BEGIN IMMEDIATE", "COMMIT"])
def test_a_race_for_the_wal_that_sqlite_gives_up_is_run_again(open_store, at) -> None:
    store = open_store()
    lost = []

    def before(sql: str) -> None:
        if sql == at and len(lost) < 3:
            lost.append(sql)
            raise lost_race()

    store._db = Wrapped(store._db, before)
    store.apply([enqueue("a")])

    assert len(lost) == 3
    assert count(store) == 1


def test_the_pauses_grow_and_are_never_all_the_same(open_store, monkeypatch) -> None:
    store = open_store(busy_timeout=0.3)
    now, pauses = [100.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def before(sql: str) -> None:
        raise busy()

    store._db = Wrapped(store._db, before)
    with pytest.raises(BatchError):
        store.apply([enqueue("a")])

    assert 0.3 <= sum(pauses) < 0.32
    assert pauses[0] < 0.001
    assert 0.005 < max(pauses) < 0.016
    assert len(set(pauses)) == len(pauses)
