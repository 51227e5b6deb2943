"""Eight processes that come to a new file at the same moment: one makes it, and all use it."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sitq.storage.sqlite_schema import STEPS, VERSION

SCRIPT = Path(__file__).with_name("open_together.py")
PROCESSES = 8
ROUNDS = 20


@pytest.fixture
def processes():
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    yield started
    for process in started:
        process.communicate(timeout=30)


def ask_all(processes, path) -> list[str]:
    for process in processes:
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
    return [process.stdout.readline().rstrip("\n") for process in processes]


@pytest.mark.slow
def test_all_of_them_work_and_there_is_one_schema(processes, tmp_path) -> None:
    warm = ask_all(processes, tmp_path / "warm.db")  # from here on they are equally quick
    assert len(set(warm)) == PROCESSES
    for number in range(ROUNDS):
        path = tmp_path / f"tasks{number}.db"
        answers = ask_all(processes, path)

        assert all(re.fullmatch(r"[0-9a-f-]{36}", answer) for answer in answers), answers
        with closing(sqlite3.connect(path)) as db:
            stored = {id_ for (id_,) in db.execute("SELECT id FROM sitq_tasks")}
            versions = db.execute("SELECT version FROM sitq_schema").fetchall()
            made = {sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql <> ''")}
        assert stored == set(answers)
        assert versions == [(VERSION,)]
        statements = [statement for step in STEPS for statement in step]
        dropped = {statement.split()[2] for statement in statements if "DROP" in statement}
        assert made == {s for s in statements if s.split()[2] not in dropped}
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_those_who_come_and_go_on_one_file_replace_nothing_for_each_other(
    processes, tmp_path
) -> None:
    """The last one to leave removes -wal and -shm, and the next one makes them anew."""
    path = tmp_path / "tasks.db"
    rounds = 60
    for process in processes:
        process.stdin.write(f"{path}\n" * rounds)
        process.stdin.flush()
    answers = [
        process.stdout.readline().rstrip("\n") for process in processes for _ in range(rounds)
    ]

    assert all(re.fullmatch(r"[0-9a-f-]{36}", answer) for answer in answers), answers
    with closing(sqlite3.connect(path)) as db:
        stored = {id_ for (id_,) in db.execute("SELECT id FROM sitq_tasks")}
    assert stored == set(answers)
    assert len(stored) == PROCESSES * rounds
