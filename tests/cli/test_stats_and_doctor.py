"""`sitq stats` and `sitq doctor`: what they say of files of every kind, and leave untouched."""

import hashlib
import json
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from sitq import SQLiteBackend, SyncTaskQueue


@pytest.fixture
def path(shell):
    path = shell.folder / "tasks.db"
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        for _ in range(3):
            queue.enqueue(len, "abc")
        queue.using(delay=timedelta(hours=1), queue="mail").enqueue(len, "abc")
    return path


def contents(path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def test_stats_counts_by_queue_and_state(shell, path) -> None:
    out = shell.run("stats", path)
    assert "│ default │ queued    │     3 │" in out
    assert "│ mail    │ scheduled │     1 │" in out
    assert "no worker is at work on this file" in out

    facts = json.loads(shell.run("stats", path, "--json"))
    assert facts["tasks"] == [
        {"queue": "default", "state": "queued", "tasks": 3},
        {"queue": "mail", "state": "scheduled", "tasks": 1},
    ]
    assert facts["workers"] == []
    assert 3500 < facts["next_due_s"] <= 3600


def test_a_worker_that_died_is_seen(shell, path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO sitq_workers VALUES ('w', 'h', 1, '[\"default\"]', 4, 'no boot', 0, 0)"
        )
        db.commit()

    assert "(dead)" in shell.run("stats", path)
    assert "1 died (pid 1)" in " ".join(shell.run("doctor", path).split())


def test_doctor_finds_a_new_file_in_good_health(shell, path) -> None:
    findings = json.loads(shell.run("doctor", path, "--json"))

    found = {finding["about"]: finding["verdict"] for finding in findings}
    assert found["integrity"] == found["mode"] == found["journal mode"] == "OK"
    assert "FAIL" not in found.values()


def test_doctor_without_a_file_looks_at_the_environment(shell) -> None:
    findings = json.loads(shell.run("doctor", "--json"))

    assert [finding["about"] for finding in findings] == [
        "platform",
        "packages",
        "SQLite",
        "lease clock",
    ]
    assert "SQLite" in shell.run("doctor")


def test_doctor_warns_of_a_file_that_others_can_write(shell, path) -> None:
    path.chmod(0o666)
    assert "others can write it" in " ".join(shell.run("doctor", path).split())


def test_doctor_names_parked_tasks_with_their_reason(shell, path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE sitq_tasks SET state = 'parked', error = 'no [py9]' WHERE seq = 1")
        db.commit()
    assert "1: no [py9]" in " ".join(shell.run("doctor", path).split())


def _foreign(path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE users (name TEXT)")


def _newer(path) -> None:
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        queue.enqueue(len, "abc")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE sitq_schema SET version = 99")
        db.commit()


FILES = {
    "missing": (lambda path: None, "there is no file"),
    "empty": (lambda path: path.touch(), "is empty: no queue has used it yet"),
    "text": (lambda path: path.write_text("dear diary " * 99), "is not an SQLite database"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "foreign": (_foreign, "is an SQLite file, but no queue of sitq"),
    "newer": (_newer, "has schema version 99, and this sitq knows"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_a_file_that_is_no_queue_is_named_and_left_as_it_is(shell, command, kind) -> None:
    make, words = FILES[kind]
    path = shell.folder / "odd.db"
    make(path)
    before = contents(path)

    out = shell.run(command, path, *(["--json"] if command == "doctor" else []), code=1)
    assert words in out
    assert "Traceback" not in out
    assert contents(path) == before


def test_the_command_line_says_what_is_missing(shell) -> None:
    assert "Missing argument" in shell.run("stats", code=2)
