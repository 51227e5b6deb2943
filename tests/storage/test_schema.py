"""How a file gets its tables, and which files are refused."""

import sqlite3

import pytest

from sitq.exceptions import ForeignFileError, NewerSchemaError
from sitq.storage import sqlite_schema as schema
from sitq.storage.program import Change, Commit, Done, Query, resume
from tests.storage.runs import run


@pytest.fixture
def db():
    db = sqlite3.connect(":memory:", isolation_level=None)
    yield db
    db.close()


def objects(db) -> list:
    return db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_an_empty_file_gets_the_tables_and_a_full_one_is_left_as_it_is(db) -> None:
    run(db, schema.open_database("x.db"))
    made = objects(db)
    assert {name for _, name, _ in made} >= {"sitq_tasks", "sitq_workers", "sitq_schema"}

    changes = db.total_changes
    run(db, schema.open_database("x.db"))
    assert (objects(db), db.total_changes) == (made, changes)
    assert run(db, schema.check_database("x.db")) == schema.VERSION


def test_of_two_processes_on_a_new_file_the_second_finds_what_the_first_has_made(db) -> None:
    second = schema.open_database("x.db")
    step = resume(second, None)
    assert isinstance(step, Query)
    step = resume(second, db.execute(step.sql).fetchall())  # it has seen an empty file
    assert step == Query("BEGIN IMMEDIATE")

    run(db, schema.open_database("x.db"))  # the first gets the lock, and all done
    made = objects(db)

    db.execute("BEGIN IMMEDIATE")
    rows = []
    while not isinstance(step := resume(second, rows), Done):
        rows = db.execute(step.sql).fetchall() if isinstance(step, Query) else []
    db.execute("COMMIT")
    assert objects(db) == made


def test_a_migration_takes_a_file_step_by_step_to_the_newest_version(db, monkeypatch) -> None:
    run(db, schema.open_database("x.db"))
    more = ("CREATE TABLE sitq_more (x INTEGER) STRICT",)
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, more))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)

    run(db, schema.open_database("x.db"))
    assert "sitq_more" in {name for _, name, _ in objects(db)}
    assert db.execute("SELECT version FROM sitq_schema").fetchall() == [(schema.VERSION,)]


def test_a_file_of_a_newer_version_is_refused(db) -> None:
    run(db, schema.open_database("x.db"))
    db.execute("UPDATE sitq_schema SET version = 99")

    with pytest.raises(NewerSchemaError, match=r"'x\.db' has schema version 99"):
        run(db, schema.open_database("x.db"))


def test_a_file_whose_version_changes_while_it_is_open_is_refused(db) -> None:
    run(db, schema.open_database("x.db"))
    run(db, schema.check_again("x.db"))
    db.execute("DROP INDEX sitq_tasks_finished")
    db.execute("UPDATE sitq_schema SET version = 2")

    with pytest.raises(ForeignFileError, match=r"'x\.db' had schema version .* and has 2 now"):
        run(db, schema.check_again("x.db"))


def test_a_file_of_another_program_is_refused(db) -> None:
    db.execute("CREATE TABLE users (name TEXT)")

    with pytest.raises(ForeignFileError, match=r"'x\.db' is an SQLite file of another program"):
        run(db, schema.open_database("x.db"))
    assert [name for _, name, _ in objects(db)] == ["users"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER evil AFTER INSERT ON sitq_tasks BEGIN SELECT 1; END",
        "CREATE VIEW evil AS SELECT 1",
        "CREATE TABLE evil (x)",
        "CREATE INDEX evil ON sitq_tasks (name)",
    ],
)
def test_a_file_with_something_in_it_that_we_did_not_make_is_refused(db, statement) -> None:
    run(db, schema.open_database("x.db"))
    db.execute(statement)

    with pytest.raises(ForeignFileError, match="named 'evil' that sitq did not make"):
        run(db, schema.open_database("x.db"))


def test_a_crash_at_any_statement_of_the_first_opening_leaves_an_empty_file(tmp_path) -> None:
    def open_until(path, crash_at: int) -> int:
        """Open the file, up to statement *crash_at*; then the process is gone."""
        db = sqlite3.connect(path, isolation_level=None)
        program, ran = schema.open_database("x.db"), 0
        step = resume(program, None)
        while not isinstance(step, Done) and ran < crash_at:
            match step:
                case Query(sql, params):
                    rows = db.execute(sql, params).fetchall()
                case Change(sql, many):
                    rows = [(db.executemany(sql, many).rowcount,)]
                case Commit():
                    db.execute("COMMIT")
                    rows = []
            ran += 1
            step = resume(program, rows)
        db.close()
        return ran

    statements = open_until(tmp_path / "whole.db", 1000)
    for crash_at in range(statements):
        path = tmp_path / f"{crash_at}.db"
        assert open_until(path, crash_at) == crash_at
        db = sqlite3.connect(path, isolation_level=None)
        assert objects(db) == []
        run(db, schema.open_database("x.db"))
        assert run(db, schema.check_database("x.db")) == schema.VERSION
        db.close()
