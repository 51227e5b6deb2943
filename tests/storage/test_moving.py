"""The steps by which a task leaves one store for another, one by one, in both dialects."""

import pytest

from sitq.exceptions import NewerSchemaError
from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Cancel,
    Completed,
    Enqueue,
    Fetch,
    NewTask,
    Register,
    Reserve,
    Settle,
    Unpark,
)
from sitq.storage import moving
from sitq.storage.moving import AWAY, COMING, LAST, SQLITE, Found
from tests.storage.runs import Sql, run


class Side:
    """A store, and its dialect."""

    def __init__(self, store, dialect) -> None:
        self.store, self.dialect = store, dialect

    def run(self, program, *args):
        made = program(self.dialect, *args)
        return run(self.store.db, made) if self.dialect is SQLITE else self.store.run(made)

    def enqueue(self, *ids, queue="default"):
        tasks = tuple(NewTask(id_, id_.encode(), "f", queue) for id_ in ids)
        self.store.apply([Enqueue(tasks, may_exist=True)])

    def reserve(self, limit=9):
        self.store.apply([Register("w", "host", 1, ("default",), 9, 60.0)])
        (reserved,) = self.store.apply([Reserve("w", ("default",), limit)])
        return list(reserved.tasks)

    def end(self, task):
        self.store.apply([Settle(task.key, task.id, "w", Completed(b"done"))])

    def states(self, *ids):
        (fetched,) = self.store.apply([Fetch(ids)])
        return {id_: row.state for id_, row in fetched.rows.items()}


@pytest.fixture(params=["sqlite", "postgres"])
def side(request):
    if request.param == "sqlite":
        return Side(request.getfixturevalue("sql"), SQLITE)
    return Side(request.getfixturevalue("postgres"), moving.postgres("sitq"))


@pytest.fixture
def other():
    store = Sql()
    yield Side(store, SQLITE)
    store.close()


def test_what_is_fenced_is_out_of_every_workers_reach(side) -> None:
    side.enqueue("a", "b")
    rows = side.run(moving.fence, ["a", "b", "nobody"])
    assert [row[0] for row in rows] == ["a", "b"]
    assert all(map(moving.is_fenced, rows))
    assert side.reserve() == []
    side.store.apply([Unpark(("pickle-5", ""))])
    assert side.reserve() == []
    assert side.run(moving.fence, ["a", "b"]) == rows  # asked again, it is the same


def test_what_runs_is_not_fenced_and_what_has_ended_is_only_read(side) -> None:
    side.enqueue("runs", "ended")
    runs, ended = side.reserve()
    side.end(ended)
    assert runs.id == "runs"
    (row,) = side.run(moving.fence, ["runs", "ended"])
    assert row[0] == "ended"
    assert moving.has_ended(row)
    assert not moving.is_fenced(row)
    assert side.states("runs", "ended") == {"runs": S.RUNNING, "ended": S.SUCCESS}
    assert side.run(moving.movable, 9) == ["ended"]
    assert side.run(moving.waiting) == 1


def test_what_was_fenced_is_what_it_was_when_it_is_restored(side) -> None:
    later = NewTask("later", b"", "f", delay_ms=60_000)
    side.enqueue("a")
    side.store.apply([Enqueue((later,))])
    side.run(moving.fence, ["a", "later"])
    assert side.run(moving.restore, AWAY, ["a", "later", "nobody"]) == 2
    assert side.run(moving.restore, AWAY, ["a", "later"]) == 0
    assert side.states("a", "later") == {"a": S.QUEUED, "later": S.SCHEDULED}


def test_what_was_put_runs_only_after_it_was_let_go(side, other) -> None:
    other.enqueue("a")
    rows = other.run(moving.fence, ["a"])
    for _ in range(2):  # asked again, it is the same
        found = side.run(moving.put, rows)
        assert found["a"].is_coming
        assert moving.same_task(rows[0], found["a"])
    assert side.run(moving.coming, 9) == ["a"]
    assert side.run(moving.movable, 9) == []
    assert side.run(moving.waiting) == 0
    assert side.reserve() == []
    assert other.run(moving.drop, rows) == ["a"]
    assert other.run(moving.existing, ["a"]) == set()
    side.run(moving.restore, COMING, ["a"])
    assert [task.id for task in side.reserve()] == ["a"]


def test_what_was_dropped_is_gone_and_what_was_not_fenced_stays(side) -> None:
    side.enqueue("a", "b")
    rows = side.run(moving.fence, ["a", "b"])
    side.run(moving.restore, AWAY, ["b"])
    assert side.run(moving.drop, rows) == ["a"]
    assert side.states("a", "b") == {"b": S.QUEUED}


def test_an_id_that_is_taken_is_not_overwritten(side, other) -> None:
    other.enqueue("a")
    side.store.apply([Enqueue((NewTask("a", b"another", "g"),))])
    (row,) = other.run(moving.fence, ["a"])
    found = side.run(moving.put, [row])["a"]
    assert not found.is_coming
    assert not moving.same_task(row, found)


def test_what_is_cancelled_on_its_way_is_not_dropped_and_comes_as_cancelled(side, other) -> None:
    other.enqueue("a")
    rows = other.run(moving.fence, ["a"])
    side.run(moving.put, rows)
    other.store.apply([Cancel("a")])
    assert other.run(moving.drop, rows) == []
    (ended,) = other.run(moving.fence, ["a"])
    found = side.run(moving.put, [ended])["a"]
    assert moving.same_end(ended, found)
    assert other.run(moving.drop, [ended]) == ["a"]
    assert side.states("a") == {"a": S.CANCELLED}


def test_one_that_was_cancelled_where_it_goes_is_not_let_go(side, other) -> None:
    other.enqueue("a")
    rows = other.run(moving.fence, ["a"])
    side.run(moving.put, rows)
    side.store.apply([Cancel("a")])
    assert side.run(moving.restore, COMING, ["a"]) == 0
    assert side.states("a") == {"a": S.CANCELLED}
    assert side.run(moving.movable, 9) == ["a"]


@pytest.mark.parametrize(
    ("state", "payload", "finished_ms", "same"),
    [
        (S.SUCCESS, b"a", 5, True),
        (S.SUCCESS, b"a", 6, False),
        (S.SUCCESS, b"another", 5, False),
        (S.CANCELLED, b"a", 5, False),
        (S.QUEUED, b"a", None, False),
    ],
)
def test_an_end_is_the_same_if_it_is_that_of_the_same_run(
    state, payload, finished_ms, same
) -> None:
    row = [None] * len(moving.COLUMNS)
    for column, value in (("state", "success"), ("payload", b"a"), ("finished_ms", 5)):
        row[moving.COLUMNS.index(column)] = value
    assert moving.same_end(tuple(row), Found(state, "", payload, finished_ms)) is same


def test_sqlite_does_not_give_a_number_away_twice(other) -> None:
    def numbers():
        return [seq for (seq,) in other.store.db.execute("SELECT seq FROM sitq_tasks ORDER BY seq")]

    other.enqueue("a", "b", "c")
    first, last = other.run(moving.fence, ["a"]), other.run(moving.fence, ["b", "c"])
    other.run(moving.drop, first)
    assert numbers() == [2, 3]
    other.run(moving.drop, last)
    assert numbers() == [3]  # only the number is left
    assert other.run(moving.movable, 9) == []
    assert other.states(LAST) == {LAST: S.CANCELLED}
    other.enqueue("d")
    assert numbers() == [3, 4]
    other.run(moving.drop, other.run(moving.fence, ["d"]))
    assert numbers() == [4]


def test_a_schema_that_was_migrated_meanwhile_is_left_alone(postgres) -> None:
    postgres.ask("UPDATE sitq.schema_version SET version = 99")
    try:
        with pytest.raises(NewerSchemaError):
            postgres.run(moving.fence(moving.postgres("sitq"), ["a"]))
    finally:
        postgres.ask("UPDATE sitq.schema_version SET version = 1")


@pytest.mark.parametrize(
    ("state", "stamp", "is_fenced", "is_coming"),
    [
        (S.PARKED, f"{AWAY}x", True, False),
        (S.PARKED, f"{COMING}x", False, True),
        (S.PARKED, "json-1", False, False),
        (S.QUEUED, "", False, False),
    ],
)
def test_what_is_there_is_known_to_be_coming_or_about_to_leave(
    state, stamp, is_fenced, is_coming
) -> None:
    found = Found(state, stamp, b"", None)
    assert (found.is_fenced, found.is_coming) == (is_fenced, is_coming)


def test_a_database_is_told_from_every_other(postgres) -> None:
    which = moving.which_database(moving.postgres("sitq"))
    started, database = postgres.run(which)
    ((name,),) = postgres.ask("SELECT current_database()::text")
    assert started
    assert database == name
