"""Workers on Postgres that are killed: their tasks are done by others, on one host at once."""

import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from sitq import PostgresBackend, Retry, SyncTaskQueue, Task, current_task
from sitq.protocol.lifecycle import TaskState as S

pytestmark = pytest.mark.slow

WORKER = """
import asyncio, sys
from sitq import PostgresBackend, Worker
print("up", flush=True)
backend = PostgresBackend(sys.argv[1])
asyncio.run(
    Worker(backend, max_concurrency=8, lease_for=60.0, poll_interval=0.1).start()
)
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


def test_what_is_written_within_a_finish_is_committed_once_whoever_is_killed(
    postgres_dsn, start_worker
) -> None:
    """Workers die, and connections are ended, before, after and in the midst of the commits."""
    count = 500

    def effect(number: int) -> None:
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("INSERT INTO effects VALUES (%s)", (number,))
            current_task().finish(number, within=connection)
        time.sleep(0.01)  # committed, and the worker knows nothing of it

    retry = Retry(attempts=100, delay=0)
    with (
        psycopg.connect(postgres_dsn, autocommit=True) as connection,
        SyncTaskQueue(PostgresBackend(postgres_dsn), retry=retry, max_crashes=100) as queue,
    ):
        connection.execute("CREATE TABLE effects (number int)")

        def written() -> int:
            ((effects,),) = connection.execute("SELECT count(*) FROM effects")
            return effects

        ids = queue.enqueue_many(Task(effect, number) for number in range(count))
        for part in range(1, 8):
            worker = start_worker()
            while written() < part * count // 10:
                time.sleep(0.001)
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND application_name <> 'sitq'"
            )
            worker.kill()
        start_worker()
        assert [queue.result(task_id, timeout=60.0) for task_id in ids] == list(range(count))

        once = connection.execute("SELECT number FROM effects ORDER BY number").fetchall()
        assert [number for (number,) in once] == list(range(count))
        ((crashes,),) = connection.execute("SELECT sum(crashes) FROM sitq.tasks").fetchall()
        assert crashes > 0


def _fetch(task_id):
    from sitq.protocol.ops import Fetch

    return Fetch((task_id,))
