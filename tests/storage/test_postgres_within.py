"""An enqueue and a finish in a transaction of the caller's: what they do, and what they leave alone."""

import pytest

from sitq.exceptions import NewerSchemaError, StoreError
from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import Completed, Enqueue, Enqueued, Fetch, Reserve, Settle, Settled, TaskKey
from sitq.storage.postgres_within import Place, apply_within
from sitq.storage.program import Done, resume
from tests.storage.runs import new_task, register

LOUD = Place("sitq", "sitq_work", "sitq_ends")
QUIET = Place("sitq", None, None)


def within(postgres, op, place=QUIET):
    """Apply *op* in the transaction that is open; return its outcome, and how it was said."""
    program = apply_within(op, place)
    said = []
    step = resume(program, None)
    while not isinstance(step, Done):
        said.append(step.sql)
        step = resume(program, postgres.step(step))
    return step.value, said


@pytest.fixture
def begun(postgres):
    postgres.ask("BEGIN")
    yield postgres
    postgres.ask("ROLLBACK")


@pytest.fixture
def running(postgres) -> TaskKey:
    """A task that a worker has."""
    postgres.apply([register(), Enqueue((new_task(),))])
    (reserved,) = postgres.apply([Reserve("w", ("default",), 1)])
    return reserved.tasks[0].key


def state(postgres) -> S | None:
    (fetched,) = postgres.apply([Fetch(("t",))])
    return fetched.rows["t"].state if fetched.rows else None


@pytest.mark.parametrize(("end", "left"), [("COMMIT", S.QUEUED), ("ROLLBACK", None)])
def test_what_is_enqueued_stands_or_falls_with_the_transaction(postgres, end, left) -> None:
    postgres.ask("BEGIN")
    outcome, said = within(postgres, Enqueue((new_task(),)), LOUD)
    postgres.ask(end)

    assert outcome == Enqueued()
    assert state(postgres) is left
    assert not [sql for sql in said if sql.startswith(("BEGIN", "COMMIT", "SET"))]


@pytest.mark.parametrize(("end", "left"), [("COMMIT", S.SUCCESS), ("ROLLBACK", S.RUNNING)])
def test_what_is_finished_stands_or_falls_with_the_transaction(
    postgres, running, end, left
) -> None:
    postgres.ask("BEGIN")
    outcome, _ = within(postgres, Settle(running, "t", "w", Completed(b"ok")), LOUD)
    postgres.ask(end)

    assert outcome == Settled(True)
    assert state(postgres) is left


def test_an_attempt_is_finished_once(postgres, running) -> None:
    finish = Settle(running, "t", "w", Completed(b"ok"))
    postgres.ask("BEGIN")
    within(postgres, finish)
    postgres.ask("COMMIT")

    postgres.ask("BEGIN")
    outcome, _ = within(postgres, finish)
    postgres.ask("ROLLBACK")
    assert outcome == Settled(False)


def test_an_attempt_that_is_over_is_not_finished(begun) -> None:
    outcome, _ = within(begun, Settle(TaskKey(1, 1), "t", "w", Completed(b"ok")), LOUD)
    assert outcome == Settled(False)


def test_a_transaction_that_may_only_read_is_refused_before_anything_is_written(begun) -> None:
    begun.ask("SET TRANSACTION READ ONLY")
    with pytest.raises(StoreError, match="may only read, and nothing was stored"):
        within(begun, Enqueue((new_task(),)))


def test_a_newer_schema_is_refused_before_anything_is_written(begun) -> None:
    begun.ask("UPDATE sitq.schema_version SET version = 99")
    with pytest.raises(NewerSchemaError):
        within(begun, Enqueue((new_task(),)))


def test_others_are_told_only_where_there_is_somebody_to_be_told(begun) -> None:
    def rings(place, id_) -> int:
        _, said = within(begun, Enqueue((new_task(id_),)), place)
        return sum("pg_notify" in sql for sql in said)

    assert rings(QUIET, "a") == 0
    assert rings(LOUD, "b") == 1
    assert rings(LOUD, "b") == 1  # the same call once more: it may be the first that is committed
