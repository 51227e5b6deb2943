"""Nothing that SQLite does to a file passes the VFS by, and what breaks in it is told."""

import sqlite3
from contextlib import closing

import pytest

from sitq import SQLiteBackend
from tests.adapters.asked import count, enqueue
from tests.disk import vfs
from tests.disk.files import files_of, new_folder
from tests.disk.recorder import Recorder
from tests.disk.scenarios import NAME, busy
from tests.disk.sqlite_library import NoWayInError, library


def connected(folder) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(folder / "x.db"))


def test_the_disk_that_is_recorded_is_the_one_that_is_there() -> None:
    recorder = Recorder(busy(), keep=False)
    with new_folder(busy()) as folder, vfs.watched_by(recorder):
        with closing(SQLiteBackend(folder / NAME).open_store()) as store:
            for n in range(5):
                store.apply([enqueue(f"t{n}", size=5000)])
                assert recorder.disk.now().killed() == files_of(folder)
                assert dict(files_of(folder)).keys() == {NAME, f"{NAME}-wal"}
        assert recorder.disk.now().killed() == files_of(folder)
        assert dict(files_of(folder)).keys() == {NAME}


def test_calls_are_numbered_and_say_what_they_do() -> None:
    recorder = Recorder(())
    recorder.counts = True
    with new_folder() as folder, vfs.watched_by(recorder), connected(folder) as db:
        db.execute("CREATE TABLE t (a)")
    said = [str(point) for point in recorder.points]
    assert said[:2] == ["before call 1 (open x.db)", "after call 1 (open x.db)"]
    assert any("write x.db @4096+4096" in point for point in said)
    assert [point.n for point in recorder.points[::2]] == list(range(1, recorder.n + 1))


def test_without_a_watcher_all_is_as_ever() -> None:
    with new_folder() as folder, closing(SQLiteBackend(folder / NAME).open_store()) as store:
        store.apply([enqueue("a")])
        assert count(store) == 1


class Breaks(Recorder):
    def before(self, call):
        if call.kind == "sync":
            raise ZeroDivisionError(str(call))


def test_what_breaks_in_here_is_an_error_to_sqlite_and_is_raised_later() -> None:
    with (
        new_folder() as folder,
        vfs.watched_by(Breaks(())),
        connected(folder) as db,
        pytest.raises(sqlite3.OperationalError, match="disk I/O error"),
    ):
        db.execute("CREATE TABLE t (a)")
    with pytest.raises(ZeroDivisionError, match=r"sync x\.db"):
        vfs.raise_what_broke()


def test_another_sqlite_than_that_of_sqlite3_is_not_taken(monkeypatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.99.0")
    with pytest.raises(NoWayInError, match=r"but sqlite3 uses 3\.99\.0"):
        library()
