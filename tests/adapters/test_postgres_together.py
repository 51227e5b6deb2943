"""What leaves together: whatever goes wrong with it, callers are told the truth."""

import pytest

from sitq import NewerSchemaError, PostgresBackend
from sitq.adapters import postgres_news as news
from sitq.adapters.base import BatchError
from sitq.adapters.postgres import block
from sitq.protocol.commit import Blame
from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Completed,
    Conflict,
    Count,
    Counted,
    Enqueue,
    Enqueued,
    NewTask,
    Register,
    Reserve,
    Reserved,
    Settle,
    Settled,
)
from sitq.storage import postgres_statements as sql
from torture.proxy import Proxy


@pytest.fixture
def database(postgres_dsn):
    return postgres_dsn.partition("@/")[2].partition("?")[0]


@pytest.fixture(params=[True, False], ids=["prepared", "not prepared"])
def store(request, postgres_dsn):
    store = PostgresBackend(postgres_dsn, prepare=request.param).open_store()
    yield store
    store.close()


def enqueue(*ids, payload=b"") -> Enqueue:
    return Enqueue(tuple(NewTask(id_, payload, "f") for id_ in ids))


def register(store) -> None:
    store.apply([Register("w", "here", 1, ("default",), 10, 60.0)])


RESERVE = Reserve("w", ("default",), 10)


def given(outcome) -> list[str]:
    assert isinstance(outcome, Reserved)
    return [task.id for task in outcome.tasks]


def counted(store) -> dict[S, int]:
    (outcome,) = store.apply([Count()])
    assert isinstance(outcome, Counted)
    return {state: count for _, state, count in outcome.rows}


def test_a_task_goes_its_way(store) -> None:
    register(store)
    assert store.apply([enqueue("a", "b"), enqueue("c")]) == (Enqueued(), Enqueued())
    (reserved,) = store.apply([RESERVE])
    assert given(reserved) == ["a", "b", "c"]
    settles = [Settle(task.key, task.id, "w", Completed(b"v")) for task in reserved.tasks]
    *settled, more = store.apply([*settles, enqueue("d"), RESERVE])
    assert settled[:-1] == [Settled(True)] * 3
    assert given(more) == ["d"]
    assert counted(store) == {S.SUCCESS: 3, S.RUNNING: 1}


def test_a_verdict_that_comes_twice_counts_once_and_is_told_so(store) -> None:
    register(store)
    store.apply([enqueue("a", "b")])
    (reserved,) = store.apply([RESERVE])
    a, b = [Settle(task.key, task.id, "w", Completed(b"v")) for task in reserved.tasks]
    fenced = Settle(b.key._replace(token=b.key.token + 1), "b", "w", Completed(b"x"))
    store.apply([a])

    assert store.apply([a, fenced, RESERVE])[:2] == (Settled(True), Settled(False))
    assert counted(store) == {S.SUCCESS: 1, S.RUNNING: 1}


def test_an_id_that_is_taken_is_decided_upon_and_its_neighbours_are_stored(store) -> None:
    store.apply([enqueue("a")])

    asked = [enqueue("a"), enqueue("b"), enqueue("a", payload=b"other"), enqueue("c", "c")]
    assert store.apply(asked) == (Enqueued(), Enqueued(), Conflict("a", S.QUEUED), Enqueued())
    assert counted(store) == {S.QUEUED: 3}
    assert store.apply([enqueue("d")]) == (Enqueued(),), "the connection is of use again"


def test_what_is_due_later_is_given_once_it_is_due(store) -> None:
    register(store)
    later, past = (
        NewTask("later", b"", "f", delay_ms=3_600_000),
        NewTask("past", b"", "f", run_at_ms=5),
    )
    store.apply([Enqueue((later, past))])
    (reserved,) = store.apply([RESERVE])

    assert given(reserved) == ["past"]
    assert reserved.next_due_in == pytest.approx(3600, abs=60)


@pytest.mark.parametrize("op", [enqueue("t"), RESERVE], ids=["enqueue", "reserve"])
def test_a_schema_that_is_newer_by_now_is_not_written_to(
    store, postgres_server, database, op
) -> None:
    register(store)
    store.apply([enqueue("there")])
    postgres_server.sql("UPDATE sitq.schema_version SET version = 99", database)

    with pytest.raises(BatchError) as caught:
        store.apply([op])
    assert isinstance(caught.value.error, NewerSchemaError)
    postgres_server.sql("UPDATE sitq.schema_version SET version = 1", database)
    assert counted(store) == {S.QUEUED: 1}


def test_a_reserve_whose_answer_is_lost_is_in_doubt_and_finds_its_tasks_again(
    postgres_server, database
) -> None:
    with Proxy(postgres_server.socket) as proxy:
        backend = PostgresBackend(postgres_server.dsn(database, where=proxy.where))
        store = backend.open_store()
        try:
            register(store)
            store.apply([enqueue("a", "b")])
            proxy.lose_the_answer()
            with pytest.raises(BatchError) as caught:
                store.apply([RESERVE])
            assert caught.value.blame is Blame.UNKNOWN
            (again,) = store.apply([RESERVE._replace(known=())])
            assert given(again) == ["a", "b"]
            assert {task.attempt for task in again.tasks} == {1}
        finally:
            store.close()


@pytest.fixture
def by_proxy(postgres_server, database):
    """A store whose connections go through a proxy; and the proxy."""
    with Proxy(postgres_server.socket) as proxy:
        dsn = postgres_server.dsn(database, where=proxy.where)
        store = PostgresBackend(dsn, timeout=1.0).open_store()
        yield store, proxy
        store.close()


def test_new_tasks_whose_answer_is_lost_are_asked_again_and_stored_once(by_proxy) -> None:
    store, proxy = by_proxy
    proxy.lose_the_answer()
    assert store.apply([enqueue("a", "b")]) == (Enqueued(),)
    proxy.lose_the_request(b"c-d-e")
    assert store.apply([enqueue("c-d-e")]) == (Enqueued(),)
    proxy.calm()
    assert counted(store) == {S.QUEUED: 3}


def test_new_tasks_stay_in_doubt_if_the_server_stays_away(by_proxy) -> None:
    store, proxy = by_proxy
    store.apply([enqueue("a")])
    proxy.lose_the_answer()
    proxy.refuse()
    with pytest.raises(BatchError) as caught:
        store.apply([enqueue("t")])
    assert caught.value.blame is Blame.UNKNOWN
    proxy.calm()
    assert counted(store) == {S.QUEUED: 2}


def test_new_tasks_stay_in_doubt_if_the_second_answer_is_no(by_proxy, monkeypatch) -> None:
    """That the second one was refused says nothing of the first."""
    store, proxy = by_proxy
    monkeypatch.setattr(sql, "EXISTING", "SELECT FROM nowhere WHERE id = ANY ($1)")
    proxy.lose_the_answer()
    with pytest.raises(BatchError) as caught:
        store.apply([enqueue("t")])
    assert caught.value.blame is Blame.UNKNOWN
    proxy.calm()
    assert counted(store) == {S.QUEUED: 1}


def test_a_bell_that_does_not_ring_costs_no_batch(store, monkeypatch) -> None:
    monkeypatch.setattr(news, "RING", "SELECT 1 / length(substr($1, 1, 0)), $2")
    monkeypatch.setattr(news, "RING_EVERY", 0.0)
    for n in range(3):
        assert store.apply([enqueue(f"a{n}")]) == (Enqueued(),)
        assert store.apply([enqueue(f"b{n}")]) == (Enqueued(),), "nobody has read the failure yet"
        store.tidy()
    assert counted(store) == {S.QUEUED: 6}


def test_what_a_batch_has_set_ends_with_it(store) -> None:
    register(store)
    store.apply([enqueue("a")])
    store.apply([RESERVE])
    store.tidy()
    connection, settings = store._talk.connection, store._talk.settings
    for name, usual in (("lock_timeout", "0"), ("enable_seqscan", "on"), ("sitq_batch.now", "")):
        assert block(connection.ask(f"SHOW {name}"), settings) == [(usual,)]
