"""`sitq worker --processes N`: real processes, killed, stopped, orphaned and replaced."""

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from sitq import SQLiteBackend, SyncTaskQueue
from tests.cli.conftest import children, is_alive, wait_for

pytestmark = pytest.mark.slow

MODULE = """
    import os, time
    from pathlib import Path

    import anyio

    from sitq import SQLiteBackend, TaskQueue

    queue = TaskQueue(SQLiteBackend({path!r}))

    @queue.task
    async def greet(name: str) -> str:
        return "hello " + name

    @queue.task
    async def rest(mark: str) -> None:
        Path(mark).touch()
        await anyio.sleep(3600)

    @queue.task
    def stick(mark: str) -> None:
        Path(mark).touch()
        time.sleep(3600)

    @queue.task
    async def block(mark: str) -> None:
        Path(mark).touch()
        time.sleep(3600)

    @queue.task
    async def where() -> tuple:
        return os.getpid(), os.getsid(0), os.read(0, 1)
"""


class Supervised:
    """A supervisor, and what it and its workers say."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self._said.append(line)

    @property
    def said(self) -> str:
        return "".join(self._said)

    def workers(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"worker (\d+) on ", self.said)]

    def wait_for_workers(self, count: int) -> list[int]:
        """Wait until so many have begun since the start; return those that live."""
        wait_for(lambda: len(self.workers()) >= count)
        return [pid for pid in self.workers() if is_alive(pid)]

    def wait_said(self, words: str) -> None:
        wait_for(lambda: words in self.said)

    def end(self) -> int:
        code = self.process.wait(30)
        self._reader.join(30)
        return code


@pytest.fixture
def folder(shell):
    source = MODULE.format(path=str(shell.folder / "tasks.db"))
    (shell.folder / "shop.py").write_text(textwrap.dedent(source))
    return shell.folder


@pytest.fixture
def queue(folder):
    with SyncTaskQueue(SQLiteBackend(folder / "tasks.db")) as queue:
        yield queue


@pytest.fixture
def shop(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("shop", None)
    import shop  # type: ignore[import-not-found]

    yield shop
    sys.modules.pop("shop", None)


@pytest.fixture
def supervise(shell, folder):
    """Start a supervisor; whatever becomes of it, no worker of it is left at the end."""
    started = []

    def start(*options, processes=2, target="shop:queue") -> Supervised:
        arguments = ("worker", target, "--app-dir", ".", "--processes", processes, *options)
        supervised = Supervised(shell.start(*arguments))
        started.append(supervised)
        return supervised

    yield start
    for supervised in started:
        for pid in [supervised.pid, *supervised.workers()]:
            if is_alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def zombies(pid: int) -> list[str]:
    """Return the children of *pid* that have ended and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state == "Z":
                found.append(stat.parent.name)
    return found


def assert_nothing_is_left(folder: Path, supervised: Supervised) -> None:
    """No process, no lock file, no WAL."""
    assert [pid for pid in supervised.workers() if is_alive(pid)] == []
    assert list((folder / "tasks.db-workers").iterdir()) == []
    assert not (folder / "tasks.db-wal").exists()


# -- life ---------------------------------------------------------------------------------


def test_it_runs_tasks_in_processes_of_their_own_and_nothing_is_left(
    folder, shop, supervise
) -> None:
    supervised = supervise(processes=3)
    pids = supervised.wait_for_workers(3)
    with SyncTaskQueue(SQLiteBackend(folder / "tasks.db")) as queue:
        pid, session, read = queue.result(queue.enqueue(shop.where), timeout=30)
    assert pid in pids
    assert session == pid  # a Ctrl-C on the terminal is not for it
    assert read == b""  # and its standard input is empty
    assert sorted(children(supervised.pid)) == sorted(pids)

    supervised.process.terminate()
    assert supervised.end() == 0
    assert "SIGTERM: the workers stop, each within its grace" in supervised.said
    assert_nothing_is_left(folder, supervised)


def test_a_worker_that_is_killed_is_started_again_and_no_zombie_stays(
    folder, shop, queue, supervise
) -> None:
    supervised = supervise()
    victim, other = supervised.wait_for_workers(2)
    os.kill(victim, signal.SIGKILL)
    supervised.wait_said(f"worker {victim} was killed by SIGKILL; another one is started in 0.")
    pids = supervised.wait_for_workers(3)

    assert len(pids) == 2
    assert other in pids
    assert zombies(supervised.pid) == []
    assert queue.result(queue.enqueue(shop.greet, "Ann"), timeout=30) == "hello Ann"
    queue.close()
    supervised.process.terminate()
    assert supervised.end() == 0
    assert_nothing_is_left(folder, supervised)


def test_with_drain_it_ends_when_nothing_is_due(folder, shop, queue, supervise) -> None:
    ids = [queue.enqueue(shop.greet, str(n)) for n in range(20)]
    supervised = supervise("--drain", "--concurrency", "2")
    assert supervised.end() == 0, supervised.said
    assert [queue.result(id_, timeout=0) for id_ in ids] == [f"hello {n}" for n in range(20)]
    assert "2 at a time" in supervised.said


def test_a_hangup_replaces_them_one_after_the_other(folder, supervise) -> None:
    supervised = supervise()
    before = supervised.wait_for_workers(2)
    supervised.process.send_signal(signal.SIGHUP)
    supervised.wait_for_workers(4)
    wait_for(lambda: not any(map(is_alive, before)))
    after = children(supervised.pid)

    assert not set(before) & set(after)
    supervised.process.terminate()
    assert supervised.end() == 0
    assert_nothing_is_left(folder, supervised)


def test_a_module_that_was_spoilt_replaces_one_worker_at_most(folder, supervise) -> None:
    supervised = supervise(processes=3)
    before = supervised.wait_for_workers(3)
    (folder / "shop.py").write_text("1 / 0")
    supervised.process.send_signal(signal.SIGHUP)
    supervised.wait_said("the other workers are not replaced, since that one failed")
    assert len([pid for pid in before if is_alive(pid)]) == 2


def test_on_a_terminal_a_hangup_stops_it(folder, supervise, shell) -> None:
    ours, theirs = pty.openpty()
    arguments = ("worker", "shop:queue", "--app-dir", ".", "--processes", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "sitq.cli", *arguments],
        cwd=folder, stdin=theirs, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        supervised = Supervised(process)
        supervised.wait_for_workers(2)
        process.send_signal(signal.SIGHUP)
        assert supervised.end() == 0
        assert "SIGHUP: the workers stop" in supervised.said
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        os.close(ours)
        os.close(theirs)


# -- the end ------------------------------------------------------------------------------


def at_rest(folder, shop, queue, supervise, task, *options) -> tuple[Supervised, str]:
    """A supervisor one of whose workers is in the middle of a task."""
    supervised = supervise(*options)
    supervised.wait_for_workers(2)
    mark = folder / "mark"
    task_id = queue.enqueue(task, str(mark))
    wait_for(mark.exists)
    queue.close()
    return supervised, task_id


def crashes_of(folder: Path, task_id: str) -> tuple[str, int, int]:
    """Cancel a task that waits; return how it stood then."""
    with SyncTaskQueue(SQLiteBackend(folder / "tasks.db")) as queue:
        queue.cancel(task_id)
        result = queue.get_result(task_id, timeout=0)
        return result.status, result.attempt, result.crashes


def test_the_second_signal_hands_back_at_once(folder, shop, queue, supervise) -> None:
    supervised, task_id = at_rest(folder, shop, queue, supervise, shop.rest, "--grace", "3600")
    supervised.process.terminate()
    supervised.wait_said("running ones have 3600 s to end")
    supervised.process.send_signal(signal.SIGINT)

    assert supervised.end() == 0, supervised.said
    assert "SIGINT again: running tasks are interrupted and handed back" in supervised.said
    assert crashes_of(folder, task_id) == ("cancelled", 0, 0)
    assert_nothing_is_left(folder, supervised)


def test_two_signals_at_once_are_two_for_the_workers_as_well(
    folder, shop, queue, supervise
) -> None:
    supervised, task_id = at_rest(folder, shop, queue, supervise, shop.rest, "--grace", "3600")
    supervised.process.terminate()
    supervised.process.send_signal(signal.SIGINT)  # not the same, which would be one

    assert supervised.end() == 0, supervised.said
    assert crashes_of(folder, task_id) == ("cancelled", 0, 0)


@pytest.mark.parametrize("last", [signal.SIGTERM, signal.SIGINT])
def test_the_third_signal_kills_them_all(folder, shop, queue, supervise, last) -> None:
    supervised, _ = at_rest(folder, shop, queue, supervise, shop.block, "--grace", "3600")
    for words in ("SIGTERM: the workers", "SIGTERM again"):
        supervised.process.terminate()
        supervised.wait_said(words)
    supervised.process.send_signal(last)

    assert supervised.end() == 128 + last
    assert f"{last.name} once more: the workers are killed" in supervised.said
    assert [pid for pid in supervised.workers() if is_alive(pid)] == []


def test_a_worker_that_is_killed_while_it_drains_makes_it_1(folder, shop, queue, supervise) -> None:
    supervised, _ = at_rest(folder, shop, queue, supervise, shop.rest, "--grace", "3600")
    supervised.process.terminate()
    wait_for(lambda: len(list(filter(is_alive, supervised.workers()))) == 1)
    (busy,) = filter(is_alive, supervised.workers())
    os.kill(busy, signal.SIGKILL)

    assert supervised.end() == 1
    assert f"worker {busy} was killed by SIGKILL" in supervised.said


@pytest.mark.parametrize("name", ["rest", "stick"])
def test_workers_whose_supervisor_was_killed_hand_back_and_end(
    folder, shop, queue, supervise, name
) -> None:
    task = getattr(shop, name)
    supervised, task_id = at_rest(folder, shop, queue, supervise, task, "--grace", "0.2")
    supervised.process.kill()
    supervised.process.wait()
    wait_for(lambda: not any(map(is_alive, supervised.workers())))

    assert crashes_of(folder, task_id) == ("cancelled", 0, 0)
    assert_nothing_is_left(folder, supervised)


def test_an_orphan_whose_task_blocks_its_loop_is_killed_in_the_end(
    folder, shop, queue, supervise, monkeypatch
) -> None:
    supervised, _ = at_rest(folder, shop, queue, supervise, shop.block, "--grace", "0.2")
    supervised.process.kill()
    supervised.process.wait()
    wait_for(lambda: not any(map(is_alive, supervised.workers())))


# -- what does not start ------------------------------------------------------------------


def test_a_module_that_is_not_there_is_told_of_once_and_is_2(supervise) -> None:
    supervised = supervise(processes=4, target="nowhere:queue")
    assert supervised.end() == 2
    assert supervised.said.count("there is no module 'nowhere'") == 1


def test_a_recording_is_of_one_worker(folder, typed) -> None:
    out = typed("worker", "shop:queue", "--processes", 2, "--record", folder / "x.rec", code=2)
    assert "--record is for one worker" in out


def test_one_process_is_not_supervised(folder, shell) -> None:
    worker = Supervised(shell.start("worker", "shop:queue", "--app-dir", ".", "--processes", 1))
    assert worker.wait_for_workers(1) == [worker.pid]
    assert children(worker.pid) == []
    worker.process.terminate()
    assert worker.end() == 0
    assert "supervisor" not in worker.said


def test_one_that_cannot_be_started_yet_is_tried_again(folder, supervise) -> None:
    path = folder / "tasks.db"
    path.mkdir()  # is refused
    supervised = supervise()
    supervised.wait_said("ended with exit code 1; another one is started in 0.")
    path.rmdir()
    supervised.wait_for_workers(3)
    wait_for(lambda: len(children(supervised.pid)) == 2)
    supervised.process.terminate()
    assert supervised.end() == 0


# -- in a container -----------------------------------------------------------------------


def may_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="no process namespaces may be made here")
def test_as_process_1_it_restarts_and_stops_like_anywhere(folder) -> None:
    command = [sys.executable, "-m", "sitq.cli", "worker", "shop:queue", "--app-dir", "."]
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *command, "--processes", "2"],
        cwd=folder, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    supervised = Supervised(process)
    try:
        wait_for(lambda: len(supervised.workers()) == 2)
        assert "sitq: supervisor 1 of 2 workers" in supervised.said
        (first,) = children(process.pid)
        victim, other = children(first)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(supervised.workers()) == 3)
        assert zombies(first) == []
        os.kill(first, signal.SIGTERM)
        assert supervised.end() == 0, supervised.said
        assert not is_alive(other)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
