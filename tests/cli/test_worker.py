"""`sitq worker`: what it loads, what it runs, and what signals do to it."""

import signal
import textwrap
import time

import pytest

from sitq import SQLiteBackend, SyncTaskQueue

MODULE = """
    import time
    from pathlib import Path
    import anyio
    from sitq import SQLiteBackend, TaskQueue, Worker

    queue = TaskQueue(SQLiteBackend({path!r}))
    worker = Worker(queue.backend, max_concurrency=2)
    number = 7

    @queue.task
    async def greet(name: str) -> str:
        return "hello " + name

    @queue.task
    async def rest(mark: str) -> None:
        Path(mark).touch()
        await anyio.sleep(3600)

    @queue.task
    async def ignore(mark: str) -> None:
        Path(mark).touch()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3600)

    @queue.task
    def stick(mark: str) -> None:
        Path(mark).touch()
        time.sleep(3600)
"""


@pytest.fixture
def shop(shell, monkeypatch):
    """A module with a queue and its tasks; its file is `tasks.db`."""
    import importlib
    import sys

    path = str(shell.folder / "tasks.db")
    (shell.folder / "shop.py").write_text(textwrap.dedent(MODULE.format(path=path)))
    monkeypatch.syspath_prepend(str(shell.folder))
    sys.modules.pop("shop", None)
    importlib.invalidate_caches()
    yield importlib.import_module("shop")
    sys.modules.pop("shop", None)


@pytest.fixture
def queue(shell, shop):
    with SyncTaskQueue(SQLiteBackend(shell.folder / "tasks.db")) as queue:
        yield queue


def wait_for(path) -> None:
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} does not come")


@pytest.mark.parametrize("target", ["shop:queue", "shop:worker"])
@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
def test_it_runs_the_tasks_of_a_queue_or_a_worker(shell, shop, queue, target, loop) -> None:
    ids = [queue.enqueue(shop.greet, name) for name in ("Ann", "Bob")]

    shell.run("worker", target, "--app-dir", ".", "--drain", *loop)
    assert [queue.result(id_, timeout=0) for id_ in ids] == ["hello Ann", "hello Bob"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("shop", "is not MODULE:OBJECT"),
        ("nowhere:queue", "there is no module 'nowhere'"),
        ("shop:nothing", "'shop' has no 'nothing'"),
        ("shop:number", "shop:number is a int; it must be a TaskQueue or a Worker"),
    ],
)
def test_a_wrong_target_is_named_without_a_traceback(shell, shop, target, words) -> None:
    out = shell.run("worker", target, "--app-dir", ".", code=2)

    assert words in " ".join(out.split())
    assert "Traceback" not in out


def test_the_current_directory_is_not_imported_from_unless_asked(shell, shop) -> None:
    # `python -m` puts it on the path; the installed command does not.
    out = shell.run("worker", "shop:worker", "--concurrency", "3", "--app-dir", ".", code=2)
    assert "is a Worker, which has its own max_concurrency" in " ".join(out.split())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_the_second_hands_back(shell, shop, queue, number) -> None:
    task_id = queue.enqueue(shop.rest, str(shell.folder / "mark"))
    worker = shell.start("worker", "shop:queue", "--app-dir", ".", "--grace", "3600")
    wait_for(shell.folder / "mark")

    worker.send_signal(number)
    assert f"{number.name}: no new tasks" in _line_with(worker, number.name)
    worker.send_signal(number)
    _, errors = worker.communicate(timeout=20)

    assert worker.returncode == 0
    assert f"{number.name} again: running tasks are interrupted" in errors
    assert queue.get_result(task_id, timeout=0) is None
    assert queue.cancel(task_id)
    assert queue.get_result(task_id).attempt == 0


def test_the_grace_ends_a_drain(shell, shop, queue) -> None:
    queue.enqueue(shop.rest, str(shell.folder / "mark"))
    worker = shell.start("worker", "shop:queue", "--app-dir", ".", "--grace", "0.1")
    wait_for(shell.folder / "mark")

    worker.terminate()
    worker.communicate(timeout=20)
    assert worker.returncode == 0


def test_the_third_signal_kills(shell, shop, queue) -> None:
    queue.enqueue(shop.ignore, str(shell.folder / "mark"))
    worker = shell.start("worker", "shop:queue", "--app-dir", ".", "--grace", "3600")
    wait_for(shell.folder / "mark")

    for word in ("no new tasks", "handed back"):
        worker.terminate()
        _line_with(worker, word)
    worker.terminate()
    _, errors = worker.communicate(timeout=20)
    assert worker.returncode == 128 + signal.SIGTERM
    assert "SIGTERM once more: killed" in errors


@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
def test_a_thread_that_does_not_end_does_not_keep_the_process(shell, shop, queue, loop) -> None:
    queue.enqueue(shop.stick, str(shell.folder / "mark"))
    worker = shell.start("worker", "shop:queue", "--app-dir", ".", "--grace", "0", *loop)
    wait_for(shell.folder / "mark")

    worker.terminate()
    _, errors = worker.communicate(timeout=20)
    assert worker.returncode == 0, errors


def _line_with(process, word: str) -> str:
    for line in process.stderr:
        if word in line:
            return line
    raise AssertionError(f"no {word}")
