"""How a schema of Postgres gets its tables, and which are refused."""

import threading

import pytest

from sitq.exceptions import ForeignFileError, NewerSchemaError
from sitq.protocol.ops import Count, Counted, Enqueue, Reserve
from sitq.storage import postgres_schema as schema
from sitq.storage.program import Commit, Query, resume
from tests.storage.on_postgres import Postgres
from tests.storage.runs import new_task, register


@pytest.fixture
def fresh(postgres_dsn):
    """A connection to a database that holds nothing."""
    fresh = Postgres(postgres_dsn)
    yield fresh
    fresh.close()


def relations(store) -> list:
    return store.ask(
        "SELECT relname::text, oid FROM pg_class WHERE relnamespace = to_regnamespace('sitq')::oid"
        " ORDER BY 1"
    )


def test_an_empty_database_gets_the_tables_and_a_full_one_is_left_as_it_is(fresh) -> None:
    assert fresh.run(schema.check_schema("sitq")) == 0
    fresh.open()
    made = relations(fresh)
    assert {name for name, _ in made} >= {"tasks", "workers", "schema_version", "tasks_queued"}

    fresh.open()
    assert relations(fresh) == made
    assert fresh.run(schema.check_schema("sitq")) == schema.VERSION


def test_a_schema_that_somebody_has_made_for_us_is_used(fresh) -> None:
    fresh.ask("CREATE SCHEMA sitq")

    assert fresh.open().apply([Count()]) == (Counted(()),)


def test_two_schemas_of_one_database_are_two_queues(fresh) -> None:
    other = Postgres(fresh.settings.dsn, "other").open()
    fresh.open().apply([Enqueue((new_task(),))])

    assert other.apply([Count()]) == (Counted(()),)
    other.close()


def test_of_two_processes_on_a_new_database_the_second_finds_what_the_first_has_made(fresh) -> None:
    first = schema.open_schema("sitq")
    step = resume(first, None)
    while step != Commit():
        step = resume(first, fresh.step(step))
    second = Postgres(fresh.settings.dsn)
    opening = threading.Thread(target=second.open)
    opening.start()
    while not fresh.ask("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        assert opening.is_alive()
    fresh.step(step)
    opening.join(30)

    assert second.apply([Count()]) == (Counted(()),)
    second.close()


def test_an_older_schema_is_migrated_once_its_batches_have_ended(fresh, monkeypatch) -> None:
    fresh.open()
    step = ("CREATE TABLE sitq.more (x int)",)
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, step))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)

    program = schema.open_schema("sitq")
    asked = []
    made = resume(program, None)
    while isinstance(made, Query):
        asked.append(made.sql)
        made = resume(program, fresh.step(made))
    fresh.step(made)

    assert asked.index(schema._NO_BATCHES) < asked.index(step[0])
    assert "more" in {name for name, _ in relations(fresh)}
    assert fresh.run(schema.check_schema("sitq")) == 2


@pytest.mark.parametrize("op", [Count(), Enqueue((new_task(),)), Reserve("w", ("default",), 1)])
def test_a_newer_schema_is_refused_also_by_a_batch_that_is_under_way_there(fresh, op) -> None:
    fresh.open()
    fresh.apply([register(), Enqueue((new_task("there"),))])
    fresh.ask("UPDATE sitq.schema_version SET version = 99")

    with pytest.raises(NewerSchemaError, match=r"'sitq' has version 99, and this sitq knows 1"):
        fresh.open()
    with pytest.raises(NewerSchemaError):
        fresh.apply([op])
    assert fresh.ask("SELECT id, state FROM sitq.tasks") == [("there", "queued")]


@pytest.mark.parametrize(
    "version", ["DELETE FROM sitq.schema_version", "UPDATE sitq.schema_version SET version = 0"]
)
def test_a_schema_that_does_not_say_its_version_is_refused(fresh, version) -> None:
    fresh.open()
    fresh.ask(version)

    with pytest.raises(ForeignFileError, match="does not say which version of sitq made it"):
        fresh.open()


def test_a_schema_of_another_program_is_refused_and_left_as_it_is(fresh) -> None:
    fresh.ask("CREATE SCHEMA sitq")
    fresh.ask("CREATE TABLE sitq.users (name text)")
    before = relations(fresh)

    with pytest.raises(ForeignFileError, match=r"'sitq' is another program's \(it holds users\)"):
        fresh.open()
    assert relations(fresh) == before


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((120020, "12.20", "UTF8"), r"PostgreSQL 12\.20, and sitq needs 13 or newer"),
        ((150018, "15.18", "LATIN1"), "keeps its texts in LATIN1, and sitq needs UTF8"),
    ],
)
def test_a_server_that_cannot_hold_a_queue_is_refused(answer, message) -> None:
    program = schema.check_schema("sitq")
    resume(program, None)

    with pytest.raises(ForeignFileError, match=message):
        resume(program, [answer])
