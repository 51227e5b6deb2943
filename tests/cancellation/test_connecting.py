"""A connection that nobody waits for any more, or that comes to nothing, is nobody's burden."""

import sqlite3
import threading

import anyio
import pytest

from sitq import SQLiteBackend, StoreError, TaskQueue
from sitq.adapters.sqlite import SqliteStore
from tests.cancellation.place import Place
from tests.cancellation.stepping import SCOPE, Point, call
from tests.cancellation.tasks import pass_by, until

pytestmark = pytest.mark.anyio


async def test_what_went_wrong_after_a_cancelled_connect_is_not_told_to_the_next(tmp_path) -> None:
    folder = tmp_path / "not there yet"
    backend = SQLiteBackend(folder / "tasks.db")
    seen = await call(backend.connect, Point(SCOPE, 1))
    assert not seen.returned
    await until(lambda: backend._session is None or backend._session.failed)

    folder.mkdir()
    assert await TaskQueue(backend).enqueue(pass_by)
    await backend.close()


async def test_a_second_connection_that_fails_takes_the_first_with_it(
    sqlite_path, monkeypatch
) -> None:
    place = Place(sqlite_path)
    await place.backend.connect()
    await place.backend.close()
    opens = []

    def open_once(store):
        opens.append(threading.current_thread())
        if len(opens) == 2:
            raise StoreError("no more descriptors")
        return connect(store)

    connect = SqliteStore.open
    monkeypatch.setattr(SqliteStore, "open", open_once)
    with pytest.raises(StoreError, match="no more descriptors"):
        await place.backend.connect()
    await place.has(0)

    await place.queue.enqueue(pass_by)  # the next is luckier
    await place.has(2)
    await place.backend.close()
    await place.is_left()


async def test_who_cancels_a_connect_to_a_locked_file_is_not_kept_waiting(sqlite_path) -> None:
    place = Place(sqlite_path)
    await place.backend.connect()
    await place.backend.close()
    locked = sqlite3.connect(sqlite_path, isolation_level=None)
    locked.execute("PRAGMA locking_mode = EXCLUSIVE")
    locked.execute("BEGIN EXCLUSIVE")
    with anyio.fail_after(10), anyio.move_on_after(0.05) as waiting:
        async with place.backend:
            raise AssertionError("nobody can come in")
    assert waiting.cancelled_caught

    locked.execute("ROLLBACK")
    locked.close()
    await place.has(0)
    await place.queue.enqueue(pass_by)
    await place.backend.close()
    await place.is_left()
