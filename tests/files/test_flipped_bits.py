"""Bits that flip anywhere in a file: it is refused, or every question has an answer or a name.

No raw error of sqlite3, no hang, no crash of the process, nothing unpickled; and a file that is
refused is left byte for byte as it was. All flips are drawn from one seed.
"""

import pickle
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from sitq import FileRefusedError, NotADatabaseError, SitqError, SQLiteBackend, StoreError
from sitq.adapters.base import BatchError, in_doubt, refused
from sitq.cli import queue_file
from sitq.protocol.commit import Blame
from sitq.protocol.ops import (
    Cancel,
    Completed,
    Count,
    Enqueue,
    Failed,
    Failure,
    Fetch,
    Parked,
    Prune,
    Released,
    Renew,
    Rescue,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    Settle,
    Unpark,
    Watch,
)
from sitq.storage.sqlite_schema import VERSION
from tests.adapters.asked import enqueue, new_task, register

FILES = 400
FAILURE = Failure("it failed", "Error", "trace")
VERDICTS = (Completed(b"v"), Failed(FAILURE), RetryIn(60.0, FAILURE), Released(), Parked("s", "t"))


def every_state(path: Path) -> None:
    """A queue with tasks in all states, and some more pages."""
    with closing(SQLiteBackend(path).open_store()) as store:
        store.apply([register(), enqueue(*(f"t{n}" for n in range(40)), size=700)])
        store.apply([Enqueue((new_task("later", delay_ms=60_000), new_task("cancelled")))])
        store.apply([Cancel("cancelled")])
        (reserved,) = store.apply([Reserve("w", ("default",), 12)])
        assert isinstance(reserved, Reserved)
        store.apply(
            [
                Settle(task.key, task.id, "w", verdict)
                for task, verdict in zip(reserved.tasks, VERDICTS * 2, strict=False)
            ]
        )


def questions():
    """Each in a batch of its own: what is damaged for one need not be for another."""
    yield Count()
    yield Fetch(tuple(f"t{n}" for n in range(40)))
    yield Watch("w")
    yield enqueue("new")
    yield Enqueue((new_task("t3"),), may_exist=True)
    yield register("w2")
    yield Reserve("w2", ("default", "mail"), 5)
    yield Renew("w2", 30.0)
    yield Cancel("t30")
    yield Unpark(("s",))
    yield Prune(0.0, 100)
    yield Rescue(("w",))
    yield Retire("w2")
    yield Count()


def ask(store, op):
    """Return the outcome, or the error as a caller is told it."""
    try:
        (outcome,) = store.apply([op])
    except BatchError as error:
        unknown = error.blame is Blame.UNKNOWN
        return in_doubt(error.error) if unknown else refused(error.error)
    return outcome


def with_flips(whole: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 8, 64))):
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


@pytest.mark.slow
def test_every_flip_is_refused_answered_or_named(tmp_path, monkeypatch) -> None:
    path = tmp_path / "tasks.db"
    every_state(path)
    whole = path.read_bytes()
    chance = random.Random(20260407)
    happened: Counter[str] = Counter()

    def unpickle(*args, **options):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "loads", unpickle)
    for number in range(FILES):
        damaged = with_flips(whole, chance)
        for stray in tmp_path.iterdir():
            stray.unlink()
        path.write_bytes(damaged)
        began = time.monotonic()
        try:
            store = SQLiteBackend(path, durability="normal", busy_timeout=1.0).open_store()
        except FileRefusedError:
            happened["refused"] += 1
            assert path.read_bytes() == damaged, f"file {number}"
            continue
        except StoreError:  # found only while the tables were looked at for writing
            happened["not opened"] += 1
            continue
        with closing(store):
            for op in questions():
                answer = ask(store, op)
                if isinstance(answer, Exception):
                    assert isinstance(answer, SitqError), f"file {number}, {op}"
                    happened["named"] += 1
                else:
                    happened["answered"] += 1
                if isinstance(answer, Reserved):
                    for task, verdict in zip(answer.tasks, VERDICTS, strict=False):
                        ask(store, Settle(task.key, task.id, "w2", verdict))
        assert time.monotonic() - began < 10, f"file {number} took long"
    assert happened["refused"] > 5
    assert happened["named"] > 20
    assert happened["answered"] > 1000
    print(happened)


def test_damage_that_is_met_in_the_midst_of_work_is_called_so(tmp_path) -> None:
    path = tmp_path / "tasks.db"
    every_state(path)
    with closing(sqlite3.connect(path)) as db:
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sitq_tasks'")
    with path.open("r+b") as raw:
        raw.seek((page - 1) * 4096)
        raw.write(b"\0" * 100)

    with closing(SQLiteBackend(path).open_store()) as store:
        answer = ask(store, Count())
    assert type(answer) is StoreError
    assert f"'{path}' is damaged" in str(answer)
    assert "Restore a backup" in str(answer)


def test_a_schema_that_is_no_text_any_more_is_called_damage(tmp_path) -> None:
    path = tmp_path / "tasks.db"
    every_state(path)
    damaged = path.read_bytes().replace(
        b"CREATE TABLE sitq_workers", b"CREATE TABLE sitq\xff\xfeorkers"
    )
    path.write_bytes(damaged)

    with pytest.raises(NotADatabaseError, match="is damaged"):
        SQLiteBackend(path).open_store()
    with pytest.raises(NotADatabaseError, match="is damaged"):
        queue_file.look(str(path), lambda db, path: None)
    assert path.read_bytes() == damaged


def test_a_version_of_nonsense_is_refused(tmp_path) -> None:
    path = tmp_path / "tasks.db"
    for version in (VERSION + 2**40, -1):
        path.unlink(missing_ok=True)
        every_state(path)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE sitq_schema SET version = ?", (version,))
        with pytest.raises(FileRefusedError):
            SQLiteBackend(path).open_store()
