"""`sitq demo`: to its proof, wherever it was cut off."""

import os
import random
import signal
import sqlite3
from contextlib import closing

import pytest

from sitq import SQLiteBackend, SyncTaskQueue
from sitq.cli import demo, demo_files, demo_report
from tests.cli.conftest import children, contents, is_alive, kill, successes, wait_for

PROOF = "proof: all 300 files done, each result equal to a direct computation; integrity check ok"
SLOWLY = ("--workers", "1", "--concurrency", "1")


@pytest.fixture
def garden(tmp_path):
    """A folder with 300 files of several kinds, and some that are not counted."""
    root = tmp_path / "garden"
    for n in range(300):
        folder = root / f"bed{n % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"plant{n}.{('txt', 'py', 'dat')[n % 3]}").write_bytes(b"a rose\n" * n)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x.pyc").write_bytes(b"no")
    (root / "link").symlink_to(root / "bed0")
    (root / "link.txt").symlink_to(root / "bed0" / "plant0.txt")
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def file(shell):
    return shell.folder / "sitq-demo.db"


def rows(file) -> list:
    with closing(sqlite3.connect(file)) as db:
        return db.execute(
            "SELECT id, state, attempt, crashes, max_crashes FROM sitq_tasks"
        ).fetchall()


@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
def test_it_examines_every_file_once_and_proves_it(shell, garden, file, loop) -> None:
    before = contents(garden.parent)
    out = shell.run("demo", garden, *loop)

    assert out.splitlines()[0] == f"300 files below {garden}, one task for each, in {file}"
    assert out.splitlines()[-1] == PROOF
    assert "│ all  │   300 │ 313,950 │ 44,850 │ 89,700 │" in out
    assert "bed5/plant299.dat" in out  # the largest
    assert all(c.isprintable() or c == "\n" for c in out)  # plain, where it is no terminal
    done = rows(file)
    assert [row[1:] for row in done] == [("success", 1, 0, 1000)] * 300

    again = shell.run("demo", garden, *loop)
    assert "going on: 300 of 300 done already" in again
    assert "nothing was left to do" in again
    assert again.splitlines()[-1] == PROOF
    assert rows(file) == done

    # Nothing but the file is left behind.
    assert contents(garden.parent).keys() - before.keys() == {str(file)}
    assert os.listdir(shell.folder) == ["sitq-demo.db"]


@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
@pytest.mark.parametrize("whom", ["parent", "worker", "everything"])
def test_killed_at_any_point_it_goes_on_where_it_was(shell, garden, file, whom, loop) -> None:
    seed = random.randrange(10**6)
    print(f"{seed = }")  # pytest shows it if the test fails
    rng = random.Random(seed)
    at = rng.randrange(250)
    demo = shell.start("demo", garden, *loop)
    wait_for(lambda: successes(file) >= at and children(demo.pid))
    workers = children(demo.pid)
    match whom:
        case "parent":
            demo.kill()
        case "worker":
            kill([rng.choice(workers)])
        case "everything":
            demo.kill()
            kill(workers)
    out, errors = demo.communicate(timeout=60)
    wait_for(lambda: not any(map(is_alive, workers)))  # they end with their parent
    done = successes(file)

    if whom == "worker":
        assert demo.returncode == 0, errors
        assert "was killed by SIGKILL; another one takes its place" in out or done == 300
        assert out.splitlines()[-1] == PROOF
    again = shell.run("demo", garden)
    assert f"going on: {done} of 300 done already" in again or done == 0
    assert again.splitlines()[-1] == PROOF
    assert os.listdir(shell.folder) == ["sitq-demo.db"]


def test_a_worker_that_is_killed_before_it_works_is_replaced(shell, garden) -> None:
    demo = shell.start("demo", garden)
    kill(wait_for(lambda: children(demo.pid)))

    out, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, errors
    assert "was killed by SIGKILL; another one takes its place" in out
    assert out.splitlines()[-1] == PROOF


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_ctrl_c_stops_it_and_says_how_to_go_on(shell, garden, file, number) -> None:
    demo = shell.start("demo", garden, *SLOWLY)
    wait_for(lambda: successes(file) > 0)
    workers = children(demo.pid)
    demo.send_signal(number)
    out, errors = demo.communicate(timeout=30)

    assert errors == ""
    assert demo.returncode == 128 + number
    assert not any(map(is_alive, workers))
    assert os.listdir(shell.folder) == ["sitq-demo.db"]
    done = successes(file)
    assert f"stopped: {done} of 300 done; the same command goes on" in out

    again = shell.run("demo", garden)
    assert f"going on: {done} of 300 done already" in again
    assert again.splitlines()[-1] == PROOF


# -- in this process: what is changed behind its back -----------------------------------


@pytest.fixture
def once_enqueued(monkeypatch):
    """Have something changed after the files were found and before they are examined."""
    enqueue = demo._enqueue

    def change_by(change) -> None:
        def enqueue_then_change(queue, files) -> None:
            enqueue(queue, files)
            change()

        monkeypatch.setattr(demo, "_enqueue", enqueue_then_change)

    return change_by


def test_a_file_that_changes_becomes_a_task_of_its_own(typed, garden, file) -> None:
    typed("demo", garden, "--file", file, "--workers", "1")
    (garden / "bed0" / "plant0.txt").write_text("another rose")

    out = typed("demo", garden, "--file", file, "--workers", "1")
    assert "going on: 299 of 300 done already" in out
    assert out.splitlines()[-1] == PROOF
    assert len(rows(file)) == 301


def test_files_that_change_or_vanish_meanwhile_are_named_and_left_out(
    typed, garden, file, monkeypatch, once_enqueued
) -> None:
    summary = demo_report.summary

    def summary_then_change(*args) -> None:
        summary(*args)
        (garden / "bed1" / "plant1.py").write_text("something else")

    monkeypatch.setattr(demo_report, "summary", summary_then_change)
    once_enqueued((garden / "bed0" / "plant0.txt").unlink)
    out = typed("demo", garden, "--file", file, "--workers", "1")
    assert "left out, as changed or deleted meanwhile: bed0/plant0.txt, bed1/plant1.py" in out
    assert "proof: all 298 files done, each result equal" in out


def test_a_result_that_differs_is_named_and_there_is_no_proof(typed, garden, file) -> None:
    plant, odd = garden / "bed2" / "plant2.dat", b"a nose\n" * 2

    typed("demo", garden, "--file", file, "--workers", "1")
    at = plant.stat()  # unseen: of the same size, at the same time
    plant.write_bytes(odd)
    os.utime(plant, ns=(at.st_atime_ns, at.st_mtime_ns))
    out = typed("demo", garden, "--file", file, code=1)
    assert f"{plant}: the result differs from a direct computation" in out
    assert out.splitlines()[-1] == "no proof (differences: 1); --fresh begins anew"

    assert "proof: all 300 files" in typed("demo", garden, "--file", file, "--fresh")


def test_a_task_that_failed_is_named_with_its_error(
    typed, garden, file, monkeypatch, once_enqueued
) -> None:
    plant, away = garden / "bed2" / "plant2.dat", garden.parent / "away"
    once_enqueued(lambda: plant.rename(away))
    monkeypatch.setattr(demo_report, "summary", lambda *_: away.rename(plant))

    # It is back again, as it was, when the results are compared.
    out = typed("demo", garden, "--file", file, "--workers", "1", code=1)
    assert f"{plant}: failed: [Errno 2] No such file or directory" in out


def test_a_damaged_queue_file_is_no_proof(typed, garden, file) -> None:
    typed("demo", garden, "--file", file)
    with closing(sqlite3.connect(file)) as db:
        ((root,),) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sitq_tasks_finished'"
        ).fetchall()
        ((size,),) = db.execute("PRAGMA page_size").fetchall()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as raw:  # entries of an index are lost
        raw.seek((root - 1) * size + 3)
        raw.write(b"\0\0")

    out = typed("demo", garden, "--file", file, code=1)
    assert "integrity check:" in out
    assert "no proof" in out


def test_its_own_file_is_no_file_to_examine(garden) -> None:
    before = demo_files.below(garden, str(garden / "queue.db"))
    for name in ("queue.db", "queue.db-wal", "queue.db-workers/1.lock"):
        (garden / name).parent.mkdir(exist_ok=True)
        (garden / name).touch()

    assert demo_files.below(garden, str(garden / "queue.db")) == before
    assert len(demo_files.below(garden, "/elsewhere/queue.db").files) == 303


def test_names_of_files_do_nothing_to_the_terminal(typed, tmp_path, file) -> None:
    root = tmp_path / "[bold]odd"
    root.mkdir()
    for name in (b"\x1b[31mred", b"[bold]x.[red]", b"not utf-8 \xff", b"new\nline", b"__main__.py"):
        with open(os.fsencode(root) + b"/" + name, "wb") as made:
            made.write(b"hello\n")

    out = typed("demo", root, "--file", file)
    assert "[bold]odd" in out
    assert "\\x1b[31mred" in out
    assert "not utf-8 \\udcff" in out
    assert "proof: all 5 files done" in out
    assert all(c.isprintable() or c == "\n" for c in out)


def test_a_folder_without_files_proves_nothing(typed, tmp_path, file) -> None:
    (tmp_path / "nothing").mkdir()
    assert "there are no files below" in typed("demo", tmp_path / "nothing", "--file", file, code=1)
    assert not file.exists()


# -- the queue file -----------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_file_with_other_work_is_neither_used_nor_deleted(typed, garden, file, fresh) -> None:
    with SyncTaskQueue(SQLiteBackend(file)) as queue:
        queue.using(task_id="demo-of-mine").enqueue(print, "hello")
    before = contents(file.parent)

    out = typed("demo", garden, "--file", file, *fresh, code=1)
    assert "holds tasks that are not of a demo (1); it was not touched" in out
    assert contents(file.parent) == before


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_file_of_another_program_is_refused_by_name(typed, garden, file, fresh) -> None:
    file.write_text("dear diary, " * 100)
    before = contents(file.parent)

    out = typed("demo", garden, "--file", file, *fresh, code=1)
    assert "is not an SQLite database; nothing was changed" in out
    assert contents(file.parent) == before


def test_fresh_leaves_a_file_alone_on_which_a_worker_is_at_work(shell, typed, garden, file) -> None:
    demo = shell.start("demo", garden, *SLOWLY)
    wait_for(lambda: successes(file) > 0)
    os.kill(demo.pid, signal.SIGSTOP)
    try:
        out = typed("demo", garden, "--file", file, "--fresh", code=1)
    finally:
        os.kill(demo.pid, signal.SIGCONT)
    assert "so it was not deleted; end that demo first" in out
    assert demo.communicate(timeout=60)[0].splitlines()[-1] == PROOF


def test_a_file_of_another_user_is_not_used(typed, garden, file, monkeypatch) -> None:
    typed("demo", garden, "--file", file)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)

    assert "belongs to another user" in typed("demo", garden, "--file", file, code=1)


def test_workers_that_only_die_are_given_up(typed, garden, file, monkeypatch) -> None:
    from sitq.cli import demo_crew

    monkeypatch.setattr(demo_crew, "DEATHS_PER_WORKER", 1)
    monkeypatch.setattr(demo_crew.sys, "executable", "/bin/false")
    out = typed("demo", garden, "--file", file, "--workers", "1", code=1)
    assert "ended with exit code 1; another one takes its place" in out
    assert "the worker processes keep dying" in out
