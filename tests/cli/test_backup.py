"""`sitq backup`: a whole copy or none, of a file that is at work."""

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from sitq import FileRefusedError, SQLiteBackend, StoreError, SyncTaskQueue, TaskQueue, Worker
from sitq.cli import backup, queue_file
from sitq.storage.sqlite_schema import VERSION
from tests.adapters.asked import count, enqueue
from tests.cli.conftest import contents
from tests.processes.conftest import crew, tasks

__all__ = ["crew", "tasks"]


@pytest.fixture
def path(tmp_path):
    """A queue file that nobody has open."""
    path = tmp_path / "tasks.db"
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        for _ in range(3):
            queue.enqueue(len, "abc")
    return path


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "copies"
    folder.mkdir()
    return folder / "copy.db"


def rows(path) -> dict[str, list]:
    tables = ("sitq_schema", "sitq_tasks", "sitq_workers")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


# -- what it makes ------------------------------------------------------------------------


def test_the_copy_holds_the_same_and_says_so(typed, path, copy) -> None:
    before = contents(path.parent)
    out = typed("backup", path, copy)

    assert f"copied {path} to {copy}: {copy.stat().st_size:,} bytes in 0." in out
    assert "integrity ok" in out
    assert "tasks: 3 queued" in out
    assert "3 of them have not ended: a worker on the copy runs them" in out
    assert rows(copy) == rows(path)
    assert {name: what for name, what in contents(path.parent).items() if name in before} == before


def test_it_is_for_its_owner_alone_and_nothing_lies_beside_it(typed, path, copy) -> None:
    before = os.umask(0)
    try:
        typed("backup", path, copy)
    finally:
        os.umask(before)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert os.listdir(copy.parent) == ["copy.db"]
    assert os.listdir(path.parent).count("tasks.db-wal") == 0


def test_what_has_ended_is_not_said_to_run_again(typed, path, copy) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE sitq_tasks SET state = 'success', finished_ms = 1")
    out = typed("backup", path, copy)

    assert "tasks: 3 success" in out
    assert "have not ended" not in out


def test_what_is_only_in_the_wal_is_in_the_copy_and_the_live_files_stay_as_they_are(
    typed, path, copy
) -> None:
    """No checkpoint is ours to make: on an SQLite with the WAL-reset bug it could lose commits."""
    with closing(SQLiteBackend(path).open_store()) as store:
        store.apply([enqueue(*(f"t{n}" for n in range(50)), size=100_000)])
        before = path.read_bytes(), Path(f"{path}-wal").read_bytes()
        assert len(before[1]) > 5_000_000

        typed("backup", path, copy)
        assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == before
        store.apply([enqueue("later")])
    with closing(SQLiteBackend(copy).open_store()) as store:
        assert count(store) == 53


def test_a_link_leads_to_the_wal_as_well(typed, path, copy, tmp_path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with closing(SQLiteBackend(path).open_store()) as store:
        store.apply([enqueue("in the WAL")])

        assert "tasks: 4 queued" in typed("backup", link, copy)


def test_what_a_crash_left_is_copied_with_its_wal(typed, path, copy, tmp_path) -> None:
    crashed = tmp_path / "crashed.db"
    with closing(SQLiteBackend(path).open_store()) as store:
        store.apply([enqueue("in the WAL")])
        for suffix in ("", "-wal"):
            Path(f"{crashed}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())

    assert "tasks: 4 queued" in typed("backup", crashed, copy)


def test_writers_go_on_while_it_is_copied_and_it_does_not_begin_again(path, copy) -> None:
    copied = []

    class InSmallSteps:
        def __init__(self, db) -> None:
            self._db = db

        def backup(self, target, *, pages) -> None:
            def step(status, remaining, total) -> None:
                copied.append(remaining)
                assert len(copied) <= 1000, "it begins again and again"
                writer.apply([enqueue(f"during {len(copied)}", size=5000)])

            self._db.backup(target, pages=2, progress=step)

        def __getattr__(self, name):
            return getattr(self._db, name)

    with closing(SQLiteBackend(path).open_store()) as writer:
        writer.apply([enqueue("before", size=200_000)])
        found = queue_file.look(
            str(path),
            lambda db, path: backup._copy(backup._new_draft(str(copy)), "", InSmallSteps(db), path),
        )
        assert len(copied) > 20
        assert copied == sorted(copied, reverse=True), "it goes forward, step by step"
        assert found.states == {"queued": 4}, "what it saw at the beginning"
        assert count(writer) == 4 + len(copied)


# -- where it may go ----------------------------------------------------------------------


def test_what_is_there_stays_unless_it_is_to_be_replaced(typed, path, copy) -> None:
    copy.write_text("precious")
    assert "is there already, and was left as it is" in typed("backup", path, copy, code=1)
    assert copy.read_text() == "precious"

    typed("backup", path, copy, "--force")
    assert rows(copy) == rows(path)
    assert os.listdir(copy.parent) == ["copy.db"]


def test_what_comes_meanwhile_stays(typed, path, copy, monkeypatch) -> None:
    made = backup._copy
    monkeypatch.setattr(backup, "_copy", lambda *args: (made(*args), copy.write_text("quicker"))[0])

    assert "is there already" in typed("backup", path, copy, code=1)
    assert copy.read_text() == "quicker"
    assert os.listdir(copy.parent) == ["copy.db"]


@pytest.mark.parametrize("comes", [False, True])
def test_where_there_are_no_links_it_is_renamed(typed, path, copy, monkeypatch, comes) -> None:
    def no_links(*args, **options):
        if comes:
            copy.write_text("quicker")
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    typed("backup", path, copy, code=int(comes))
    assert (copy.read_bytes() == b"quicker") == comes
    assert os.listdir(copy.parent) == ["copy.db"]


def itself(path: Path, copy: Path) -> Path:
    return path


def a_link_to_itself(path: Path, copy: Path) -> Path:
    copy.symlink_to(path)
    return copy


def a_folder(path: Path, copy: Path) -> Path:
    copy.mkdir()
    return copy


def in_no_folder(path: Path, copy: Path) -> Path:
    return copy.parent / "none" / "copy.db"


def one_that_is_open(path: Path, copy: Path) -> Path:
    copy.touch()
    Path(f"{copy}-wal").touch()
    return copy


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (itself, "is the queue file itself"),
        (a_link_to_itself, "is the queue file itself"),
        (a_folder, "is there and no regular file"),
        (in_no_folder, "its folder is not there"),
        (one_that_is_open, "a program has"),
    ],
)
def test_some_places_are_refused_even_by_force(typed, path, copy, place, words) -> None:
    destination = place(path, copy)
    before = contents(path.parent), sorted(path.parent.rglob("*"))

    assert words in typed("backup", path, destination, "--force", code=1)
    assert (contents(path.parent), sorted(path.parent.rglob("*"))) == before


def test_a_place_that_takes_no_files_is_named() -> None:
    with pytest.raises(FileRefusedError, match="cannot be made"):
        backup._new_draft("/proc/copy.db")


# -- what is not copied -------------------------------------------------------------------


def damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        ((page,),) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sitq_tasks_queued'"
        )
    with path.open("r+b") as raw:
        raw.seek((page - 1) * 4096 + 3)
        raw.write(b"\0\0")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE sitq_schema SET version = {VERSION + 1}")


ODD = {
    "damaged": (damaged, "is damaged"),
    "newer": (newer, "Upgrade sitq here, too"),
    "cut off": (lambda path: os.truncate(path, 5000), "is damaged"),
    "text": (lambda path: path.write_text("dear diary " * 99), "is not an SQLite database"),
    "missing": (lambda path: path.unlink(), "there is no file"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_sound_queue_is_named_and_no_copy_is_left(typed, path, copy, kind) -> None:
    make, words = ODD[kind]
    make(path)
    copy.write_text("the last good one")
    before = contents(path.parent)

    assert words in typed("backup", path, copy, "--force", code=1)
    assert contents(path.parent) == before
    assert os.listdir(copy.parent) == ["copy.db"]


def test_a_copy_for_which_there_is_no_room_is_named_and_removed(path, copy) -> None:
    with closing(SQLiteBackend(path).open_store()) as store:
        store.apply([enqueue(*(f"t{n}" for n in range(5)), size=100_000)])
    program = """
        import resource, sys
        from sitq.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        sys.argv = ["sitq", "backup", *sys.argv[1:]]
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), path, copy], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"Error: '{copy}' could not be written" in done.stderr
    assert os.listdir(copy.parent) == []


def test_a_disk_that_fails_to_sync_is_named(path, copy, monkeypatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreError, match="could not be written: Input/output error"):
        backup.run(str(path), str(copy), force=False)
    assert os.listdir(copy.parent) == []


# -- a copy at work -----------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_was_running_comes_back_at_once_on_a_copy(path, copy) -> None:
    """Its worker is none of the copy's, however long its lease would have been."""
    original = TaskQueue(SQLiteBackend(path))
    began = begun[0] = anyio.Event()
    async with original.backend:
        task_id = await original.enqueue(wait_in_the_original)
        async with Worker(original.backend, lease_for=3600, grace=0, max_concurrency=8):
            await began.wait()
            await anyio.to_thread.run_sync(lambda: backup.run(str(path), str(copy), force=False))
    begun[0] = None
    with anyio.fail_after(30):
        async with SQLiteBackend(copy) as backend:
            await Worker(backend).drain()
            row = await (await backend.session()).fetch(task_id)
    assert (row.state, row.attempt, row.crashes) == ("success", 1, 1)


begun = [None]


async def wait_in_the_original() -> None:
    if begun[0] is not None:
        begun[0].set()
        await anyio.sleep_forever()


@pytest.mark.slow
def test_copies_of_a_file_at_work_hold_all_that_was_acknowledged_and_can_be_worked_on(
    crew, tasks, tmp_path
) -> None:
    workers = [crew.worker(slots=4) for _ in range(4)]
    producer = crew.producer(first=0, count=1_000_000)
    acknowledged: list[str] = []

    class Lines(threading.Thread):
        def run(self) -> None:
            for line in producer.stdout:
                acknowledged.append(line.split()[0])  # noqa: PERF401  # it is read meanwhile

    reading = Lines()
    reading.start()
    crew.wait_until(lambda: len(acknowledged) > 20)
    copies, slowest = [], 0.0
    for n in range(30):
        known = set(acknowledged)
        began = time.monotonic()
        copy = tmp_path / f"copy{n}.db"
        backup.run(crew.path, str(copy), force=False)
        slowest = max(slowest, time.monotonic() - began)
        with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            stored = {id_ for (id_,) in db.execute("SELECT id FROM sitq_tasks")}
        assert known <= stored, f"copy {n}"
        copies.append((copy, len(stored)))
        crew.wait_until(lambda known=known: len(acknowledged) > len(known) + 20)
    crew.kill(producer)
    reading.join(30)
    crew.wait_drained()
    assert [crew.stop(worker) for worker in workers] == [0] * 4
    assert crew.errors() == ""
    assert crew.integrity() == "ok"

    for copy, stored in (copies[0], copies[-1]):
        anyio.run(lambda copy=copy: Worker(SQLiteBackend(copy), max_concurrency=50).drain())
        with closing(SQLiteBackend(copy).open_store()) as store:
            assert count(store) == stored
        states = {state for _, state, _ in by_state(copy)}
        assert states == {"success"}


def by_state(path) -> list[tuple[str, str, int]]:
    return queue_file.look(str(path), lambda db, path: queue_file.counts(db))


@pytest.mark.parametrize("places", [("{}", "copy.db"), ("tasks.db", "{}")])
@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_database_is_not_copied_and_it_is_said_what_does(typed, tmp_path, places, scheme) -> None:
    url = f"{scheme}://me:secret@db.example.com/app"
    out = typed("backup", *(place.format(url) for place in places), code=1)

    assert "host=db.example.com dbname=app user=me is a database" in out
    assert "pg_dump --format=custom --schema=sitq" in out
    assert "provider's backup" in out
    assert "secret" not in out
    assert not list(tmp_path.iterdir())
