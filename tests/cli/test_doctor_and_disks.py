"""`sitq doctor` names what is wrong with a disk, and who keeps others waiting."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from sitq import SQLiteBackend, SyncTaskQueue
from sitq.adapters.presence import LockFiles
from sitq.cli import doctor_disk, file_locks
from tests.adapters.conftest import run_program
from tests.adapters.test_permissions import belongs_to_nobody, folder

__all__ = ["folder", "run_program"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tasks.db"
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        queue.enqueue(len, "abc")
    return path


@pytest.fixture
def findings(typed):
    def examine(path: object, code: int = 0) -> dict[str, dict]:
        found = json.loads(typed("doctor", path, "--json", code=code))
        return {finding["about"]: finding for finding in found}

    return examine


@contextmanager
def at_work(path, *statements: str):
    """Another process that has run these statements, and stays."""
    program = """
        import sqlite3, sys
        db = sqlite3.connect(sys.argv[1], isolation_level=None)
        for statement in sys.argv[2:]:
            db.execute(statement).fetchall()
        print("there", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "there\n"
        yield process.pid
    finally:
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("free", "verdict", "words"),
    [
        (10 * 2**30, "OK", ""),
        (100 * 2**20, "WARN", "make room"),
        (4096, "FAIL", "until then nothing can be enqueued"),
    ],
)
def test_how_much_room_is_left(
    findings, path, monkeypatch, *, free: int, verdict: str, words: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    found = findings(path, code=int(verdict == "FAIL"))["room"]

    assert found["verdict"] == verdict
    assert found["found"] == f"{free:,} bytes free"
    assert words in found["to_do"]


needs_the_table = pytest.mark.skipif(
    not file_locks.LOCKS.exists(), reason="only Linux tells who holds a lock"
)


@needs_the_table
def test_who_holds_the_write_lock_is_named(findings, path) -> None:
    with at_work(path, "BEGIN IMMEDIATE") as pid:
        found = findings(path)["write lock"]
    assert found["verdict"] == "WARN"
    assert f"pid {pid} holds it" in found["found"]
    assert "have it end its transaction" in found["to_do"]

    with at_work(path, "SELECT count(*) FROM sitq_tasks"):
        assert "write lock" not in findings(path)


@needs_the_table
def test_a_lock_under_which_something_is_committed_troubles_nobody(
    findings, path, monkeypatch
) -> None:
    """A busy fleet holds it, one process after the other or the same, at whatever moment."""
    held = file_locks.held_for_long

    def while_others_commit(path):
        found = held(path)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE sitq_tasks SET priority = 1")
        return found._replace(writing=frozenset({1}))

    monkeypatch.setattr(file_locks, "held_for_long", while_others_commit)
    with at_work(path, "SELECT count(*) FROM sitq_tasks"):
        assert "write lock" not in findings(path)


def test_a_wal_that_has_grown_and_who_reads_all_the_time(findings, path, monkeypatch) -> None:
    monkeypatch.setattr(doctor_disk, "LARGE_WAL", 100)
    with at_work(path, "BEGIN", "SELECT count(*) FROM sitq_tasks") as pid:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE sitq_tasks SET priority = 1")
        found = findings(path)["WAL"]
    assert found["verdict"] == "WARN"
    assert "a long read open; find and end it" in found["to_do"]
    if file_locks.LOCKS.exists():
        assert f"pid {pid} reads all the time" in found["found"]


def test_where_nobody_can_be_named_the_rest_is_said(findings, path, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(file_locks, "LOCKS", tmp_path / "none")
    monkeypatch.setattr(doctor_disk, "LARGE_WAL", -1)
    with at_work(path, "BEGIN IMMEDIATE"):
        found = findings(path)
    assert "write lock" not in found
    assert "reads" not in found["WAL"]["found"]
    assert found["WAL"]["verdict"] == "WARN"


def test_locks_are_read_from_the_table_of_the_kernel(path, monkeypatch, tmp_path) -> None:
    with closing(SQLiteBackend(path).open_store()):
        inode = os.stat(f"{path}-shm").st_ino
        table = tmp_path / "locks"
        table.write_text(
            f"1: POSIX  ADVISORY  WRITE 11 fd:00:{inode} 120 120\n"
            f"2: POSIX  ADVISORY  READ  12 fd:00:{inode} 124 124\n"
            f"3: POSIX  ADVISORY  READ  13 fd:00:{inode} 128 128\n"
            f"4: POSIX  ADVISORY  WRITE 14 fd:00:{inode}1 120 120\n"
            f"4: -> POSIX  ADVISORY  WRITE 15 fd:00:{inode} 120 120\n"
            f"5: FLOCK  ADVISORY  WRITE 16 fd:00:{inode} 0 EOF\n"
        )
        monkeypatch.setattr(file_locks, "LOCKS", table)
        monkeypatch.setattr(file_locks, "FOR", 0.1)
        assert file_locks.held_for_long(str(path)) == ({11}, {12})


@pytest.mark.parametrize("meddle", [os.unlink, lambda file: os.rename(file, f"{file}.away")])
def test_a_wal_that_is_gone_while_the_file_is_open(findings, path, meddle) -> None:
    with at_work(path, "SELECT count(*) FROM sitq_tasks"):
        meddle(f"{path}-wal")
        found = findings(path, code=1)["WAL"]
    assert f"{path}-wal is gone, and the file is open" in found["found"]
    assert "end all programs by SIGTERM" in found["to_do"]


def test_workers_that_have_another_file_open(findings, path, monkeypatch) -> None:
    monkeypatch.setattr(doctor_disk, "REGISTERING", 0.01)
    locks = LockFiles(f"{path}-workers")
    locks.enter("of the old file")
    found = findings(path, code=1)["replaced"]
    locks.leave("of the old file")

    assert "1 living workers have a lock here and are not in this file" in found["found"]
    assert "start them again" in found["to_do"]
    assert "replaced" not in findings(path)


def test_a_worker_that_is_just_starting_is_not_called_so(findings, path, monkeypatch) -> None:
    """It has its lock before it is in the file."""
    locks = LockFiles(f"{path}-workers")
    locks.enter("new")
    monkeypatch.setattr(doctor_disk.clocks, "sleep", lambda seconds: locks.leave("new"))

    assert "replaced" not in findings(path)


# -- rights: asked by somebody who is not root -----------------------------------------------


@pytest.fixture
def asked_by_nobody(run_program):
    def ask(path) -> dict[str, dict]:
        program = """
            import json, os, sys
            from click.testing import CliRunner
            from sitq.cli.commands import sitq
            CliRunner().invoke(sitq, ["doctor", "--json", "warm"])  # loads what nobody could not
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            print(CliRunner().invoke(sitq, ["doctor", "--json", sys.argv[1]]).output)
        """
        found = json.loads("\n".join(run_program(program, path)))
        return {finding["about"]: finding for finding in found}

    return ask


def test_a_file_that_may_only_be_read(folder, asked_by_nobody) -> None:
    path = folder / "tasks.db"
    SQLiteBackend(path).open_store().close()
    path.chmod(0o444)
    belongs_to_nobody(folder)
    belongs_to_nobody(path)

    found = asked_by_nobody(path)["file"]
    assert found["verdict"] == "FAIL"
    assert "cannot be written (it may only be read)" in found["found"]


def test_a_folder_in_which_nothing_may_be_made(folder, asked_by_nobody) -> None:
    path = folder / "tasks.db"
    SQLiteBackend(path).open_store().close()
    belongs_to_nobody(path)
    folder.chmod(0o555)
    found = asked_by_nobody(path)["writing"]
    folder.chmod(0o755)

    assert found["verdict"] == "WARN"
    assert f"you may not write in {folder}" in found["found"]


def test_one_for_whom_all_is_well_reads_nothing_of_it(folder, asked_by_nobody) -> None:
    belongs_to_nobody(folder)
    path = Path(folder) / "tasks.db"
    SQLiteBackend(path).open_store().close()
    belongs_to_nobody(path)

    assert "writing" not in asked_by_nobody(path)
