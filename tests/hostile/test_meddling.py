"""A task that changes its whole process does not take the worker, or its neighbours, with it.

Each worker is a process of its own, which the tasks may ruin.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.hostile.meddling import FORKERS, MEDDLERS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform with fork")


@pytest.fixture(params=["asyncio", "trio"])
def meddle(request, sqlite_path, tmp_path):
    """Run a worker with these tasks to its end; return its exit code and what it printed."""

    def run(*names: str, seconds: float = 60) -> tuple[int, list[str], str]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile.meddling", request.param, sqlite_path, *names],
            capture_output=True,
            text=True,
            timeout=seconds,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
            cwd=tmp_path,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


def states(path: str) -> list[str]:
    """The states of all tasks, from a file that is in order."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [state for (state,) in db.execute("SELECT state FROM sitq_tasks ORDER BY seq")]


def test_the_process_may_be_changed_in_every_way_that_a_worker_can_bear(
    meddle, sqlite_path
) -> None:
    names = [function.__name__ for function in MEDDLERS]
    code, lines, stderr = meddle(*names)
    ended = dict(line.split(": ", 1) for line in lines)
    for name in names:
        assert ended[f"before {name}"] == ended[f"behind {name}"] == "success, passed"
    fails = {"exit_thread", "exit_loop"}
    assert {name for name in names if ended[name].startswith("failed")} == fails
    assert (code, stderr) == (0, "")
    assert len(states(sqlite_path)) == 3 * len(names)


@pytest.mark.parametrize("name", [*(f.__name__ for f in FORKERS), "fork_when_read"])
def test_of_a_task_that_forks_only_the_parent_goes_on(meddle, sqlite_path, name) -> None:
    code, lines, stderr = meddle(name)
    assert lines == [
        f"before {name}: success, passed",
        f"{name}: success, parent",
        f"behind {name}: success, passed",
    ]
    assert code == 0
    assert "has forked, and came back in the child too" in stderr
    assert len(stderr.splitlines()) == 1
    assert states(sqlite_path) == ["success"] * 3


def test_a_worker_whose_descriptors_are_closed_may_die_but_the_file_is_whole(
    meddle, sqlite_path
) -> None:
    """That is suicide. What was acknowledged is still there, and another worker finishes it."""
    with contextlib.suppress(subprocess.TimeoutExpired):  # it may not even notice that it is dead
        meddle("pass_by", "close_descriptors", "pass_by", seconds=5)
    left = states(sqlite_path)
    assert len(left) == 9
    assert set(left[:3]) <= {"success", "running"}  # a verdict may have been on its way

    code, _, _ = meddle("pass_by")
    assert code == 0
    *others, suicide = sorted(states(sqlite_path), key=lambda state: state == "failed")
    assert others == ["success"] * 11
    assert suicide == "failed"
    with closing(sqlite3.connect(sqlite_path)) as db:
        ((error, reason),) = db.execute("SELECT error, reason FROM sitq_tasks WHERE reason != ''")
    assert reason == "crash"
    assert "died" in error
