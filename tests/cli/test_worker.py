"""`sitq worker`: what it loads, what it runs, and what signals do to it."""

import importlib
import importlib.util
import signal
import subprocess
import sys
import textwrap

import pytest

from sitq import SQLiteBackend, SyncTaskQueue
from tests.cli.conftest import contents, wait_for

MODULE = """
    import gc
    import time
    from pathlib import Path

    import anyio

    from sitq import SQLiteBackend, SyncTaskQueue, TaskQueue, Worker

    queue = TaskQueue(SQLiteBackend({path!r}))
    worker = Worker(queue.backend, max_concurrency=2)
    patient = Worker(queue.backend, grace=77)
    refused = TaskQueue(SQLiteBackend({folder!r}))
    number = 7

    class tasks:
        sync = SyncTaskQueue(queue.backend)

    @queue.task
    async def greet(name: str) -> str:
        return "hello " + name

    @queue.task
    async def is_collectable() -> bool:
        return any(each is greet for each in gc.get_objects())

    @queue.task
    async def rest(mark: str) -> None:
        Path(mark).touch()
        await anyio.sleep(3600)

    @queue.task
    async def finish(mark: str) -> str:
        Path(mark).touch()
        while Path(mark).exists():
            await anyio.sleep(0.01)
        return "finished"

    @queue.task
    async def block(mark: str) -> None:
        Path(mark).touch()
        time.sleep(3600)

    @queue.task
    def stick(mark: str) -> None:
        Path(mark).touch()
        time.sleep(3600)
"""
LOOPS = pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])


@pytest.fixture
def shop(shell, monkeypatch):
    """A module with a queue and its tasks; its file is `tasks.db`."""
    path = str(shell.folder / "tasks.db")
    source = MODULE.format(path=path, folder=str(shell.folder))
    (shell.folder / "shop.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(shell.folder))
    sys.modules.pop("shop", None)
    importlib.invalidate_caches()
    yield importlib.import_module("shop")
    sys.modules.pop("shop", None)


@pytest.fixture
def queue(shell, shop):
    with SyncTaskQueue(SQLiteBackend(shell.folder / "tasks.db")) as queue:
        yield queue


@pytest.fixture
def at_work(shell, shop, queue):
    """Start a worker; return it, and the id of its task, once that runs."""

    def start(task, *options: object, target: str = "shop:queue"):
        mark = shell.folder / "mark"
        task_id = queue.enqueue(task, str(mark))
        worker = shell.start("worker", target, "--app-dir", ".", *options)
        wait_for(mark.exists)
        return worker, task_id

    return start


def line_with(process: subprocess.Popen[str], word: str) -> str:
    """Read what a worker says, up to the line with *word*."""
    said = []
    for line in process.stderr:
        said.append(line)
        if word in line:
            return line
    raise AssertionError(f"no {word!r} in {said}")


# -- real work ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["shop:queue", "shop:worker", "shop:tasks.sync"])
@LOOPS
def test_it_runs_the_tasks_of_a_queue_or_a_worker(shell, shop, queue, target, loop) -> None:
    ids = [queue.enqueue(shop.greet, name) for name in ("Ann", "Bob")]

    shell.run("worker", target, "--app-dir", ".", "--drain", *loop)
    assert [queue.result(id_, timeout=0) for id_ in ids] == ["hello Ann", "hello Bob"]
    assert not list((shell.folder / "tasks.db-workers").iterdir())


def test_full_collections_of_garbage_leave_alone_what_was_imported(shell, shop, queue) -> None:
    task_id = queue.enqueue(shop.is_collectable)

    shell.run("worker", "shop:queue", "--app-dir", ".", "--drain")
    assert queue.result(task_id, timeout=0) is False


def test_its_options_reach_the_worker(shell, shop, queue) -> None:
    mine = queue.using(queue="mail").enqueue(shop.greet, "Ann")
    other = queue.enqueue(shop.greet, "Bob")
    worker = shell.start(
        "worker", "shop:queue", "--app-dir", ".", "--drain", "--queues", "mail, post",
        "--concurrency", "3", "--poll-interval", "0.1", "--lease", "5",
    )  # fmt: skip
    _, errors = worker.communicate(timeout=30)

    assert worker.returncode == 0, errors
    assert f"sitq: worker {worker.pid} on SQLiteBackend(" in errors
    assert "queues mail, post, 3 at a time" in errors
    assert f"sitq: worker {worker.pid} has stopped" in errors
    assert queue.result(mine, timeout=0) == "hello Ann"
    assert queue.get_result(other, timeout=0) is None


# -- what cannot be loaded ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["shop"], "'shop' is not MODULE:OBJECT, as in 'shop.tasks:queue'"),
        ([":queue"], "is not MODULE:OBJECT"),
        (["nowhere:queue"], "there is no module 'nowhere'"),
        (["shop.deep:queue"], "there is no module 'shop.deep'"),
        (["shop:nothing"], "'shop' has no 'nothing'"),
        (["shop:queue.nothing"], "'shop' has no 'queue.nothing'"),
        (["shop:number"], "is of type int; it must be a TaskQueue, a SyncTaskQueue or a Worker"),
        (["shop:worker", "--lease", "9", "--queues", "a"], "would: --queues, --lease"),
        (["shop:queue", "--concurrency", "0"], "max_concurrency must be from 1 to 1000, not 0"),
        (["shop:queue", "--queues", "a,,b"], "a queue must have 1 to 255 characters"),
        (["shop:queue", "--lease", "0.1"], "lease_for must be a number from 1 to 86400"),
        (["shop:queue", "--poll-interval", "nan"], "poll_interval must be finite"),
        (["shop:queue", "--grace", "-1"], "must be 0 or more seconds"),
        (["shop:queue", "--grace", "inf"], "must be finite"),
        (["shop:queue", "--log-level", "LOUD"], "'LOUD' is not one of"),
        ([], "Missing argument"),
    ],
)
def test_a_mistake_is_named_and_is_wrong_usage(shell, shop, typed, args, words) -> None:
    out = typed("worker", *args, "--app-dir", shell.folder, code=2)

    assert words in " ".join(out.split())
    assert "Traceback" not in out
    assert not (shell.folder / "tasks.db").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_there", "No module named 'nothing_there' ({0}, line 1)"),
        ("\n1 / 0", "ZeroDivisionError: division by zero ({0}, line 2)"),
        ("\n\ndef (", "SyntaxError: invalid syntax ({0}, line 3)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    tmp_path, typed, source, words
) -> None:
    (tmp_path / "broken_shop.py").write_text(source)
    importlib.invalidate_caches()
    out = typed("worker", "broken_shop:queue", "--app-dir", tmp_path, code=2)

    assert "'broken_shop' could not be imported: " in out
    assert words.format(tmp_path / "broken_shop.py") in out
    assert "Traceback" not in out


def test_the_current_directory_is_not_imported_from_unless_asked(shell, shop) -> None:
    # Without -P, `python -m` puts it on the path; the installed command does not.
    command = [sys.executable, "-P", "-m", "sitq.cli", "worker", "shop:queue", "--drain"]
    without = subprocess.run(
        command, cwd=shell.folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert without.returncode == 2
    assert "where it lies is said by --app-dir, as in --app-dir ." in " ".join(
        without.stderr.split()
    )
    with_it = subprocess.run(
        [*command, "--app-dir", "."], cwd=shell.folder, timeout=60, check=False
    )
    assert with_it.returncode == 0


@LOOPS
def test_a_file_that_is_refused_is_an_error_without_a_traceback(shell, shop, typed, loop) -> None:
    before = contents(shell.folder)
    out = typed("worker", "shop:refused", "--app-dir", shell.folder, *loop, code=1)

    assert f"Error: '{shell.folder}' is a folder; give sitq the path of a file of its own" in out
    assert "Traceback" not in out
    assert contents(shell.folder) == before


@pytest.mark.parametrize("args", [("worker", "shop:queue"), ("demo",)])
def test_trio_must_be_there_for_trio(shell, shop, typed, monkeypatch, args) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = typed(*args, "--trio", code=2)
    assert "--trio needs trio, which is not installed" in out


@pytest.mark.parametrize("name", ["click", "rich"])
def test_without_its_libraries_the_command_says_how_to_install_them(name) -> None:
    program = f"import sys; sys.modules[{name!r}] = None; from sitq.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "stats", "x"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"sitq: the command line needs {name}, which is not installed;")
    assert "pip install '.[cli]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# -- signals ------------------------------------------------------------------------------


@LOOPS
def test_the_first_signal_lets_running_tasks_end(shell, shop, queue, at_work, loop) -> None:
    number = signal.SIGINT if loop else signal.SIGTERM
    worker, task_id = at_work(shop.finish, "--grace", "3600", *loop)
    worker.send_signal(number)
    line_with(worker, f"{number.name}: no new tasks; running ones have 3600 s to end")
    later = queue.enqueue(shop.greet, "Ann")
    (shell.folder / "mark").unlink()
    _, errors = worker.communicate(timeout=20)

    assert worker.returncode == 0, errors
    assert queue.result(task_id, timeout=0) == "finished"
    assert queue.get_result(later, timeout=0) is None


@LOOPS
def test_the_second_signal_hands_back_without_charging_an_attempt(
    shop, queue, at_work, loop
) -> None:
    worker, task_id = at_work(shop.rest, "--grace", "3600", *loop)
    worker.terminate()
    line_with(worker, "SIGTERM: no new tasks")
    worker.send_signal(signal.SIGINT)
    _, errors = worker.communicate(timeout=20)

    assert worker.returncode == 0, errors
    assert "SIGINT again: running tasks are interrupted and handed back" in errors
    assert queue.get_result(task_id, timeout=0) is None
    assert queue.cancel(task_id)  # it waits, so it is cancelled at once
    assert queue.get_result(task_id, timeout=0).attempt == 0


@LOOPS
def test_the_third_signal_kills_also_a_task_that_blocks_the_loop(
    shop, queue, at_work, wait_heard, loop
) -> None:
    worker, _ = at_work(shop.block, "--grace", "3600", *loop)
    for _ in range(2):
        worker.terminate()
        wait_heard(worker)
    worker.terminate()
    _, errors = worker.communicate(timeout=20)

    assert worker.returncode == 128 + signal.SIGTERM
    assert "SIGTERM once more: killed" in errors


def test_the_grace_ends_a_drain(shop, queue, at_work) -> None:
    worker, task_id = at_work(shop.rest, "--grace", "0.1")
    worker.terminate()
    worker.communicate(timeout=20)

    assert worker.returncode == 0
    assert queue.get_result(task_id, timeout=0) is None


@pytest.mark.parametrize(
    ("target", "options", "grace"),
    [
        ("shop:patient", [], 77),
        ("shop:patient", ["--grace", "5"], 5),
        ("shop:worker", [], 30),
    ],
)
def test_the_grace_is_the_options_or_the_workers_or_30(
    shop, at_work, target, options, grace
) -> None:
    worker, _ = at_work(shop.rest, *options, target=target)
    worker.terminate()
    line_with(worker, f"running ones have {grace} s to end")


@LOOPS
def test_a_thread_that_does_not_end_is_named_and_does_not_keep_the_process(
    shop, queue, at_work, monkeypatch, loop
) -> None:
    worker, task_id = at_work(shop.stick, "--grace", "0", *loop)
    worker.terminate()
    _, errors = worker.communicate(timeout=20)

    assert worker.returncode == 0, errors
    assert "leaves behind what does not end: stick (" in errors
    assert queue.get_result(task_id, timeout=0) is None
    assert queue.cancel(task_id)
