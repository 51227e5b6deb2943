"""Processes that are killed, stopped and resumed: what was acknowledged runs, and ends once."""

import os
import random
import signal
import time

import pytest

from sitq import SQLiteBackend, SyncTaskQueue, Task

WORKERS = 3


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_workers_killed_in_the_middle_lose_nothing_and_complete_nothing_twice(
    crew, tasks, loop
) -> None:
    count, kills = 300, 6
    rng = random.Random(20260301)
    with SyncTaskQueue(SQLiteBackend(crew.path), max_crashes=100) as queue:
        ids = queue.enqueue_many([Task(tasks.work, crew.log, n, 0.02) for n in range(count)])

    workers = [crew.worker(loop, slots=4) for _ in range(WORKERS)]
    for kill in range(kills):
        crew.wait_until(lambda kill=kill: len(crew.witnessed("end")) >= 25 * (kill + 1))
        time.sleep(rng.random() / 20)
        victim = workers.pop(rng.randrange(WORKERS))
        crew.kill(victim)
        workers.append(crew.worker(loop, slots=4))
    crew.wait_drained()

    assert [crew.stop(worker) for worker in workers] == [0] * WORKERS
    starts, ends = crew.witnessed("start"), crew.witnessed("end")
    assert crew.count("state = 'success'") == count
    assert starts.keys() == ends.keys() == set(range(count))
    # A start too many is a task that was in the hands of a worker when that was killed.
    crashes = crew.count("crashes > 0")
    assert sum(starts.values()) - count <= kills * 4
    assert len([n for n, times in starts.items() if times > 1]) <= crashes
    assert crew.integrity() == "ok"
    assert crew.violations({task_id: n for n, task_id in enumerate(ids)}) == []


def test_every_id_that_a_killed_producer_printed_runs_once(crew, tasks) -> None:
    rng = random.Random(7)
    acknowledged: dict[str, int] = {}
    for round_ in range(4):
        producer = crew.producer(first=10_000 * round_, count=9_000)
        assert producer.stdout.readline()
        time.sleep(0.05 + rng.random() / 10)
        producer.kill()
        # The last line may have been cut off in the middle of a write.
        lines = (producer.stdout.read() or "").splitlines()[:-1]
        acknowledged |= {task_id: int(number) for task_id, number in map(str.split, lines)}
    assert len(acknowledged) > 50

    worker = crew.worker(slots=50)
    crew.wait_drained()

    assert crew.stop(worker) == 0
    starts = crew.witnessed("start")
    assert set(acknowledged.values()) <= starts.keys()
    assert set(starts.values()) == {1}
    asked = [10_000 * round_ + n for round_ in range(4) for n in range(9_000)]
    assert crew.violations(acknowledged, asked=asked, calm=True) == []


def test_a_killed_worker_is_rescued_within_two_seconds_although_its_lease_is_long(
    crew, tasks
) -> None:
    with SyncTaskQueue(SQLiteBackend(crew.path)) as queue:
        held = queue.enqueue(tasks.work, crew.log, 1, 3600.0)
        victim = crew.worker(slots=1, lease_for=3600.0)
        crew.wait_until(lambda: crew.witnessed("start")[1] == 1)
        other = crew.worker(slots=1, lease_for=3600.0)
        assert other.stdout.readline() == "up\n"
        crew.wait_until(lambda: _workers(crew) == 2)

        victim.kill()
        victim.wait()
        took = crew.wait_until(lambda: crew.witnessed("start")[1] == 2)

        assert took < 2.0
        assert queue.cancel(held)
        assert queue.get_result(held, timeout=5).crashes == 1
    assert crew.stop(other) == 0


@pytest.mark.parametrize("slots", [1, 16])
def test_a_task_that_kills_its_workers_fails_after_three_and_its_neighbours_complete(
    crew, tasks, slots
) -> None:
    count = 40
    with SyncTaskQueue(SQLiteBackend(crew.path)) as queue:
        # All that fits into a worker is there when it dies, again and again.
        queue.enqueue_many([Task(tasks.work, crew.log, n, 0.3) for n in range(slots - 1)])
        poison = queue.enqueue(tasks.die, crew.log, 999)
        queue.enqueue_many([Task(tasks.work, crew.log, n, 0.01) for n in range(slots - 1, count)])
        deaths = 0
        while queue.get_result(poison, timeout=0) is None:
            worker = crew.worker(slots=slots)
            crew.wait_until(
                lambda worker=worker: worker.poll() is not None or _ended(queue, poison)
            )
            if worker.poll() is not None:
                assert worker.wait() == 42
                deaths += 1
        crew.wait_drained()

        result = queue.get_result(poison)
        assert (result.status, result.reason, result.crashes) == ("failed", "crash", 3)
        assert "the worker died 3 times while running this task" in result.error
    assert deaths == 3
    assert crew.stop(worker) == 0
    assert crew.witnessed("start")[999] == 3
    assert crew.count("state = 'success'") == count
    shared = crew.count("crashes = 2")
    assert shared == slots - 1  # the last death is charged to those who were there, and kills none


def test_a_suspended_worker_that_wakes_too_late_changes_nothing(crew, tasks) -> None:
    with SyncTaskQueue(SQLiteBackend(crew.path)) as queue:
        task_id = queue.enqueue(tasks.block, crew.log, 1, 0.6)
        sleeper = crew.worker(slots=1, lease_for=1.0)
        crew.wait_until(lambda: crew.witnessed("start")[1] == 1)
        os.kill(sleeper.pid, signal.SIGSTOP)
        wakes_at = time.monotonic() + 3.0  # three leases

        other = crew.worker(slots=1, lease_for=1.0)
        result = queue.get_result(task_id, timeout=20)
        assert (result.status, result.crashes) == ("success", 1)

        crew.wait_until(lambda: time.monotonic() >= wakes_at)
        os.kill(sleeper.pid, signal.SIGCONT)
        crew.wait_until(lambda: crew.witnessed("end")[1] == 2)  # it did the work, in vain
        assert crew.stop(sleeper) == 0
        assert queue.get_result(task_id) == result
    assert crew.stop(other) == 0


def _ended(queue, task_id) -> bool:
    return queue.get_result(task_id, timeout=0) is not None


def _workers(crew) -> int:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(crew.path, timeout=30)) as db:
        return db.execute("SELECT count(*) FROM sitq_workers").fetchone()[0]
