"""Several processes on one file: nothing is lost, nothing is done twice, nobody sees a lock."""

import pytest

from sitq import SQLiteBackend, SyncTaskQueue, Task

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@LOOPS
def test_two_thousand_tasks_over_four_processes_start_once_each(crew, tasks, loop) -> None:
    with SyncTaskQueue(SQLiteBackend(crew.path)) as queue:
        ids = queue.enqueue_many([Task(tasks.work, crew.log, n, 0.0) for n in range(2000)])

    workers = [crew.worker(loop, slots=8) for _ in range(4)]
    crew.wait_drained()

    assert [crew.stop(worker) for worker in workers] == [0, 0, 0, 0]
    starts = crew.witnessed("start")
    assert len(starts) == 2000
    assert set(starts.values()) == {1}
    assert crew.count("state = 'success' AND attempt = 1 AND crashes = 0") == 2000
    assert "locked" not in crew.errors()
    assert crew.integrity() == "ok"
    assert crew.violations({id_: n for n, id_ in enumerate(ids)}, calm=True) == []


def test_eight_processes_that_start_on_a_new_file_at_once_all_work(crew, tasks) -> None:
    producers = [crew.producer(first=100 * n, count=40) for n in range(4)]
    workers = [crew.worker(slots=2) for _ in range(4)]

    printed = [process.communicate(timeout=40)[0].splitlines() for process in producers]
    crew.wait_drained()

    assert [process.returncode for process in producers] == [0, 0, 0, 0]
    assert [len(lines) for lines in printed] == [40, 40, 40, 40]
    assert [crew.stop(worker) for worker in workers] == [0, 0, 0, 0]
    assert crew.witnessed("start") == {100 * n + i: 1 for n in range(4) for i in range(40)}
    assert crew.errors() == ""
