"""A pooler that gives each transaction another connection, and what relies on more than one."""

from contextlib import suppress

import psycopg
import pytest

from sitq import PostgresBackend, StoreError, SyncTaskQueue
from torture.pooler import Pooler

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def pooler(postgres_dsn):
    with Pooler(postgres_dsn, size=3) as pooler:
        yield pooler


@pytest.fixture
def client(pooler):
    with psycopg.connect(pooler.dsn, autocommit=True, prepare_threshold=None) as client:
        yield client


def test_each_transaction_has_another_connection_and_keeps_it_to_its_end(client) -> None:
    alone = [client.execute(PID).fetchone() for _ in range(3)]
    assert len(set(alone)) == 3
    with client.transaction():
        within = [client.execute(PID).fetchone() for _ in range(3)]
    assert len(set(within)) == 1


def test_several_statements_that_are_sent_at_once_are_one_transaction(client) -> None:
    with client.pipeline(), client.transaction():
        within = [client.execute(PID) for _ in range(3)]
    assert len({cursor.fetchone() for cursor in within}) == 1
    client.execute("CREATE TABLE kept (n int); BEGIN; INSERT INTO kept VALUES (1); COMMIT")
    assert client.execute("SELECT n FROM kept").fetchone() == (1,)


def test_what_a_client_has_begun_goes_with_it(pooler, client) -> None:
    client.execute("CREATE TABLE kept (n int)")
    other = psycopg.connect(pooler.dsn)
    other.execute("INSERT INTO kept VALUES (1)")
    other.close()
    for _ in range(6):
        assert client.execute("SELECT * FROM kept").fetchone() is None


def test_what_is_left_in_a_session_is_found(pooler, client) -> None:
    assert pooler.left_behind() == []
    client.execute("SET lock_timeout = 7")
    client.execute("LISTEN something")
    client.execute("SELECT pg_advisory_lock(5)")
    assert sorted(pooler.left_behind()) == ["listens: something", "locks: 5", "set: lock_timeout"]


def test_a_backend_that_was_not_told_of_the_pooler_leaves_much_behind(pooler) -> None:
    backend = PostgresBackend(pooler.dsn, timeout=0.5)
    with SyncTaskQueue(backend) as queue:
        for _ in range(5):
            with suppress(StoreError):
                queue.enqueue(print)
    assert any(what.startswith("prepared: ") for what in pooler.left_behind())


def test_a_backend_that_was_told_works_and_leaves_nothing_behind(pooler) -> None:
    backend = PostgresBackend(pooler.dsn, listen=False, prepare=False)
    with SyncTaskQueue(backend) as queue:
        ids = [queue.enqueue(print) for _ in range(5)]
        assert all(queue.cancel(task_id) for task_id in ids)
    assert pooler.transactions > 10
    assert pooler.left_behind() == []
