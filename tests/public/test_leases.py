"""A live worker keeps its tasks, however long they take and whatever they do to the loop."""

import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from gated_tasks import until
from lease_tasks import block_the_loop, take_long

from sitq import SQLiteBackend, TaskQueue, Worker

pytestmark = pytest.mark.anyio

LEASE = 1.0
LONGER = 1.6
"""Seconds: the one long wait of these tests, because no lease may be shorter than a second."""


@pytest.fixture
def watch(tmp_path):
    """Start the second worker, on the file of the test."""
    processes = []

    def start() -> "subprocess.Popen[str]":
        script = Path(__file__).parent / "run_watcher.py"
        command = [sys.executable, "-W", "error", script, tmp_path / "tasks.db", tmp_path / "up"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


async def test_a_task_longer_than_the_lease_and_one_that_blocks_the_loop_start_once(
    tmp_path, watch, caplog
) -> None:
    log, up = str(tmp_path / "log"), str(tmp_path / "up")
    async with SQLiteBackend(tmp_path / "tasks.db") as backend:
        queue = TaskQueue(backend)
        worker = Worker(backend, max_concurrency=2, poll_interval=0.02, lease_for=LEASE)
        async with worker:
            # The two are at work before there is anybody else who could take them.
            blocks = await queue.enqueue(block_the_loop, log, up, LONGER)
            long = await queue.enqueue(take_long, log, up, LONGER)
            await until(lambda: _lines(log) == ["start block", "start long"])
            watcher = watch()  # and neither goes on before this one is up
            results = [await queue.get_result(id_, timeout=20) for id_ in (blocks, long)]
            _, errors = await anyio.to_thread.run_sync(watcher.communicate)

    assert (errors, watcher.returncode) == ("", 0)
    assert _lines(log) == ["end block", "end long", "start block", "start long"]
    for result in results:
        assert (result.status, result.attempt, result.crashes) == ("success", 1, 0)
        assert (result.finished_at - result.started_at).total_seconds() > LONGER > LEASE
    assert [record for record in caplog.records if record.name.startswith("sitq")] == []


def _lines(log: str) -> list[str]:
    try:
        return sorted(Path(log).read_text().splitlines())
    except FileNotFoundError:
        return []
