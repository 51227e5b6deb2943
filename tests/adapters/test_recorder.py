"""A worker that is recorded: what lands in the file, what does not, and what that may cost it."""

import errno
import json
import logging
import os
import threading
from pathlib import Path

import anyio
import pytest

from sitq import MemoryBackend, Retry, Task, TaskQueue, Worker, testing
from sitq.adapters import recording_files
from sitq.adapters.recorder import Recorder
from sitq.exceptions import BackendClosedError
from sitq.protocol.worker import TaskEnded, WorkerMachine
from sitq.testing.replaying import replay

pytestmark = pytest.mark.anyio

MARKER = "do-not-write-this-down"


async def return_it() -> str:
    return MARKER


async def take(secret: str) -> None:
    pass


def raise_it() -> None:
    raise ValueError(MARKER)


async def nothing() -> None:
    pass


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "worker.rec"


@pytest.fixture
def limited(monkeypatch):
    """Have recordings of so many bytes at most."""

    def limit(size: int) -> None:
        monkeypatch.setitem(Recorder.__init__.__kwdefaults__, "limit", size)

    return limit


async def work(path, backend=None, **options) -> None:
    """Let a recorded worker meet most of what there is."""
    backend = backend or MemoryBackend()
    queue = TaskQueue(backend)
    await queue.enqueue(return_it)
    await queue.using(retry=Retry(attempts=3, delay=0.01)).enqueue(raise_it)
    await queue.using(timeout=0.02).enqueue(anyio.sleep, 60)
    unwanted = await queue.enqueue(anyio.sleep, 60)
    async with Worker(backend, max_concurrency=4, record=path, grace=0, **options):
        with anyio.fail_after(10):
            await queue.cancel(unwanted)
            await queue.enqueue(anyio.sleep, 60)
            with pytest.raises(Exception, match=MARKER):
                await queue.result(await queue.enqueue(raise_it))
            await anyio.sleep(0.1)


async def many(path, count=2000) -> None:
    backend = MemoryBackend()
    await TaskQueue(backend).enqueue_many([Task(nothing)] * min(count, 1000))
    for _ in range(count // 1000 - 1):
        await TaskQueue(backend).enqueue_many([Task(nothing)] * 1000)
    await Worker(backend, max_concurrency=20, record=path).drain()


def files(path) -> list[Path]:
    return [Path(name) for name in recording_files.paths(str(path)) if Path(name).exists()]


def lines(path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- what is written -----------------------------------------------------------------------


async def test_the_machines_of_this_version_decide_every_step_as_they_did(path, backend) -> None:
    await work(path, backend)
    recording = replay(path)

    assert len(recording) > 30
    assert recording.first_difference is None
    ended = {
        type(s.event.ending).__name__ for s in recording.steps if isinstance(s.event, TaskEnded)
    }
    assert ended == {"Returned", "Raised", "Interrupted"}
    (run,) = recording.runs
    assert (run.pid, run.is_whole, run.ended) == (os.getpid(), True, "")


async def test_neither_calls_nor_results_nor_errors_are_written(path) -> None:
    backend = MemoryBackend()
    queue = TaskQueue(backend)
    task_id = await queue.enqueue(take, MARKER)
    await work(path, backend)

    text = path.read_text()
    assert task_id in text
    assert "tests.adapters.test_recorder.return_it" in text
    assert "ValueError" in text
    assert MARKER not in text
    assert "Traceback" not in text


async def test_only_the_owner_may_read_it(path) -> None:
    await many(path, 1)

    assert path.stat().st_mode & 0o777 == 0o600


async def test_each_run_goes_on_in_the_same_file(path) -> None:
    for _ in range(3):
        await many(path, 1)
    with path.open("a") as file:
        file.write('["worker", 12.')  # as a process does that dies while it writes
    await many(path, 1)

    assert [run.ended for run in replay(path).runs] == [""] * 4
    assert replay(path).first_difference is None


async def test_what_ended_the_run_is_written(path) -> None:
    backend = MemoryBackend()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(closes, backend)
        with pytest.raises(BackendClosedError):
            await Worker(backend, record=path, poll_interval=0.01).start()
    assert [run.ended for run in replay(path).runs] == ["BackendClosedError"]


async def closes(backend) -> None:
    await anyio.sleep(0.05)
    await backend.close()


def test_a_virtual_run_is_recorded_like_any_other(path) -> None:
    testing.run(work, path)

    recording = replay(path)
    assert len(recording) > 30
    assert recording.first_difference is None
    assert not [thread for thread in threading.enumerate() if "recorder" in thread.name]


async def test_a_bug_of_a_machine_is_the_last_that_is_written(path, monkeypatch) -> None:
    def broken(*_) -> None:
        raise AssertionError(MARKER)

    monkeypatch.setattr(WorkerMachine, "_task_ended", broken)
    with pytest.raises(AssertionError, match=MARKER):
        await many(path, 1)
    recording = replay(path)
    assert recording.first_difference is None, "it has the same bug"
    raised = [step for step in recording.steps if step.raised is not None]
    assert [type(step.event) for step in raised] == [TaskEnded]
    monkeypatch.undo()
    assert recording.first_difference == raised[0]._replace(effects=(), agrees=False, raised=None)
    assert MARKER not in path.read_text()


# -- how much is written -------------------------------------------------------------------


async def test_the_files_stay_within_their_limit_and_can_be_replayed(path, limited) -> None:
    limited(256 * 1024)
    await many(path, 8000)

    assert len(files(path)) == 2
    assert sum(file.stat().st_size for file in files(path)) <= 256 * 1024
    recording = replay(path)
    assert recording.first_difference is None
    assert not recording.runs[0].is_whole
    assert recording.runs[0].ended == ""
    begins = [lines(file)[0] for file in files(path)]
    assert abs(begins[0]["segment"] - begins[1]["segment"]) == 1
    assert max(begin["segment"] for begin in begins) > 3


async def test_a_run_goes_on_in_the_newer_file(path, limited) -> None:
    limited(128 * 1024)
    await many(path, 2000)
    await many(path, 1)

    recording = replay(path)
    assert recording.runs[-1].is_whole
    assert len(recording.runs) == 2
    assert recording.first_difference is None


async def test_what_runs_where_a_file_begins_has_a_name(path, limited) -> None:
    limited(128 * 1024)
    backend = MemoryBackend()
    queue = TaskQueue(backend)
    long = await queue.enqueue(anyio.sleep, 3600)
    async with Worker(backend, max_concurrency=20, record=path, grace=0):
        ids = [await queue.enqueue(nothing) for _ in range(2000)]
        await queue.result(ids[-1])

    recording = replay(path)
    assert not recording.runs[0].is_whole
    assert long in recording.under_way.values()
    assert recording.first_difference is None


async def test_the_older_file_alone_can_be_replayed(path, limited) -> None:
    limited(128 * 1024)
    await many(path, 2000)
    for file in files(path):
        only = path.with_name("only.rec")
        only.write_bytes(file.read_bytes())
        assert replay(only).first_difference is None


# -- what goes wrong -----------------------------------------------------------------------


def complaints(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sitq.recording"]


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING, "sitq.recording")
    return lambda: complaints(caplog)


async def test_a_path_that_cannot_be_written_does_not_hurt_the_worker(tmp_path, warned) -> None:
    await many(tmp_path / "no" / "worker.rec", 1000)
    await many(tmp_path, 10)

    assert len(warned()) == 2
    assert "No such file" in warned()[0]
    assert all("the worker goes on" in line for line in warned())


async def test_a_full_disk_does_not_hurt_the_worker(path, warned, monkeypatch) -> None:
    written = 0

    def write(descriptor, data) -> int:
        nonlocal written
        if written > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written += len(data)
        return real(descriptor, data)

    real = os.write
    monkeypatch.setattr(recording_files.os, "write", write)
    await many(path, 1000)
    monkeypatch.undo()

    (line,) = warned()
    assert "No space left" in line
    assert replay(path).first_difference is None
    assert replay(path).runs[0].ended is None
    await many(path, 1)
    assert [run.ended for run in replay(path).runs] == [None, ""]


async def test_a_disk_that_hangs_does_not_hold_the_worker_up(path, warned, monkeypatch) -> None:
    goes_on = threading.Event()
    real = os.write
    monkeypatch.setattr(recording_files, "CLOSE_WITHIN", 0.01)
    monkeypatch.setattr(recording_files, "BACKLOG", 50_000)
    monkeypatch.setattr(recording_files.os, "write", lambda *args: goes_on.wait(20) and real(*args))
    try:
        await many(path, 1000)
    finally:
        goes_on.set()
    assert "the disk is too slow" in warned()[0]
    assert len(warned()) == 1


async def test_a_mistake_of_the_recorder_does_not_hurt_the_worker(
    path, warned, monkeypatch
) -> None:
    from sitq.adapters import recorder

    monkeypatch.setattr(recorder, "heard_line", lambda heard: 1 / 0)
    await many(path, 100)

    assert len(warned()) == 1


@pytest.mark.parametrize("content", ["my precious notes\n", "SQLite format 3\0", "{}\n", "[1]\n"])
@pytest.mark.parametrize("name", ["worker.rec", "worker.rec.2"])
async def test_what_is_no_recording_is_left_as_it_is(tmp_path, path, warned, content, name) -> None:
    (tmp_path / name).write_text(content)
    await many(path, 10)

    assert (tmp_path / name).read_text() == content
    assert "is no recording; it is left as it is" in warned()[0]


async def test_two_workers_do_not_write_to_one_file(path, warned) -> None:
    backend = MemoryBackend()
    async with Worker(backend, record=path), Worker(backend, record=path):
        await anyio.sleep(0.05)

    assert len(warned()) == 1
    assert "another worker records to" in warned()[0]
    assert replay(path).first_difference is None
    assert len(replay(path).runs) == 1


async def test_a_link_is_not_followed(tmp_path, path, warned) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    await many(path, 1)

    assert not (tmp_path / "elsewhere").exists()
    assert warned()


def test_a_worker_that_is_not_recorded_has_plain_machines() -> None:
    assert Worker(MemoryBackend()).record is None
    assert Worker(MemoryBackend(), record="worker.rec").record == os.path.abspath("worker.rec")
