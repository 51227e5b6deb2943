"""`sitq demo`: to its proof, wherever it was cut off."""

import random
import signal
import sqlite3
import time
from contextlib import closing

import pytest

PROOF = "proof: all 300 files done, each result equal to a direct computation; integrity check ok"


def done(folder) -> int:
    with closing(sqlite3.connect(folder / "sitq-demo.db", timeout=30)) as db:
        return db.execute("SELECT count(*) FROM sitq_tasks WHERE state = 'success'").fetchone()[0]


@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
def test_it_examines_every_file_and_proves_it(shell, garden, loop) -> None:
    out = shell.run("demo", garden, *loop)

    assert out.splitlines()[0].startswith(f"300 files below {garden}, one task for each, in ")
    assert out.splitlines()[-1] == PROOF
    assert "\x1b" not in out  # plain, where it is no terminal
    assert "│ all  │   300 │" in out
    with closing(sqlite3.connect(shell.folder / "sitq-demo.db")) as db:
        rows = db.execute("SELECT state, attempt, crashes FROM sitq_tasks").fetchall()
    assert rows == [("success", 1, 0)] * 300


def test_the_same_command_again_finds_all_done_and_proves_it_again(shell, garden) -> None:
    shell.run("demo", garden)

    out = shell.run("demo", garden)
    assert "going on: 300 of 300 done already" in out
    assert out.splitlines()[-1] == PROOF


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_point_it_goes_on_where_it_was(shell, garden, seed) -> None:
    rng = random.Random(seed)
    for _ in range(2):
        demo = shell.start("demo", garden)
        time.sleep(rng.uniform(0.1, 0.9))
        demo.kill()
        demo.communicate()

    out = shell.run("demo", garden)
    assert out.splitlines()[-1] == PROOF
    assert done(shell.folder) == 300


def test_a_ctrl_c_says_how_to_go_on(shell, garden) -> None:
    demo = shell.start("demo", garden, "--workers", "1", "--concurrency", "1")
    assert demo.stdout.readline().startswith("300 files")  # all of them are enqueued
    while done(shell.folder) == 0:
        time.sleep(0.02)
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=30)

    if demo.returncode == 130:  # it was not done by then
        assert "the same command goes on" in out
    assert shell.run("demo", garden).splitlines()[-1] == PROOF


def test_a_file_that_changes_becomes_a_task_of_its_own(shell, garden) -> None:
    shell.run("demo", garden)
    (garden / "bed0" / "plant0.txt").write_text("another rose")

    out = shell.run("demo", garden)
    assert "going on: 299 of 300 done already" in out
    assert out.splitlines()[-1] == PROOF


def test_fresh_forgets_a_demo_and_nothing_else(shell, garden) -> None:
    shell.run("demo", garden)
    assert "done already" not in shell.run("demo", garden, "--fresh")

    with closing(sqlite3.connect(shell.folder / "sitq-demo.db")) as db:
        db.execute("UPDATE sitq_tasks SET id = 'mine' WHERE seq = 1")
        db.commit()
    out = shell.run("demo", garden, "--fresh", code=1)
    assert "holds 1 tasks that are not of a demo; it was not deleted" in out
    assert done(shell.folder) == 300


def test_a_file_of_another_program_is_refused_by_name(shell, garden) -> None:
    (shell.folder / "sitq-demo.db").write_text("dear diary, " * 100)

    out = shell.run("demo", garden, code=1)
    assert "is not an SQLite database; nothing was changed" in out
    assert "Traceback" not in out
