"""What cannot hold a queue is refused by name, and is byte for byte as it was afterwards."""

import hashlib
import os
import random
import re
import socket
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sitq import (
    FileRefusedError,
    ForeignFileError,
    NewerSchemaError,
    NotADatabaseError,
    SitqError,
    SQLiteBackend,
    ValidationError,
)
from sitq.adapters.base import BatchError
from sitq.protocol.ops import Count, Fetch
from sitq.storage.sqlite_schema import VERSION
from tests.adapters.asked import count, count_in, enqueue
from tests.adapters.folder import contents


@contextmanager
def sql(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def queue_file(path: Path, tasks: int = 20) -> None:
    """A whole queue, closed by its last user: all of it is in the one file."""
    with closing(SQLiteBackend(path).open_store()) as store:
        store.apply([enqueue(*(f"t{n}" for n in range(tasks)), size=1000)])
    assert not Path(f"{path}-wal").exists()


# -- what may lie at the path -------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(b"Dear diary, this is no database.\n" * 100)


def one_byte(path: Path) -> None:
    path.write_bytes(b"S")


def a_header_and_garbage(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + random.Random(7).randbytes(8176))


def truncated_to(size: int):
    def make(path: Path) -> None:
        queue_file(path)
        os.truncate(path, size)

    make.__name__ = f"truncated_to_{size}_bytes"
    return make


def truncated_by_half(path: Path) -> None:
    queue_file(path)
    os.truncate(path, path.stat().st_size // 2)


def another_programs(path: Path) -> None:
    with sql(path) as db:
        db.execute("CREATE TABLE songs (title)")
        db.execute("INSERT INTO songs VALUES ('Blue')")


def another_programs_in_wal_mode(path: Path) -> None:
    with sql(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
    another_programs(path)


def another_programs_with_a_table_of_our_name(path: Path) -> None:
    with sql(path) as db:
        db.execute("CREATE TABLE sitq_schema (author TEXT)")


def another_programs_with_a_version_in_words(path: Path) -> None:
    with sql(path) as db:
        db.execute("CREATE TABLE sitq_schema (version)")
        db.execute("INSERT INTO sitq_schema VALUES ('first')")


def changed_by(*statements: str):
    def make(path: Path) -> None:
        queue_file(path)
        with sql(path) as db:
            for statement in statements:
                db.execute(statement)

    return make


newer = changed_by(f"UPDATE sitq_schema SET version = {VERSION + 1}")
older_than_all = changed_by("UPDATE sitq_schema SET version = 0")
of_no_version = changed_by("DELETE FROM sitq_schema")
with_a_trigger = changed_by(
    "CREATE TRIGGER spy AFTER INSERT ON sitq_tasks BEGIN UPDATE sitq_tasks SET payload = x'00'; END"
)
with_a_view = changed_by("CREATE VIEW sitq_view AS SELECT id FROM sitq_tasks")
with_a_table = changed_by("CREATE TABLE notes (text)")
with_an_index = changed_by("CREATE INDEX fast ON sitq_tasks (name)")
with_another_column = changed_by("ALTER TABLE sitq_tasks ADD COLUMN colour TEXT")

FILES = {
    "garbage": (garbage, NotADatabaseError, "not an SQLite database"),
    "one byte": (one_byte, NotADatabaseError, "not an SQLite database"),
    "header, then garbage": (a_header_and_garbage, NotADatabaseError, "not an SQLite|damaged"),
    "truncated to 50 bytes": (truncated_to(50), NotADatabaseError, "not an SQLite|damaged"),
    "truncated to 100 bytes": (truncated_to(100), NotADatabaseError, "not an SQLite|damaged"),
    "truncated to 1 page": (truncated_to(4096), NotADatabaseError, "damaged"),
    "truncated to 3 pages": (truncated_to(3 * 4096), NotADatabaseError, "damaged"),
    "truncated by half": (truncated_by_half, NotADatabaseError, "damaged"),
    "foreign": (another_programs, ForeignFileError, "another program .it holds songs."),
    "foreign, in WAL mode": (another_programs_in_wal_mode, ForeignFileError, "it holds songs"),
    "foreign sitq_schema": (another_programs_with_a_table_of_our_name, ForeignFileError, "."),
    "foreign version": (another_programs_with_a_version_in_words, ForeignFileError, "."),
    "newer": (newer, NewerSchemaError, f"version {VERSION + 1}, and this sitq knows {VERSION}"),
    "version 0": (older_than_all, ForeignFileError, "."),
    "no version": (of_no_version, ForeignFileError, "."),
    "a trigger": (with_a_trigger, ForeignFileError, "trigger named 'spy'"),
    "a view": (with_a_view, ForeignFileError, "view named 'sitq_view'"),
    "a table": (with_a_table, ForeignFileError, "table named 'notes'"),
    "an index": (with_an_index, ForeignFileError, "index named 'fast'"),
    "another column": (with_another_column, ForeignFileError, "table named 'sitq_tasks'"),
}


@pytest.fixture(params=FILES.values(), ids=FILES)
def refused(request, tmp_path):
    """A path, the error it is refused with, and words of its message."""
    make, error, words = request.param
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "tasks.db"
    make(path)
    return path, error, words


def test_it_is_refused_by_name_and_is_byte_identical_afterwards(refused) -> None:
    path, error, words = refused
    before = hashlib.sha256(path.read_bytes()).hexdigest()

    with pytest.raises(error, match=words) as caught:
        SQLiteBackend(path).open_store()
    assert str(path) in str(caught.value)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_nothing_is_left_beside_a_file_that_is_refused(refused) -> None:
    path = refused[0]
    before = contents(path.parent)

    with pytest.raises(FileRefusedError):
        SQLiteBackend(path).open_store()
    assert contents(path.parent) == before


@pytest.mark.anyio
async def test_every_event_loop_is_told_and_goes_on_once_the_path_is_mended(tmp_path) -> None:
    path = tmp_path / "tasks.db"
    garbage(path)
    backend = SQLiteBackend(path)
    for _ in range(2):
        with pytest.raises(NotADatabaseError, match="not an SQLite database"):
            await backend.connect()
    path.unlink()

    async with backend:
        assert await count_in(await backend.session()) == 0


def test_a_foreign_file_that_its_program_has_open_is_left_alone(tmp_path) -> None:
    path = tmp_path / "songs.db"
    with sql(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE songs (title)")
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO songs VALUES ('Blue')")
        before = {name: what for name, what in contents(tmp_path).items() if "-shm" not in name}

        with pytest.raises(ForeignFileError):
            SQLiteBackend(path).open_store()
        after = {name: what for name, what in contents(tmp_path).items() if "-shm" not in name}
        assert after == before
        db.execute("COMMIT")
        assert db.execute("SELECT title FROM songs").fetchall() == [("Blue",)]


def crashed_copy(path: Path, into: Path, *statements: str) -> None:
    """Copy a database in the midst of its life, as a crash would leave it."""
    with sql(path) as db:
        for statement in statements:
            db.execute(statement)
        for suffix in ("", "-wal", "-journal"):
            file = Path(f"{path}{suffix}")
            if file.exists():
                Path(f"{into}{suffix}").write_bytes(file.read_bytes())


IN_WAL = (
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE songs (title)",
    "INSERT INTO songs VALUES ('Blue')",
)
IN_JOURNAL = (
    "CREATE TABLE songs (title)",
    "INSERT INTO songs VALUES (zeroblob(100000))",
    "PRAGMA cache_size = 1",
    "PRAGMA cache_spill = 1",
    "BEGIN IMMEDIATE",
    "UPDATE songs SET title = randomblob(100000)",
)


@pytest.mark.parametrize("by_link", [False, True], ids=["path", "link"])
@pytest.mark.parametrize(
    ("statements", "beside"),
    [(IN_WAL, "-wal"), (IN_JOURNAL, "-journal")],
    ids=["a WAL", "a hot journal"],
)
def test_what_a_crash_of_its_program_left_of_a_foreign_file_is_left_to_that_program(
    tmp_path, statements, beside, by_link
) -> None:
    """The journal is still needed, and is its owner's to play back."""
    folder = tmp_path / "folder"
    folder.mkdir()
    crashed_copy(tmp_path / "alive.db", folder / "songs.db", *statements)
    assert (folder / f"songs.db{beside}").stat().st_size > 1000
    path = folder / "songs.db"
    if by_link:
        path = tmp_path / "link.db"
        path.symlink_to(folder / "songs.db")
    before = contents(folder)

    with pytest.raises(FileRefusedError):
        SQLiteBackend(path).open_store()
    after = contents(folder)
    after.pop("songs.db-shm", None)  # the index of a WAL, which any reader makes anew
    assert after == before


def test_a_hot_journal_is_named(tmp_path) -> None:
    crashed_copy(tmp_path / "alive.db", tmp_path / "songs.db", *IN_JOURNAL)

    with pytest.raises(FileRefusedError, match=r"in the midst of a change .* -journal"):
        SQLiteBackend(tmp_path / "songs.db").open_store()


def test_a_file_whose_making_was_cut_off_holds_nothing_and_is_taken(tmp_path) -> None:
    """It may be a queue's own, at its very first transaction: nobody is to mend that by hand."""
    crashed_copy(
        tmp_path / "alive.db",
        tmp_path / "tasks.db",
        "PRAGMA cache_size = 1",
        "PRAGMA cache_spill = 1",
        "BEGIN IMMEDIATE",
        "CREATE TABLE songs (title)",
        "INSERT INTO songs VALUES (zeroblob(100000))",
    )
    assert (tmp_path / "tasks.db-journal").stat().st_size > 0
    assert (tmp_path / "tasks.db").stat().st_size > 0

    with closing(SQLiteBackend(tmp_path / "tasks.db").open_store()) as store:
        store.apply([enqueue("a")])
        assert count(store) == 1


def test_so_is_one_that_a_power_cut_has_left_with_its_journal_and_a_wal(tmp_path) -> None:
    """The journal of the first page was deleted, but not in a folder that was synced."""
    path = tmp_path / "tasks.db"
    with sql(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        page = path.read_bytes()
    path.write_bytes(page)
    header = bytes.fromhex("d9d505f920a163d7") + bytes(12) + (512).to_bytes(4) + bytes(488)
    Path(f"{path}-journal").write_bytes(header)
    Path(f"{path}-wal").write_bytes(b"")

    with closing(SQLiteBackend(path).open_store()) as store:
        store.apply([enqueue("a")])
        assert count(store) == 1


def test_what_a_crash_left_of_a_queue_is_played_back(tmp_path) -> None:
    queue_file(tmp_path / "alive.db", tasks=1)
    (tmp_path / "crashed").mkdir()
    with closing(SQLiteBackend(tmp_path / "alive.db").open_store()) as alive:
        alive.apply([enqueue("in the WAL")])
        crashed_copy(tmp_path / "alive.db", tmp_path / "crashed" / "tasks.db")

    with closing(SQLiteBackend(tmp_path / "crashed" / "tasks.db").open_store()) as store:
        assert count(store) == 2


def test_a_file_with_statistics_of_sqlites_own_is_not_refused(tmp_path) -> None:
    """ANALYZE and PRAGMA optimize are what any guide to SQLite tells people to run."""
    path = tmp_path / "tasks.db"
    queue_file(path)
    with sql(path) as db:
        db.execute("ANALYZE")

    with closing(SQLiteBackend(path).open_store()) as store:
        assert count(store) == 20


def test_bits_that_have_flipped_are_found_or_do_no_harm(tmp_path) -> None:
    """Each opens and answers, or fails by name; and a file that is refused is not touched."""
    path = tmp_path / "tasks.db"
    queue_file(path, tasks=3)
    whole = path.read_bytes()
    chance = random.Random(20)
    bits = [
        (chance.randrange(100) if n < 60 else chance.randrange(len(whole)), n % 8)
        for n in range(200)
    ]
    refused = 0
    for at, bit in bits:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        for stray in tmp_path.iterdir():
            stray.unlink()
        path.write_bytes(damaged)
        began = time.monotonic()
        try:
            with closing(SQLiteBackend(path).open_store()) as store:
                store.apply([Count(), Fetch(("t0", "t1", "t2"))])
        except FileRefusedError:
            refused += 1
            assert path.read_bytes() == damaged, f"bit {bit} of byte {at}"
        except (SitqError, BatchError):
            pass
        assert time.monotonic() - began < 5, f"bit {bit} of byte {at}"
    assert refused > 20, "the damage that SQLite can see was seen"


# -- paths that are no files --------------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(path))


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (a_folder, "is a folder"),
        (a_pipe, "not a regular file"),
        (a_socket, "not a regular file"),
        (a_link_to_itself, "cannot be looked at"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, monkeypatch, make, words) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tasks.db"
    make(path)
    before = contents(tmp_path) if make is not a_link_to_itself else None

    with pytest.raises(FileRefusedError, match=words) as caught:
        SQLiteBackend(path).open_store()
    assert str(path) in str(caught.value)
    assert before is None or contents(tmp_path) == before


def test_a_missing_folder_is_named_and_not_made(tmp_path) -> None:
    path = tmp_path / "a" / "b" / "tasks.db"

    with pytest.raises(FileRefusedError, match=re.escape(f"no folder {str(path.parent)!r}")):
        SQLiteBackend(path).open_store()
    assert contents(tmp_path) == {}


def test_a_path_below_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("text")
    before = contents(tmp_path)

    with pytest.raises(FileRefusedError):
        SQLiteBackend(tmp_path / "file" / "tasks.db").open_store()
    assert contents(tmp_path) == before


def test_a_name_that_is_too_long_is_refused(tmp_path) -> None:
    with pytest.raises(FileRefusedError):
        SQLiteBackend(tmp_path / ("n" * 300)).open_store()
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (":memory:", "use MemoryBackend"),
        ("file:tasks.db", "a plain path, not the URI"),
        ("file:tasks.db?mode=memory&colour=red", "a plain path, not the URI"),
        ("", "must name a file"),
        ("a\0b", "must name a file"),
        (b"tasks.db", "must be a str or a Path"),
        (7, "must be a str or a Path"),
        (None, "must be a str or a Path"),
    ],
)
def test_what_is_no_path_is_refused_before_anything_is_opened(
    tmp_path, monkeypatch, path, words
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ValidationError, match=words):
        SQLiteBackend(path)
    assert contents(tmp_path) == {}


# -- paths that look strange and are none the worse for it ---------------------------------


@pytest.mark.parametrize(
    "name",
    ["a b.db", "100%.db", "what?.db", "a#b.db", "tasks;x=1.db", "äöü.db", "日本.db", "'\".db"],
)
def test_any_name_of_a_file_will_do(tmp_path, name) -> None:
    for stored in (1, 2):  # made by the first, found by the second
        with closing(SQLiteBackend(tmp_path / name).open_store()) as store:
            store.apply([enqueue(f"t{stored}")])
            assert count(store) == stored
    assert list(contents(tmp_path)) == [name]


def test_a_name_that_is_no_text_will_do(tmp_path) -> None:
    """File systems take any bytes, and Python carries them in a str."""
    name = os.fsdecode(b"\xff.db")
    for stored in (1, 2):
        with closing(SQLiteBackend(tmp_path / name).open_store()) as store:
            store.apply([enqueue(f"t{stored}")])
            assert count(store) == stored


def test_an_empty_file_becomes_a_queue(tmp_path) -> None:
    path = tmp_path / "tasks.db"
    path.touch()

    with closing(SQLiteBackend(path).open_store()) as store:
        assert count(store) == 0


def test_a_link_leads_to_the_queue(tmp_path) -> None:
    queue_file(tmp_path / "tasks.db", tasks=1)
    (tmp_path / "link.db").symlink_to(tmp_path / "tasks.db")

    with closing(SQLiteBackend(tmp_path / "link.db").open_store()) as store:
        assert count(store) == 1
