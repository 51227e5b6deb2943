"""What a Postgres server tells of its commits: kept with them, or gone with them."""

import pytest

from sitq import PostgresBackend
from sitq.adapters import postgres as adapter
from sitq.adapters.base import BatchError
from sitq.protocol.commit import Blame
from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import Cancel, Enqueue, Fetch, NewTask
from sitq.testing.simulation.history import Kind
from sitq.testing.simulation.row_triggers import COLUMNS, changed
from torture.postgres_witness import TABLES, _lasting, kept_in_database, watch
from torture.proxy import Proxy


class Here:
    """A witness that keeps what it is told."""

    def __init__(self) -> None:
        self.notes = []

    def note(self, kind, task="", token=0, value=None) -> None:
        self.notes.append((kind, task, value))


class Watched:
    """A witnessed store behind a proxy."""

    def __init__(self, server, database, proxy) -> None:
        self._server, self._database, self.proxy = server, database, proxy
        self.here = Here()
        watch(self.here)
        self.store = PostgresBackend(server.dsn(database, where=proxy.where)).open_store()

    def seen(self):
        """Return what each batch that was written down has changed, None if it is not kept."""
        records = [value for kind, _, value in self.here.notes if kind is Kind.BATCH]
        found = kept_in_database(self._server, self._database).changes(records)
        return [
            None if changes is None else [(id_, each.old, each.new) for id_, each in changes]
            for changes in found
        ]


@pytest.fixture
def watched(postgres_server, monkeypatch):
    database = postgres_server.create_database()
    PostgresBackend(postgres_server.dsn(database)).open_store().close()
    postgres_server.sql(TABLES, database)
    monkeypatch.setattr(adapter, "apply_batch", adapter.apply_batch)  # so that it is put back
    with Proxy(postgres_server.socket) as proxy:
        watched = Watched(postgres_server, database, proxy)
        yield watched
        watched.store.close()
    postgres_server.drop_database(database)


def enqueue(*ids):
    return Enqueue(tuple(NewTask(id_, b"", "f") for id_ in ids))


def test_what_was_committed_is_told_with_its_changes_in_their_order(watched) -> None:
    watched.store.apply([enqueue("a", "b")])
    watched.store.apply([Cancel("a")])
    watched.store.apply([Fetch(("a",))])  # which changes nothing, and is no event
    assert watched.seen() == [
        [("a", None, S.QUEUED), ("b", None, S.QUEUED)],
        [("a", S.QUEUED, S.CANCELLED)],
    ]
    assert (Kind.CANCELLED, "a", S.QUEUED) in watched.here.notes


def test_a_batch_whose_commit_never_arrived_is_none(watched) -> None:
    watched.proxy.lose_the_request(b"COMMIT\x00")
    with pytest.raises(BatchError) as caught:
        watched.store.apply([enqueue("a"), Cancel("nobody")])
    assert caught.value.blame is Blame.UNKNOWN
    assert watched.seen() == [None]


def test_one_that_is_asked_again_is_a_batch_of_its_own(watched) -> None:
    watched.proxy.lose_the_request(b"COMMIT\x00")
    watched.store.apply([enqueue("a")])
    watched.proxy.lose_the_answer()
    watched.store.apply([enqueue("b")])
    assert watched.seen() == [None, [("a", None, S.QUEUED)], [("b", None, S.QUEUED)], []]


def test_a_batch_whose_answer_was_lost_is_one(watched) -> None:
    watched.proxy.lose_the_answer()
    with pytest.raises(BatchError) as caught:
        watched.store.apply([enqueue("a"), Cancel("nobody")])
    assert caught.value.blame is Blame.UNKNOWN
    assert watched.seen() == [[("a", None, S.QUEUED)]]
    assert [kind for kind, *_ in watched.here.notes] == [Kind.BATCH]  # nobody was told anything


def row(of, id_, old=None, new=None):
    values = {"state": old}, {"state": new}
    return changed(of, id_, *(side.get(column, 0) for side in values for column in COLUMNS))


def test_what_was_stored_and_taken_back_at_once_was_never_there() -> None:
    put = row("new", "a", new="queued")
    back = row("old", "a", old="queued")
    other = row("new", "b", new="queued")
    gone = row("old", "c", old="success")
    assert _lasting([put, other, back]) == (other,)
    assert _lasting([put, back, put]) == (put,)
    assert _lasting([gone]) == (gone,)
