"""On an SQLite with the WAL-reset bug, no commit can fall inside a checkpoint.

The versions are those of sqlite.org/wal.html, "The WAL-reset bug".
"""

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sitq import SQLiteBackend, SyncTaskQueue
from sitq.adapters import sqlite as adapter
from sitq.adapters.sqlite import SqliteStore, needs_gate
from sitq.protocol.ops import Prune
from tests.adapters.asked import count, count_in, enqueue
from tests.adapters.recorded import Wrapped

AFFECTED = ["3.7.0", "3.40.1", "3.44.0", "3.44.5", "3.45.0", "3.49.2", "3.50.4", "3.51.0", "3.51.2"]
FIXED = ["3.6.23", "3.44.6", "3.44.9", "3.50.7", "3.51.3", "3.51.4", "3.52.0", "3.53.1", "4.0.0"]


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


@pytest.mark.parametrize("affected", AFFECTED)
def test_an_affected_version_needs_the_gate(affected) -> None:
    assert needs_gate(version(affected))


@pytest.mark.parametrize("fixed", FIXED)
def test_a_version_that_was_never_affected_or_is_fixed_does_not(fixed) -> None:
    assert not needs_gate(version(fixed))


@pytest.fixture(params=["3.40.1", "3.51.3"])
def gate(request, monkeypatch) -> bool:
    """Whether the faked version of the SQLite at hand needs the gate."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version(request.param))
    return request.param == "3.40.1"


@pytest.fixture
def affected(monkeypatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))


@pytest.fixture
def connections(monkeypatch):
    """Every connection that is made, in the order of making."""
    made = []
    connect = sqlite3.connect

    def recording(*args, **kwargs):
        made.append(connect(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", recording)
    return made


def autocheckpoints(connections) -> list[int]:
    """What `wal_autocheckpoint` is on each connection that is open."""
    found = []
    for db in connections:
        with suppress(sqlite3.ProgrammingError):  # closed: it only had a look at the file
            found += [pages for (pages,) in db.execute("PRAGMA wal_autocheckpoint").fetchall()]
    return found


@pytest.mark.anyio
async def test_automatic_checkpoints_are_off_on_every_connection_of_an_affected_version(
    sqlite_path, monkeypatch, connections, gate
) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    async with SQLiteBackend(sqlite_path) as backend:
        session = await backend.session()
        await session.writer.submit(enqueue("a"))
        await session.writer.submit(enqueue("b"))  # the writer has tidied up after the first
        assert await count_in(session) == 2
        with closing(backend.open_store()) as lease, SyncTaskQueue(backend) as queue:
            lease.apply([enqueue("c")])
            lease.tidy()
            queue.enqueue(len, "text")

            found = autocheckpoints(connections)
    # Writer, reader, lease and sync, and with the gate the siblings that copy for them.
    assert len(found) >= (6 if gate else 4)
    assert set(found) == ({0} if gate else {1000})


def test_a_fixed_version_is_left_to_its_own_checkpoints(open_store, gate, monkeypatch) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    store = open_store()
    store.apply([enqueue("a")])
    store.tidy()

    assert (store._sibling is not None) == gate


def test_no_other_can_write_while_pages_are_copied(
    open_store, sqlite_path, monkeypatch, affected
) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    store, other = open_store(), sqlite3.connect(sqlite_path, timeout=0, isolation_level=None)
    refusals = []

    def before(sql: str) -> None:
        if "wal_checkpoint" in sql:
            with pytest.raises(sqlite3.OperationalError, match="locked") as caught:
                other.execute("BEGIN IMMEDIATE")
            refusals.append(str(caught.value))

    store._sibling = Wrapped(store._connect(), before)
    with closing(other):
        for n in range(3):
            store.apply([enqueue(f"t{n}")])
            store.tidy()
            other.execute("BEGIN IMMEDIATE")  # and it can again, afterwards
            other.execute("ROLLBACK")
    assert refusals
    assert count(store) == 3


def test_the_copy_is_complete(open_store, sqlite_path, monkeypatch, affected) -> None:
    store = open_store()
    store.apply([enqueue("a", size=100_000)])
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    store.tidy()

    # One that is told that the file cannot change looks at the file alone, and not at the WAL.
    with closing(sqlite3.connect(f"file:{sqlite_path}?immutable=1", uri=True)) as file:
        assert file.execute("SELECT count(*) FROM sitq_tasks").fetchall() == [(1,)]


def test_nothing_is_copied_while_another_is_writing(
    open_store, sqlite_path, monkeypatch, affected
) -> None:
    """A checkpoint that cannot have the lock would be a passive one, the very case of the bug."""
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    store = open_store()
    copies = []
    store._sibling = Wrapped(
        store._connect(), lambda sql: copies.append(sql) if "wal_checkpoint" in sql else None
    )
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.tidy()  # and nobody is troubled with an error
        other.execute("ROLLBACK")
    assert copies == []


PRUNE = Prune(older_than=0.0, limit=1)


def test_whoever_has_pruned_lets_others_go_first(
    open_store, sqlite_path, monkeypatch, affected
) -> None:
    """They have waited for it already, and would wait for its checkpoint as well."""
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    store, other = open_store(), open_store()
    store.apply([enqueue("a")])
    happened = []
    store._sibling = Wrapped(
        store._connect(),
        lambda sql: happened.append("copied") if "wal_checkpoint" in sql else None,
    )

    def commit_meanwhile(seconds: float) -> None:
        assert seconds == adapter.MEANWHILE
        other.apply([enqueue("b")])
        happened.append("another committed")

    monkeypatch.setattr(adapter.clocks, "step_aside", commit_meanwhile)
    store.apply([PRUNE, enqueue("c")])
    store.tidy()
    assert happened == ["another committed", "copied"]

    store.apply([enqueue("d")])  # it has not pruned now, and its callers wait for what is next
    store.tidy()
    assert happened == ["another committed", "copied", "copied"]


def test_what_another_has_checkpointed_meanwhile_is_left(open_store, monkeypatch, affected) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 50_000)
    store, other = open_store(), open_store()

    def checkpoint_meanwhile(seconds: float) -> None:
        other.apply([enqueue("b")])
        other.tidy()
        other.apply([enqueue("c")])  # which begins the WAL anew

    monkeypatch.setattr(adapter.clocks, "step_aside", checkpoint_meanwhile)
    store.apply([PRUNE, enqueue("a", size=100_000)])
    store.tidy()

    assert other._sibling is not None
    assert store._sibling is None, "it had nothing to copy"


def test_a_copy_that_fails_troubles_nobody_and_frees_the_lock(
    open_store, sqlite_path, monkeypatch, affected
) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    store = open_store()

    def before(sql: str) -> None:
        if "wal_checkpoint" in sql:
            raise sqlite3.OperationalError("disk I/O error")

    store._sibling = Wrapped(store._connect(), before)
    store.apply([enqueue("a")])
    store.tidy()

    assert not store._db.in_transaction
    store.apply([enqueue("b")])
    assert count(store) == 2


def test_the_wal_stays_bounded_over_many_commits(
    open_store, sqlite_path, monkeypatch, affected
) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 256 * 1024)
    store = open_store(durability="normal")
    sizes = []
    for n in range(150):
        store.apply([enqueue(f"t{n}", size=20_000)])
        store.tidy()
        sizes.append(Path(f"{sqlite_path}-wal").stat().st_size)

    assert sum(sizes) > 0
    assert max(sizes) < 2 * 256 * 1024, "3 MB were written"
    assert count(store) == 150


def test_few_commits_that_write_much_are_not_much_behind(open_store, sqlite_path, affected) -> None:
    """The more is copied at once, the longer all others wait for the lock meanwhile."""
    store = open_store(durability="normal")
    sizes = []
    for batch in range(9):
        store.apply([enqueue(f"t{batch}-{n}", size=10_000) for n in range(100)])
        store.tidy()
        sizes.append(Path(f"{sqlite_path}-wal").stat().st_size)

    a_batch = sizes[0]
    assert a_batch > 2**20
    assert max(sizes) <= adapter.CHECKPOINT_AT + a_batch


def test_a_long_reader_lets_the_wal_grow_and_its_end_puts_an_end_to_that(
    open_store, sqlite_path, monkeypatch, affected
) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 64 * 1024)
    store = open_store(durability="normal")
    wal = Path(f"{sqlite_path}-wal")

    def commit(ids) -> None:
        for n in ids:
            store.apply([enqueue(f"t{n}", size=20_000)])
            store.tidy()

    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM sitq_tasks").fetchall() == [(0,)]
        commit(range(30))
        assert reader.execute("SELECT count(*) FROM sitq_tasks").fetchall() == [(0,)]
        reader.execute("ROLLBACK")
    grown = wal.stat().st_size
    assert grown > 400_000
    commit(range(30, 90))
    assert wal.stat().st_size <= grown + 64 * 1024
    assert count(store) == 90


@pytest.fixture
def copies(monkeypatch) -> list[int]:
    """One for each checkpoint."""
    made: list[int] = []
    checkpoint = SqliteStore._checkpoint
    monkeypatch.setattr(
        SqliteStore, "_checkpoint", lambda self, db: (made.append(1), checkpoint(self, db))
    )
    return made


def test_while_a_reader_is_in_the_way_not_every_commit_tries_again(
    open_store, sqlite_path, monkeypatch, affected, copies
) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    store = open_store()
    store.apply([enqueue("first")])
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sitq_tasks").fetchall()
        for n in range(40):
            store.apply([enqueue(f"t{n}")])
            store.tidy()
        reader.execute("ROLLBACK")
    assert 3 <= len(copies) <= 6

    copies.clear()
    for n in range(40, 60):
        store.apply([enqueue(f"t{n}")])
        store.tidy()
    assert len(copies) > 10, "the reader is gone"


def test_who_only_reads_copies_nothing(open_store, monkeypatch, affected, copies) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 1)
    store = open_store()
    store.apply([enqueue("a")])
    store.tidy()
    copies.clear()
    for _ in range(10):
        assert count(store) == 1
        store.tidy()
    assert copies == []


def test_a_wal_that_was_copied_is_not_copied_again_at_every_commit(
    open_store, monkeypatch, affected, copies
) -> None:
    """A WAL that begins anew keeps its size: its size alone is no reason to sync twice."""
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 256 * 1024)
    store = open_store(durability="normal")
    for n in range(20):
        store.apply([enqueue(f"big{n}", size=20_000)])
        store.tidy()
    assert copies, "400 kB were written"

    copies.clear()
    for n in range(40):
        store.apply([enqueue(f"small{n}")])
        store.tidy()
    # A commit of one small task fills some 5 pages: 40 of them, 800 kB at the very most.
    assert len(copies) <= 5


def test_many_who_write_and_copy_at_once_lose_nothing(
    open_store, sqlite_path, monkeypatch, affected
) -> None:
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", 16 * 1024)
    errors = []

    def write(name: str) -> None:
        try:
            store = open_store(durability="normal")
            for n in range(60):
                store.apply([enqueue(f"{name}-{n}", size=500)])
                store.tidy()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert count(open_store()) == 240
    with closing(sqlite3.connect(sqlite_path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
