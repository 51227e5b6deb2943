"""Signals at the moments where there is no event loop to hear them."""

import signal
import subprocess
import sys
import textwrap

import pytest

from sitq import SQLiteBackend, SyncTaskQueue
from tests.cli.conftest import wait_for

pytestmark = pytest.mark.slow

HEAD = """
    import atexit, os, threading, time
    from pathlib import Path

    from sitq import SQLiteBackend, TaskQueue

    queue = TaskQueue(SQLiteBackend("tasks.db"))

    def wait_here():
        Path("mark").touch()
        while Path("mark").exists():
            time.sleep(0.01)
"""
LOOPS = pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])


@pytest.fixture
def worker(shell):
    """Start a worker of a module with this source; wait until it is where it waits."""

    def start(source: str, *options: object) -> subprocess.Popen[str]:
        text = textwrap.dedent(HEAD) + textwrap.dedent(source)
        (shell.folder / "shop.py").write_text(text)
        process = shell.start("worker", "shop:queue", "--app-dir", ".", *options)
        wait_for((shell.folder / "mark").exists)
        return process

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_the_module_is_loaded_ends_it_with_0(shell, worker, number) -> None:
    process = worker("wait_here()")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 0
    assert errors == f"sitq: {number.name}: ends before it has begun\n"
    assert not (shell.folder / "tasks.db").exists()


def test_a_module_that_catches_everything_is_ended_all_the_same(shell, worker) -> None:
    process = worker("""
        while True:
            try:
                wait_here()
            except BaseException:
                pass
    """)
    process.terminate()
    process.communicate(timeout=30)

    assert process.returncode == 0
    assert not (shell.folder / "tasks.db").exists()


@LOOPS
@pytest.mark.parametrize("hook", ["atexit.register", "threading._register_atexit"])
def test_signals_after_the_worker_has_stopped_change_nothing(
    shell, worker, wait_heard, loop, hook
) -> None:
    process = worker(f"{hook}(wait_here)", "--drain", *loop)
    for _ in range(2):
        process.terminate()
        wait_heard(process)
    (shell.folder / "mark").unlink()
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 0, errors
    assert "has stopped" in errors
    assert "Traceback" not in errors


def test_a_thread_that_keeps_the_process_is_killed_by_the_third(worker, wait_heard) -> None:
    process = worker("threading.Thread(target=wait_here).start()", "--drain")
    for word in ("has stopped",):
        while word not in process.stderr.readline():
            pass
    for _ in range(3):
        process.terminate()
        wait_heard(process)
    process.communicate(timeout=30)

    assert process.returncode == 128 + signal.SIGTERM


@LOOPS
def test_a_hangup_drains(shell, worker, loop) -> None:
    process = worker(
        "@queue.task\nasync def greet():\n    Path('mark').touch()\nPath('mark').touch()", *loop
    )
    while "at a time" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 0, errors
    assert "SIGHUP: no new tasks" in errors


FORK = """
    @queue.task
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            time.sleep(3600)
        ended = 0
        while not ended:  # one that comes in the middle of the fork is lost
            os.kill(pid, 15)
            time.sleep(0.01)
            ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status)
"""


@LOOPS
def test_what_a_task_has_forked_can_be_terminated(shell, monkeypatch, loop) -> None:
    (shell.folder / "shop.py").write_text(textwrap.dedent(HEAD) + textwrap.dedent(FORK))
    monkeypatch.syspath_prepend(str(shell.folder))
    monkeypatch.chdir(shell.folder)
    sys.modules.pop("shop", None)
    import shop  # type: ignore[import-not-found]

    with SyncTaskQueue(SQLiteBackend("tasks.db")) as queue:
        task_id = queue.enqueue(shop.fork)
        shell.run("worker", "shop:queue", "--app-dir", ".", "--drain", *loop)
        assert queue.result(task_id, timeout=0) == -signal.SIGTERM
    sys.modules.pop("shop")


def test_under_nohup_a_hangup_is_ignored(shell) -> None:
    (shell.folder / "shop.py").write_text(textwrap.dedent(HEAD))
    with SyncTaskQueue(SQLiteBackend(shell.folder / "tasks.db")) as queue:
        command = [sys.executable, "-m", "sitq.cli", "worker", "shop:queue", "--app-dir", "."]
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command],
            cwd=shell.folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while "at a time" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGHUP)
            task_id = queue.enqueue(print)
            assert queue.result(task_id, timeout=30) is None
            process.terminate()
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0
            assert "SIGHUP" not in errors
        finally:
            process.kill()
            process.communicate()
