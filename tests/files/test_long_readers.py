"""A program that reads in one long transaction: the WAL grows, and is small again once it ends."""

import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

from sitq import SQLiteBackend, SyncTaskQueue, Task

MIB = 2**20

READER = """
    import sqlite3, sys
    db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
    db.execute("BEGIN")
    (before,) = db.execute("SELECT count(*) FROM sitq_tasks").fetchone()
    print("reads", flush=True)
    sys.stdin.read()
    (after,) = db.execute("SELECT count(*) FROM sitq_tasks").fetchone()
    print(before == after, flush=True)
"""


@contextmanager
def long_reader(path: str):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READER), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "reads\n"
        yield
    finally:
        out, _ = process.communicate(timeout=30)
    assert out == "True\n", "it has seen the same all the time"


@pytest.mark.slow
def test_the_wal_grows_beyond_64_mib_and_is_back_below_8_after_the_reader_has_ended(
    crew, tasks
) -> None:
    """Two workers and a producer write meanwhile, and go on writing afterwards."""
    wal = Path(f"{crew.path}-wal")
    backend = SQLiteBackend(crew.path, durability="normal")
    with SyncTaskQueue(backend) as queue:
        ids = [queue.enqueue(tasks.work, crew.log, 0, 0.0)]
        workers = [crew.worker(slots=4) for _ in range(2)]
        with long_reader(crew.path):
            number = 0
            while wal.stat().st_size <= 64 * MIB:
                number += 1
                assert number < 200, "it does not grow"
                ids += queue.enqueue_many(
                    [
                        Task(len, "x" * 10**6).using(queue="nobody serves this"),
                        Task(tasks.work, crew.log, number, 0.0),
                    ]
                )
            grown = wal.stat().st_size
        assert grown > 64 * MIB

        # What was in the way is gone: the next commits, whoever makes them, do the rest.
        numbers = iter(range(number + 1, number + 400))

        def is_small() -> bool:
            ids.append(queue.enqueue(tasks.work, crew.log, next(numbers), 0.0))
            return wal.stat().st_size <= 8 * MIB

        crew.wait_until(is_small)
        crew.wait_until(lambda: crew.count("state = 'queued' AND queue = 'default'") == 0)
        crew.wait_until(lambda: crew.count("state = 'running'") == 0)
    assert [crew.stop(worker) for worker in workers] == [0, 0]
    assert crew.errors() == ""
    assert set(crew.witnessed("start").values()) == {1}
    assert crew.count() == len(ids)
    assert crew.integrity() == "ok"
