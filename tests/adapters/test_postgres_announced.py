"""A batch that is announced is told of before it is committed, and waited for by who looks for it."""

import pickle
import threading
import time
from contextlib import closing

import psycopg
import pytest

from sitq import PostgresBackend
from sitq.adapters import clocks, postgres as adapter, postgres_announced
from sitq.adapters.bells import Want
from sitq.adapters.postgres_announced import ARRIVES_WITHIN, KEYS, MOST, Announced, new_key
from sitq.adapters.postgres_bells import PostgresBells
from sitq.adapters.postgres_connection import Connection, PostgresSettings
from sitq.protocol.ops import (
    Completed,
    Enqueue,
    Failure,
    NewTask,
    Register,
    Released,
    Reserve,
    Reserved,
    RetryIn,
    Settle,
    Settled,
)
from sitq.storage import postgres_statements as sql
from torture.pooler import Pooler

KEY = 7
RESERVE = Reserve("w", ("default",), 10)
LOCKS = "SELECT granted FROM pg_locks WHERE locktype = 'advisory'"
SOON = 20.0


def enqueue(*ids) -> Enqueue:
    return Enqueue(tuple(NewTask(id_, b"", "f") for id_ in ids))


def given(outcome) -> list[str]:
    assert isinstance(outcome, Reserved)
    return [task.id for task in outcome.tasks]


@pytest.fixture
def open_store(postgres_dsn):
    stores = []

    def open_(dsn=postgres_dsn):
        store = PostgresBackend(dsn).open_store()
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def producer(open_store):
    return open_store()


@pytest.fixture
def worker(open_store):
    store = open_store()
    store.apply([Register("w", "here", 1, ("default",), 10, 60.0)])
    return store


@pytest.fixture
def other(postgres_dsn):
    """A connection of somebody else, who listens."""
    with closing(psycopg.connect(postgres_dsn, autocommit=True)) as connection:
        connection.execute("LISTEN sitq_work")
        yield connection


def heard(connection) -> list[str]:
    return [each.payload for each in connection.notifies(timeout=0.2)]


def is_announced(worker) -> None:
    worker._talk.settings.announced.add(str(KEY))


# -- what was heard --------------------------------------------------------------------


@pytest.fixture
def now(monkeypatch):
    """What time it is: its only item."""
    time_is = [100.0]
    monkeypatch.setattr(clocks, "monotonic", lambda: time_is[0])
    return time_is


def test_each_is_waited_for_once(now) -> None:
    announced = Announced()
    announced.add("1")
    now[0] += ARRIVES_WITHIN / 2
    announced.add("2")
    now[0] += ARRIVES_WITHIN / 4
    looked_at, keys = announced.since(0.0)
    assert (looked_at, keys) == (now[0], [1, 2])

    announced.add("3")  # at that very moment, after the look
    now[0] += 0.001
    announced.add("4")
    assert announced.since(looked_at)[1] == [4]


def test_what_should_be_there_by_now_is_not_waited_for(now) -> None:
    announced = Announced()
    announced.add("1")
    now[0] += ARRIVES_WITHIN
    announced.add("2")
    assert announced.since(0.0)[1] == [2]


def test_no_more_are_kept_than_can_be_waited_for(now) -> None:
    announced = Announced()
    for key in range(3 * MOST):
        announced.add(str(key))
    assert announced.since(0.0)[1] == list(range(2 * MOST, 3 * MOST))


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1 ", str(KEYS), "9" * 5000, "'; --"])
def test_what_is_no_key_is_not_waited_for(text) -> None:
    announced = Announced()
    announced.add(text)
    assert announced.since(0.0)[1] == []


def test_who_listens_takes_note_of_the_keys(postgres_dsn, producer, other) -> None:
    settings = PostgresSettings(postgres_dsn, origin="this test")
    bell = PostgresBells(settings).hang(Want.WORK)
    listening = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN \"sitq_work\"'"
    until(other, listening, [(1,)])
    other.execute("SELECT pg_notify('sitq_work', %s)", ["somebody\nrubbish"])
    producer.apply([enqueue("a")])
    over = time.monotonic() + SOON
    while not (keys := settings.announced.since(0.0)[1]):
        assert time.monotonic() < over
        time.sleep(0.001)
    bell.take_down()
    assert [f"\n{key}" for key in keys] == heard(other)[1:]


def test_a_backend_can_be_pickled_and_takes_nothing_along(postgres_dsn) -> None:
    backend = PostgresBackend(postgres_dsn)
    backend._settings.announced.add(str(KEY))
    again = pickle.loads(pickle.dumps(Announced()))
    assert again.since(0.0)[1] == []
    assert pickle.loads(pickle.dumps(backend)) is backend


def test_keys_are_numbers_that_the_server_takes(other) -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(0 <= key < KEYS for key in keys)
    other.execute("SELECT pg_advisory_lock(%s)", [KEYS - 1])


# -- who tells -------------------------------------------------------------------------


@pytest.fixture
def in_the_way(postgres_dsn, producer):
    """A transaction that has put the task `a`: whoever puts it as well waits for what becomes of it."""
    with closing(psycopg.connect(postgres_dsn)) as connection:
        connection.execute("""
            INSERT INTO sitq.tasks (seq, id, queue, name, state, priority, run_at_ms, enqueued_ms,
                payload, policy, max_crashes)
            VALUES (-1, 'a', 'default', 'f', 'queued', 0, 0, 0, '', '', 3)
        """)
        yield connection


@pytest.fixture
def patience(monkeypatch):
    """On a busy machine, too, one waits for the other."""
    for module in (adapter, postgres_announced):
        monkeypatch.setattr(module, "ARRIVES_WITHIN", SOON)
    awaits = sql.AWAIT.replace(f"'{sql.AWAIT_LIMIT_MS}'", "'20s'")
    assert awaits != sql.AWAIT
    monkeypatch.setattr(adapter, "AWAIT", awaits)


def in_thread(function):
    """Start it; return what waits for its end, and returns what it has."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()

    def end():
        thread.join(SOON)
        (it,) = found
        return it

    return end


def until(connection, query: str, rows: list) -> None:
    over = time.monotonic() + SOON
    while sorted(connection.execute(query).fetchall()) != rows:
        assert time.monotonic() < over, connection.execute(query).fetchall()
        time.sleep(0.002)


AGAIN = RetryIn(3600.0, Failure("no", "ValueError"))


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("along", [[], [Completed(b"")], [AGAIN]], ids=["alone", "ends", "retries"])
def test_a_worker_that_asks_before_the_commit_is_given_what_it_brings(
    producer, worker, other, in_the_way, along
) -> None:
    settles = []
    if along:
        producer.apply([enqueue("before")])
        producer.tidy()
        ((task,),) = [outcome.tasks for outcome in worker.apply([RESERVE])]
        failure = Failure("no", "ValueError")
        verdict = Released() if along == ["settle"] else RetryIn(3600.0, failure)
        settles = [Settle(task.key, task.id, "w", verdict)]
        heard(other)
    told = in_thread(lambda: producer.apply([enqueue("a")]))
    until(other, LOCKS, [(True,)])
    ((payload),) = heard(other)
    origin, key = payload.split("\n")
    worker._talk.settings.announced.add(key)
    asked = in_thread(lambda: worker.apply([*settles, RESERVE]))
    until(other, LOCKS, [(False,), (True,)])
    in_the_way.rollback()

    assert "a" in given(asked()[-1])
    told()
    assert origin == ""
    assert other.execute(LOCKS).fetchall() == []
    producer.tidy()
    assert heard(other) == [], "it was told in time"


def test_one_that_takes_longer_than_anybody_waits_tells_of_it_once_more(
    producer, other, monkeypatch
) -> None:
    monkeypatch.setattr(adapter, "ARRIVES_WITHIN", 0.0)
    producer.apply([enqueue("a")])
    (first,) = heard(other)
    time.sleep(0.02)  # it is told no more often than that
    producer.tidy()
    assert len(first.split("\n")) == 2
    assert heard(other) == [""]


def test_one_whose_id_is_taken_leaves_no_lock_and_is_told_of_all_the_same(producer, other) -> None:
    producer.apply([enqueue("a")])
    producer.tidy()
    time.sleep(0.02)
    heard(other)

    producer.apply([Enqueue(enqueue("a", "b").tasks, may_exist=True)])
    assert heard(other) == [""], "it is not announced: it is decided step by step"

    time.sleep(0.02)
    producer.apply([enqueue("a")])  # in conflict, which is found by trying
    assert other.execute(LOCKS).fetchall() == []
    announced, *more = heard(other)
    assert announced.startswith("\n")
    assert more == [""]


def test_many_tasks_at_once_are_told_of_afterwards(producer, other) -> None:
    producer.apply([enqueue(*[f"{n}" for n in range(101)])])
    assert heard(other) == []
    producer.tidy()
    assert heard(other) == [""]


def test_what_fails_to_be_told_costs_no_batch(producer, other, monkeypatch) -> None:
    wrong = sql.ANNOUNCE.replace("pg_notify($1, $2)", "1 / length(substr($1 || $2, 1, 0))")
    monkeypatch.setattr("sitq.adapters.postgres_news.ANNOUNCE", wrong)
    producer.apply([enqueue("a")])
    producer.apply([enqueue("b")])
    assert other.execute("SELECT count(*) FROM sitq.tasks").fetchall() == [(2,)]


def test_through_a_pooler_nothing_is_announced(postgres_dsn, open_store, other) -> None:
    """A lock would be left in a session that is given to somebody else."""
    with Pooler(postgres_dsn, size=3) as pooler:
        store = open_store(pooler.dsn)
        for n in range(4):
            store.apply([enqueue(f"{n}")])
            store.tidy()
        assert not [left for left in pooler.left_behind() if left.startswith("locks")]
        assert set(heard(other)) == {""}


# -- who waits -------------------------------------------------------------------------


def test_a_worker_waits_for_a_moment_only_and_goes_on(worker, producer, other) -> None:
    producer.apply([enqueue("here")])
    other.execute("SELECT pg_advisory_lock(%s)", [KEY])
    is_announced(worker)
    began_at = time.monotonic()
    (outcome,) = worker.apply([RESERVE])
    waited = time.monotonic() - began_at
    assert waited >= sql.AWAIT_LIMIT_MS / 1000
    assert given(outcome) == ["here"]

    (task,) = outcome.tasks
    is_announced(worker)
    settled, _ = worker.apply([Settle(task.key, task.id, "w", Released()), RESERVE])
    assert settled == Settled(True)


def test_only_who_reserves_waits_and_once(worker, producer, monkeypatch) -> None:
    waits = []
    ask_together = Connection.ask_together

    def noting(connection, queries, bell=None):
        waits.append(any("lock_shared" in query.sql for query in queries))
        return ask_together(connection, queries, bell)

    monkeypatch.setattr(Connection, "ask_together", noting)
    for store in (worker, producer):
        is_announced(store)
    producer.apply([enqueue("a")])
    assert given(*worker.apply([RESERVE._replace(limit=1)])) == ["a"]
    worker.apply([RESERVE])
    assert waits == [False, True, False]
