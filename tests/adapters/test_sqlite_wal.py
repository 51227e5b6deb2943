"""How far a WAL has grown: by what is in it, and not by its length, which it keeps."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sitq.adapters.sqlite_wal import Wal

PAGE = 4096


@pytest.fixture
def db(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("CREATE TABLE t (x BLOB)")
        yield db


@pytest.fixture
def wal(tmp_path, db):
    with closing(Wal(str(tmp_path / "x.db"))) as wal:
        yield wal


def write(db, pages: int) -> None:
    for _ in range(pages):
        db.execute("INSERT INTO t VALUES (zeroblob(3000))")


def test_it_has_grown_to_what_was_written(db, wal) -> None:
    write(db, 20)
    assert wal.has_grown_to(20 * PAGE)
    assert not wal.has_grown_to(200 * PAGE)


def test_one_that_was_begun_anew_has_not_grown_though_its_file_is_as_long_as_before(
    db, wal, tmp_path
) -> None:
    write(db, 40)
    before = Path(tmp_path, "x.db-wal").stat().st_size
    db.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    write(db, 1)

    assert Path(tmp_path, "x.db-wal").stat().st_size == before
    assert not wal.has_grown_to(20 * PAGE)
    assert wal.has_grown_to(1)
    write(db, 40)
    assert wal.has_grown_to(20 * PAGE)


def test_one_that_is_not_there_has_not_grown(tmp_path) -> None:
    assert not Wal(str(tmp_path / "nothing.db")).has_grown_to(1)
    Path(tmp_path, "empty.db-wal").touch()
    with closing(Wal(str(tmp_path / "empty.db"))) as wal:
        assert not wal.has_grown_to(1)
