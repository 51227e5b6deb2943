"""`sitq replay`: what it tells of a recording, and what it exits with."""

import re
import textwrap
from pathlib import Path

import pytest

from sitq import MemoryBackend, Retry, SQLiteBackend, SyncTaskQueue, TaskQueue, Worker, testing
from sitq.protocol import worker
from sitq.protocol.ops import Failed
from sitq.protocol.retry import Raised

MODULE = """
    from sitq import SQLiteBackend, TaskQueue, Worker

    queue = TaskQueue(SQLiteBackend("tasks.db"))
    worker = Worker(queue.backend, max_concurrency=2)
"""
IDS: list[str] = []


def good() -> str:
    return "a secret"


def bad() -> None:
    raise ConnectionError("a secret")


async def shop(path) -> None:
    backend = MemoryBackend()
    queue = TaskQueue(backend)
    async with Worker(backend, record=path):
        IDS[:] = [
            await queue.enqueue(good),
            await queue.using(retry=Retry(attempts=2, delay=90)).enqueue(bad),
        ]
        for task_id in IDS:
            await queue.get_result(task_id)


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "worker.rec"
    testing.run(shop, path)
    return path


def numbers(out: str) -> list[int]:
    return [int(n) for n in re.findall(r"^ *(\d+) \d\d:\d\d:\d\d\.\d{3} ", out, re.MULTILINE)]


def test_it_tells_what_happened_and_how_it_ended(typed, path) -> None:
    out = typed("replay", path)
    steps = len(testing.replay(path))

    assert re.match(r"run 1: pid 1 on virtual, sitq [\d.]+, from \d{4}-.* UTC; it was stop", out)
    assert "\ntasks started: 3; ended: raised 2, returned 1\n" in out
    assert "\nlives begun: 1, leases lost: 0, timeouts: 0, failures of the store: 0\n" in out
    assert f"\nthe last 40 of {steps} steps (times are UTC):\n" in out
    assert out.endswith(f"\nthis version decides all {steps} steps alike\n")
    assert numbers(out) == list(range(steps - 39, steps + 1))
    assert "a secret" not in out


def test_all_steps_are_told_if_that_is_asked(typed, path) -> None:
    assert numbers(typed("replay", path, "--all")) == list(range(1, len(testing.replay(path)) + 1))
    assert numbers(typed("replay", path, "--all", "--until", 7)) == list(range(1, 8))
    assert numbers(typed("replay", path, "--until", 7)) == list(range(1, 8))


def test_one_task_is_followed(typed, path) -> None:
    out = typed("replay", path, "--task", IDS[1])

    assert f"starts {IDS[1]} (token 1): tests.cli.test_replay.bad, attempt 1" in out
    assert f"{IDS[1]} (token 1) has ended: raised ConnectionError" in out
    assert re.search(rf"settle {IDS[1]} \(token 1\): failed, ConnectionError; once more in ", out)
    assert f"settle {IDS[1]} (token 2): failed, ConnectionError" in out
    assert len(numbers(out)) < 10
    assert numbers(typed("replay", path, "--task", "nobody")) == []


def test_a_step_at_which_this_version_decides_otherwise_is_told(typed, path, monkeypatch) -> None:
    judge = worker.judge

    def never_again(task, ending, why, unit):
        failed = isinstance(ending, Raised)
        return Failed(ending.failure) if failed else judge(task, ending, why, unit)

    monkeypatch.setattr(worker, "judge", never_again)
    out = typed("replay", path, code=1)

    step = int(re.search(r"^step (\d+): here the worker's machine of this", out, re.MULTILINE)[1])
    assert step == testing.replay(path).first_difference.number
    assert numbers(out)[-1] == step
    assert "alike" not in out
    assert "alike" in typed("replay", path, "--until", step - 1)


def test_a_machine_that_raises_is_told(typed, path, monkeypatch) -> None:
    monkeypatch.setattr(worker.WorkerMachine, "_store", lambda *_: None)
    out = typed("replay", path, "--all", code=1)

    assert "-> raises KeyError: 1\n" in out
    assert "-> not replayed: the machine has raised an exception before\n" in out


def test_what_is_no_recording_is_wrong_usage(typed, tmp_path, path) -> None:
    (tmp_path / "notes.txt").write_text("notes\x1b[31m\n")

    assert "is no recording" in typed("replay", tmp_path / "notes.txt", code=2)
    assert "there is no file" in typed("replay", tmp_path / "nothing", code=2)
    newer = path.read_text().replace('"sitq_recording":1', '"sitq_recording":2')
    path.write_text(newer)
    assert "it was recorded in format 2" in typed("replay", path, code=2)
    typed("replay", code=2)
    typed("replay", path, "--until", 0, code=2)


def test_names_of_a_recording_do_nothing_to_the_terminal(typed, path) -> None:
    path.write_text(path.read_text().replace(IDS[0], "[bold]\\u001b[31m"))

    assert "[bold]\\x1b[31m (token 1)" in typed("replay", path, code=1)


@pytest.mark.parametrize("target", ["shop:queue", "shop:worker"])
@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
def test_what_a_worker_process_has_recorded(shell, target, loop) -> None:
    (shell.folder / "shop.py").write_text(textwrap.dedent(MODULE))
    with SyncTaskQueue(SQLiteBackend(shell.folder / "tasks.db")) as queue:
        queue.enqueue(good)
        queue.using(retry=Retry(attempts=2, delay=0.01)).enqueue(bad)
    shell.run("worker", target, "--app-dir", ".", "--drain", "--record", "worker.rec", *loop)

    out = shell.run("replay", "worker.rec")
    assert "ended: raised " in out
    assert "it was stopped" in out
    assert out.endswith("steps alike\n")
    assert "a secret" not in (shell.folder / "worker.rec").read_text()
