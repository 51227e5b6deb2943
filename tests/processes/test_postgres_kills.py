"""Workers on Postgres that are killed: their tasks are done by others, on one host at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sitq import PostgresBackend, SyncTaskQueue
from sitq.protocol.lifecycle import TaskState as S

pytestmark = pytest.mark.slow

WORKER = """
import asyncio, sys
from sitq import PostgresBackend, Worker
print("up", flush=True)
asyncio.run(Worker(PostgresBackend(sys.argv[1]), lease_for=60.0, poll_interval=0.1).start())
"""


@pytest.fixture
def start_worker(postgres_dsn):
    started = []

    def start() -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, postgres_dsn],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_tasks_of_a_worker_that_was_killed_come_back_long_before_its_lease_ends(
    postgres_dsn, start_worker
) -> None:
    with SyncTaskQueue(PostgresBackend(postgres_dsn)) as queue:
        first = start_worker()
        task_id = queue.enqueue(time.sleep, 3.0)
        while (row := queue.get_result(task_id, timeout=0)) is None:
            (fetched,) = queue._open().apply([_fetch(task_id)])
            if fetched.rows[task_id].state is S.RUNNING:
                break
            time.sleep(0.02)
        assert row is None
        first.send_signal(signal.SIGKILL)
        began = time.monotonic()
        start_worker()
        assert queue.result(task_id, timeout=30.0) is None
        assert time.monotonic() - began < 25
        (fetched,) = queue._open().apply([_fetch(task_id)])
        assert fetched.rows[task_id].crashes == 1


def _fetch(task_id):
    from sitq.protocol.ops import Fetch

    return Fetch((task_id,))
