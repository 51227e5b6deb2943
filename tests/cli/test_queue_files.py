"""`sitq stats` and `sitq doctor`: what they say of files of every kind, and leave untouched."""

import json
import os
import signal
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from sitq import SQLiteBackend, SyncTaskQueue
from sitq.adapters import sqlite_file
from sitq.cli import doctor as doctor_, queue_file
from tests.cli.conftest import contents, wait_for

APP = """
import anyio
from sitq import SQLiteBackend, TaskQueue

queue = TaskQueue(SQLiteBackend({path!r}))

@queue.task
async def rest() -> None:
    await anyio.sleep(3600)
"""


@pytest.fixture
def path(tmp_path):
    """A queue file with some tasks, that nobody has open."""
    path = tmp_path / "tasks.db"
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        for _ in range(3):
            queue.enqueue(len, "abc")
        queue.using(delay=timedelta(hours=1), queue="mail").enqueue(len, "abc")
    return path


def change(path, sql: str, *params: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql, params)


@pytest.fixture
def findings(typed):
    """Return what the doctor says of a file: the finding by what it is about."""

    def examine(*path: object, code: int = 0) -> dict[str, dict]:
        found = json.loads(typed("doctor", *path, "--json", code=code))
        return {finding["about"]: finding for finding in found}

    return examine


# -- stats --------------------------------------------------------------------------------


def test_stats_counts_by_queue_and_state(typed, path) -> None:
    out = typed("stats", path)
    assert "│ default │ queued    │     3 │" in out
    assert "│ mail    │ scheduled │     1 │" in out
    assert "the oldest waiting task has been due for" in out
    assert "the next scheduled task is due in 3," in out
    assert "no worker is at work on this file" in out

    facts = json.loads(typed("stats", path, "--json"))
    assert facts["file"] == str(path)
    assert facts["tasks"] == [
        {"queue": "default", "state": "queued", "tasks": 3},
        {"queue": "mail", "state": "scheduled", "tasks": 1},
    ]
    assert facts["workers"] == []
    assert 0 <= facts["oldest_waiting_s"] < 60
    assert 3500 < facts["next_due_s"] <= 3600


def test_stats_of_a_queue_without_tasks(typed, path) -> None:
    change(path, "DELETE FROM sitq_tasks")

    assert "no tasks" in typed("stats", path)
    facts = json.loads(typed("stats", path, "--json"))
    assert facts["tasks"] == []
    assert facts["oldest_waiting_s"] is facts["next_due_s"] is None


def test_a_live_worker_is_seen_at_work_and_dead_once_it_was_killed(
    shell, typed, findings, path
) -> None:
    (shell.folder / "app.py").write_text(APP.format(path=str(path)))
    change(path, "DELETE FROM sitq_tasks")
    worker = shell.start(
        "worker", "app:queue", "--app-dir", ".", "--concurrency", "3", "--queues", "default, mail"
    )
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        import_module_of(shell.folder, queue)
        (seen,) = wait_for(
            lambda: [
                row
                for row in json.loads(typed("stats", path, "--json"))["workers"]
                if row["running"]
            ]
        )
        assert (seen["pid"], seen["slots"], seen["running"]) == (worker.pid, 3, 1)
        assert seen["queues"] == ["default", "mail"]
        assert seen["alive"] is True
        assert 15 < seen["lease_s"] <= 30
        assert "alive" in typed("stats", path)
        assert findings(path)["workers"]["found"] == "1 at work"

        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        (seen,) = json.loads(typed("stats", path, "--json"))["workers"]
        assert (seen["alive"], seen["running"]) == (False, 1)
        assert "dead" in typed("stats", path)
        dead = findings(path)["workers"]
        assert (dead["verdict"], dead["found"]) == ("WARN", f"1 died (pid {worker.pid}), holding 1")


def import_module_of(folder, queue) -> None:
    """Enqueue `app.rest`, which this process imports under the name that the worker knows."""
    import importlib
    import sys

    sys.path.insert(0, str(folder))
    sys.modules.pop("app", None)
    try:
        queue.enqueue(importlib.import_module("app").rest)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("app", None)


def test_a_worker_without_a_lock_to_see_is_not_called_dead_before_its_lease_ends(
    typed, findings, path
) -> None:
    from sitq.adapters import clocks

    now = clocks.moment()
    insert = "INSERT INTO sitq_workers VALUES (?, 'h', ?, '[\"default\"]', 4, ?, ?, 0)"
    change(path, insert, "good", 1, now.epoch, now.lease_ms + 60_000)
    change(path, insert, "late", 2, now.epoch, now.lease_ms - 60_000)
    change(path, insert, "before the boot", 3, "another boot", now.lease_ms + 60_000)

    facts = json.loads(typed("stats", path, "--json"))["workers"]
    assert {row["id"]: row["alive"] for row in facts} == {
        "good": None,
        "late": False,
        "before the boot": False,
    }
    assert "not known" in typed("stats", path)
    found = findings(path)
    assert found["liveness locks"]["found"] == "no liveness lock of pid 1"
    assert found["workers"]["found"].startswith("2 died (pid ")


def test_what_a_file_holds_does_nothing_to_the_terminal(typed, path) -> None:
    evil = "\x1b[31m[bold]\n"
    change(path, "UPDATE sitq_tasks SET queue = ? WHERE seq = 1", evil)
    change(path, "UPDATE sitq_tasks SET state = 'parked', error = ? WHERE seq = 2", evil)
    change(path, "INSERT INTO sitq_workers VALUES (?, ?, 1, ?, 4, '', 0, 0)", "w", evil, evil)

    for out in (typed("stats", path), typed("doctor", path)):
        assert all(c.isprintable() or c == "\n" for c in out)
        assert "\\x1b[31m[bold]\\n" in out
    assert json.loads(typed("stats", path, "--json"))["workers"][0]["queues"] == [evil]


@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_nothing_is_cut_short_however_narrow_the_table_is(
    typed, path, monkeypatch, command
) -> None:
    queue = "q" * 200
    change(path, "UPDATE sitq_tasks SET queue = ?", queue)
    monkeypatch.setenv("COLUMNS", "60")

    out = typed(command, path)
    assert "…" not in out
    assert out.count("q") >= len(queue)


# -- doctor -------------------------------------------------------------------------------


def test_doctor_finds_a_new_file_in_good_health(findings, typed, path, monkeypatch) -> None:
    monkeypatch.setattr(doctor_, "needs_gate", lambda version: False)
    change(path, "UPDATE sitq_tasks SET state = 'success', finished_ms = 0")
    found = findings(path)

    folder = found.pop("folder")  # which depends on where the tests run
    assert folder["verdict"] in ("OK", "WARN")
    assert {finding["verdict"] for finding in found.values()} == {"OK"}
    assert list(found) == [
        "platform", "packages", "SQLite", "lease clock", "file", "mode", "file system", "room",
        "schema", "journal mode", "WAL", "integrity", "workers", "clock",
    ]  # fmt: skip
    assert found["journal mode"]["found"] == "wal"
    assert "0 FAIL" in typed("doctor", path)


def test_doctor_without_a_file_looks_at_the_environment(findings, typed) -> None:
    assert list(findings()) == ["platform", "packages", "SQLite", "lease clock"]
    assert sqlite3.sqlite_version in typed("doctor")


@pytest.mark.parametrize(
    ("version", "verdict", "words"),
    [
        ((3, 40, 1), "WARN", "the WAL-reset bug"),
        ((3, 51, 3), "OK", ""),
        ((3, 36, 0), "FAIL", "needs 3.37.0 or newer"),
    ],
)
def test_doctor_knows_the_flaws_of_sqlite(findings, monkeypatch, version, verdict, words) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    found = findings(code=int(verdict == "FAIL"))["SQLite"]

    assert found["verdict"] == verdict
    assert words in found["found"] + found["to_do"]


def test_doctor_says_what_sitq_does_about_the_wal_reset_bug(findings, monkeypatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    assert "sitq checkpoints only under the write lock" in findings()["SQLite"]["to_do"]


@pytest.mark.parametrize(
    ("mode", "words"), [(0o620, "others can write it"), (0o640, "others can read it")]
)
def test_doctor_warns_of_a_file_that_is_not_its_owners_alone(findings, path, mode, words) -> None:
    path.chmod(mode)
    found = findings(path)["mode"]
    assert (found["verdict"], found["found"]) == ("WARN", f"{mode:o}: {words}")


def test_doctor_warns_of_a_folder_in_which_others_can_replace_the_file(findings, path) -> None:
    path.parent.chmod(0o770)
    found = findings(path)["folder"]
    assert found["verdict"] == "WARN"
    assert f"{path.parent} has mode 770" in found["found"]

    path.parent.chmod(0o1777)  # sticky: others can add files, and not replace this one
    assert f"{path.parent} has" not in findings(path)["folder"]["found"]


def test_doctor_names_parked_tasks_with_their_reason(findings, path) -> None:
    change(path, "UPDATE sitq_tasks SET state = 'parked', error = 'no py9' WHERE seq = 1")
    found = findings(path)["parked tasks"]
    assert (found["verdict"], found["found"]) == ("WARN", "1: no py9")


def test_doctor_names_a_queue_that_no_worker_serves(findings, path) -> None:
    found = findings(path)["waiting"]
    assert found["found"] == "3 tasks are due in 'default', and no worker serves it"
    assert found["to_do"] == "start a worker with --queues default"


def test_doctor_names_orphaned_lock_files(findings, path) -> None:
    locks = path.parent / "tasks.db-workers"
    locks.mkdir()
    (locks / "left-behind.lock").touch()

    found = findings(path)["lock files"]
    assert found["found"] == "1 without a worker: left-behind.lock"
    assert (locks / "left-behind.lock").exists()


def test_doctor_warns_of_tasks_from_the_future(findings, path) -> None:
    change(path, "UPDATE sitq_tasks SET enqueued_ms = enqueued_ms + 3600000 WHERE seq < 3")
    found = findings(path)["clock"]
    assert (found["verdict"], found["found"]) == ("WARN", "2 tasks were enqueued in the future")


def test_doctor_fails_a_file_that_is_damaged_inside(findings, path) -> None:
    damage(path, "sitq_tasks_queued")
    found = findings(path, code=1)["integrity"]
    assert found["verdict"] == "FAIL"
    assert "sitq_tasks_queued" in found["found"]


def damage(path, table: str) -> None:
    """Have the first page of a table or an index hold nothing, without SQLite's knowledge."""
    with closing(sqlite3.connect(path)) as db:
        ((page,),) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
        ).fetchall()
        ((size,),) = db.execute("PRAGMA page_size").fetchall()
    with path.open("r+b") as raw:
        raw.seek((page - 1) * size + 3)
        raw.write(b"\0\0")


# -- what is no queue file, and what is left behind ---------------------------------------


def foreign(path) -> None:
    change(path, "CREATE TABLE users (name TEXT)")


def newer(path) -> None:
    queue(path)
    change(path, "UPDATE sitq_schema SET version = 99")


def trapped(path) -> None:
    queue(path)
    change(path, "CREATE VIEW sitq_trap AS SELECT 1")


def queue(path) -> None:
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        queue.enqueue(len, "abc")


FILES = {
    "missing": (lambda path: None, "there is no file"),
    "empty": (lambda path: path.touch(), "is empty: no queue has used it yet"),
    "text": (lambda path: path.write_text("dear diary " * 99), "is not an SQLite database"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "pipe": (os.mkfifo, "is not a regular file"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "is empty"),
    "foreign": (foreign, "is an SQLite file of another program (it holds users)"),
    "newer": (newer, "has schema version 99, and this sitq knows"),
    "trapped": (trapped, "holds a view named 'sitq_trap' that sitq did not make"),
    "cut off": (
        lambda path: (queue(path), os.truncate(path, 5000)),
        "is damaged (database disk image is malformed)",
    ),
    "no tables": (
        lambda path: change(path, "PRAGMA user_version = 1"),
        "is an SQLite file without tables",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_queue_is_named_and_left_as_it_is(
    typed, findings, tmp_path, kind
) -> None:
    make, words = FILES[kind]
    path = tmp_path / "odd.db"
    make(path)
    before = contents(tmp_path), sorted(os.listdir(tmp_path))

    assert words in typed("stats", path, code=1)
    assert words in typed("stats", path, "--json", code=1)
    found = findings(path, code=1)["file"]
    assert found["verdict"] == "FAIL"
    assert words in found["found"]
    assert found["to_do"] not in {"", "nothing was changed"}
    assert (contents(tmp_path), sorted(os.listdir(tmp_path))) == before


def test_a_file_on_a_network_is_refused(typed, findings, path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_file, "file_system", lambda path: "nfs4")
    assert "lies on a network file system (nfs4)" in typed("stats", path, code=1)
    found = findings(path, code=1)["file"]
    assert (found["verdict"], found["to_do"]) == ("FAIL", "move it to a local disk")


def test_a_look_through_a_link_sees_the_wal_too(typed, path, tmp_path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        queue.enqueue(len, "abc")
        facts = json.loads(typed("stats", link, "--json"))
    assert facts["tasks"][0] == {"queue": "default", "state": "queued", "tasks": 4}


def test_a_look_leaves_nothing_behind(typed, path) -> None:
    before = contents(path.parent)
    typed("stats", path)
    typed("doctor", path)
    assert contents(path.parent) == before


def test_a_look_at_a_live_file_sees_what_is_only_in_its_wal(typed, path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE sitq_tasks SET queue = 'new'")
        db.commit()
        before = path.read_bytes()

        facts = json.loads(typed("stats", path, "--json"))
        typed("doctor", path)
        assert {row["queue"] for row in facts["tasks"]} == {"new"}
        assert path.read_bytes() == before


def test_a_look_during_which_somebody_comes_is_done_again(path) -> None:
    seen = []

    def at(db, path) -> int:
        seen.append(db.execute("SELECT count(*) FROM sitq_tasks").fetchone()[0])
        if len(seen) == 1:
            somebody.execute("DELETE FROM sitq_tasks WHERE seq = 1")
            somebody.commit()
        return seen[-1]

    with closing(sqlite3.connect(path)) as somebody:
        assert queue_file.look(str(path), at) == 3
    assert seen == [4, 3]


def test_a_look_during_which_somebody_came_and_went_is_done_again(path) -> None:
    """There is no -wal then, neither before nor afterwards."""
    seen = []

    def at(db, path) -> int:
        seen.append(db.execute("SELECT count(*) FROM sitq_tasks").fetchone()[0])
        if len(seen) == 1:
            change(path, "DELETE FROM sitq_tasks WHERE seq = 1")
        return seen[-1]

    assert queue_file.look(str(path), at) == 3
    assert seen == [4, 3]
    assert os.listdir(path.parent) == ["tasks.db"]


def test_a_look_at_a_file_to_which_somebody_comes_all_the_time_ends_all_the_same(path) -> None:
    seen = []

    def at(db, path) -> int:
        ((count,),) = db.execute("SELECT count(*) FROM sitq_tasks").fetchall()
        seen.append(count)
        change(path, "DELETE FROM sitq_tasks WHERE seq = ?", len(seen))
        return count

    assert queue_file.look(str(path), at) == 1
    assert seen == [4, 3, 2, 1]


def test_missing_arguments_are_wrong_usage(typed) -> None:
    assert "Missing argument" in typed("stats", code=2)
