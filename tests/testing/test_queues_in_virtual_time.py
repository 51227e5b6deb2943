"""The real Worker and the real queues, in virtual time: all that takes time takes none."""

import threading
import time
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from sitq import (
    Backend,
    FileRefusedError,
    MemoryBackend,
    ResultTimeout,
    Retry,
    SQLiteBackend,
    StoreError,
    SyncTaskQueue,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskQueue,
    VirtualTimeError,
    Worker,
    testing,
)
from sitq.adapters.base import BatchError
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Register, Reserve
from tests.testing import chores

START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_thread_is_started(monkeypatch):
    def refuse(thread) -> None:
        raise AssertionError(f"{thread} was started")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before  # idle threads of earlier tests may have ended


def after(**span: float) -> datetime:
    return START + timedelta(**span)


# -- on every backend ------------------------------------------------------------------


def test_tasks_are_run_and_their_results_awaited(run, make_backend) -> None:
    async def main() -> list:
        backend = make_backend()
        queue = TaskQueue(backend)
        ids = await queue.enqueue_many([Task(chores.nap, n) for n in (3, 2, 1)])
        async with Worker(backend, max_concurrency=2):
            return [await queue.result(task_id) for task_id in ids]

    assert run(main) == ["slept 3", "slept 2", "slept 1"]
    ends = [(after(seconds=2), 2), (after(seconds=3), 1), (after(seconds=3), 3)]
    assert sorted(chores.done) == ends


def test_plain_functions_run_at_once_on_the_loop(run, make_backend) -> None:
    async def main() -> tuple:
        backend = make_backend()
        queue = TaskQueue(backend)
        async with Worker(backend):
            doubled = await queue.result(await queue.enqueue(chores.double, 4))
            here = await queue.result(await queue.enqueue(threading.get_ident))
            slept = await queue.result(await queue.enqueue(chores.nap_later, 60))
            with pytest.raises(TaskFailed, match="3"):
                await queue.result(await queue.enqueue(chores.interrupt_itself))
        return doubled, here, slept, testing.now()

    assert run(main) == (8, threading.get_ident(), "slept 60", after(minutes=1))


def test_delays_and_etas_are_judged_by_the_virtual_clock(run, make_backend) -> None:
    async def main() -> list:
        backend = make_backend()
        queue = TaskQueue(backend)
        ids = [
            await queue.using(delay=90).enqueue(chores.nap, 0),
            await queue.enqueue(chores.nap, 1, eta=testing.now() + timedelta(minutes=1)),
            await queue.using(eta=after(days=-1)).enqueue(chores.nap, 2),
        ]
        async with Worker(backend, max_concurrency=3):
            return [(await queue.get_result(task_id)).started_at for task_id in ids]

    assert run(main) == [after(seconds=90), after(minutes=1), START]


def test_retries_wait_for_their_time(run, make_backend) -> None:
    async def main() -> None:
        backend = make_backend()
        queue = TaskQueue(backend)
        retry = Retry(attempts=4, delay=10, factor=2, jitter=0)
        task_id = await queue.using(retry=retry).enqueue(chores.fail)
        async with Worker(backend):
            with pytest.raises(TaskFailed, match="no answer"):
                await queue.result(task_id)

    run(main)
    assert chores.done == [START, after(seconds=10), after(seconds=30), after(seconds=70)]


def test_a_task_is_interrupted_by_its_timeout_and_by_a_caller(run, make_backend) -> None:
    async def main() -> None:
        backend = make_backend()
        queue = TaskQueue(backend)
        late = await queue.using(timeout=30).enqueue(chores.never_end)
        unwanted = await queue.enqueue(chores.never_end)
        async with Worker(backend, max_concurrency=2):
            with pytest.raises(TaskFailed, match="timeout of 30 s"):
                await queue.result(late)
            await anyio.sleep(15)
            await queue.cancel(unwanted)
            with pytest.raises(TaskCancelled):
                await queue.result(unwanted)

    run(main)
    assert chores.done == [after(seconds=30), after(seconds=45)]


def test_a_drain_works_until_nothing_is_due(run, make_backend) -> None:
    async def main() -> datetime:
        backend = make_backend()
        queue = TaskQueue(backend)
        await queue.enqueue_many([Task(chores.nap, 60) for _ in range(3)])
        await queue.using(delay=600).enqueue(chores.nap, 1)
        await Worker(backend).drain()
        return testing.now()

    assert run(main) == after(minutes=3)


def test_a_wait_for_a_result_ends_in_time(run, make_backend) -> None:
    async def main() -> datetime:
        queue = TaskQueue(make_backend())
        task_id = await queue.enqueue(chores.nap, 1)
        with pytest.raises(ResultTimeout):
            await queue.result(task_id, timeout=20)
        return testing.now()

    assert run(main) == after(seconds=20)


def test_what_a_dead_worker_held_is_run_once_its_lease_is_over(run, make_backend) -> None:
    async def main() -> tuple:
        backend = make_backend()
        queue = TaskQueue(backend)
        task_id = await queue.enqueue(chores.nap, 1)
        store = backend.open_store()
        store.apply([Register("dead", "here", 1, ("default",), 1, lease_for=30.0)])
        store.apply([Reserve("dead", ("default",), 1)])
        store.close()
        async with Worker(backend):
            result = await queue.get_result(task_id)
        return result.status, result.crashes, result.started_at

    status, crashes, started_at = run(main)
    assert (status, crashes) == ("success", 1)
    assert after(seconds=30) <= started_at <= after(seconds=41)


def test_a_worker_keeps_its_lease_for_as_long_as_it_runs(run, make_backend) -> None:
    async def main() -> list:
        backend = make_backend()
        queue = TaskQueue(backend)
        task_id = await queue.enqueue(chores.nap, 120)
        async with Worker(backend, lease_for=1), Worker(backend, lease_for=1):
            assert await queue.result(task_id) == "slept 120"
        return (await queue.get_result(task_id)).attempt

    assert run(main) == 1


def test_what_a_stopped_worker_hands_back_is_taken_by_another(run, make_backend) -> None:
    async def main() -> datetime:
        backend = make_backend()
        queue = TaskQueue(backend)
        task_id = await queue.enqueue(chores.nap, 100)
        other = Worker(backend)
        async with anyio.create_task_group() as group:
            group.start_soon(other.start)
            await anyio.sleep(10)
            async with Worker(backend):
                await other.stop(grace=5)
                result = await queue.get_result(task_id)
        return result.started_at

    assert after(seconds=15) <= run(main) <= after(seconds=16)


def test_a_retry_of_one_worker_is_taken_by_another(run, make_backend) -> None:
    async def main() -> int:
        backend = make_backend()
        queue = TaskQueue(backend)
        retry = Retry(attempts=2, delay=60, jitter=0)
        task_id = await queue.using(retry=retry).enqueue(chores.fail)
        first = Worker(backend)
        async with anyio.create_task_group() as group:
            group.start_soon(first.start)
            await anyio.sleep(1)
            async with Worker(backend):
                await anyio.sleep(1)
                await first.stop()
                result = await queue.get_result(task_id)
        return result.attempt

    assert run(main) == 2
    assert chores.done == [START, after(minutes=1)]


def test_what_a_sync_queue_asks_for_is_done(run, make_backend) -> None:
    async def main() -> tuple:
        backend = make_backend()
        async with Worker(backend):
            with SyncTaskQueue(backend) as desk:
                task_id = desk.enqueue(chores.nap, 1)
                unwanted = desk.enqueue(chores.never_end)
                await anyio.sleep(5)
                result = desk.result(task_id, timeout=0)
                desk.cancel(unwanted)
                with pytest.raises(VirtualTimeError, match="waits by blocking"):
                    desk.result(unwanted, timeout=10)
            await anyio.sleep(5)
        return result

    assert run(main) == "slept 1"
    assert chores.done[0][0] <= after(seconds=3)
    assert after(seconds=5) <= chores.done[1] <= after(seconds=7)


def test_a_sync_queue_within_a_task_finds_its_worker(run, make_backend) -> None:
    async def main() -> str:
        backend = make_backend()
        queue = TaskQueue(backend)
        desk = SyncTaskQueue(backend)

        def hand_over() -> str:
            return desk.enqueue(chores.nap, 1)

        async with Worker(backend):
            task_id = await queue.result(await queue.enqueue(hand_over))
            value = await queue.result(task_id)
        desk.close()
        return value

    assert run(main) == "slept 1"


def test_a_cancelled_worker_hands_its_tasks_back(run, make_backend) -> None:
    async def main() -> tuple:
        backend = make_backend()
        queue = TaskQueue(backend)
        task_id = await queue.enqueue(chores.never_end)
        with anyio.move_on_after(10):
            await Worker(backend).start()
        waiting = await queue.get_result(task_id, timeout=0)
        await queue.cancel(task_id)
        return waiting, (await queue.get_result(task_id)).attempt

    assert run(main) == (None, 0)
    assert chores.done == [after(seconds=10)]


# -- a store of one's own ---------------------------------------------------------------


class OutOfReach(Backend):
    """A store that cannot be reached from the tenth second to the seventieth."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = MemoryBackend()

    def open_store(self) -> "OutOfReach":
        return self

    def apply(self, ops):
        if after(seconds=10) <= testing.now() < after(seconds=70):
            raise BatchError(StoreError("out of reach"), Blame.STORE)
        return self._memory.open_store().apply(ops)

    def tidy(self) -> None: ...

    def close(self) -> None: ...


def test_a_worker_loses_its_lease_and_begins_another_life(run) -> None:
    async def main() -> tuple:
        backend = OutOfReach()
        queue = TaskQueue(backend)
        task_id = await queue.enqueue(chores.nap, 40)
        async with Worker(backend):
            await anyio.sleep(75)
            result = await queue.get_result(task_id)
        return result.status, result.crashes, result.started_at

    status, crashes, started_at = run(main)
    assert (status, crashes) == ("success", 1)
    assert after(seconds=70) <= started_at <= after(seconds=75)


def test_a_worker_that_cannot_say_goodbye_ends_all_the_same(run) -> None:
    async def main() -> datetime:
        worker = Worker(OutOfReach())
        async with anyio.create_task_group() as group:
            group.start_soon(worker.start)
            await anyio.sleep(20)
            await worker.stop()
        return testing.now()

    assert run(main) == after(seconds=25)


# -- in memory nobody looks in vain ----------------------------------------------------


def test_a_month_without_work_passes_in_a_moment(run) -> None:
    async def main() -> str:
        queue = TaskQueue(MemoryBackend())
        async with Worker(queue.backend, lease_for=86400, poll_interval=0.1):
            task_id = await queue.using(delay=30 * 86400).enqueue(chores.nap, 1)
            return await queue.result(task_id)

    began = time.monotonic()

    assert run(main) == "slept 1"
    assert time.monotonic() - began < 5


def test_a_loop_like_cron_runs_for_a_year(run) -> None:
    async def main() -> int:
        queue = TaskQueue(MemoryBackend(retention=None))
        async with Worker(queue.backend, lease_for=86400):
            ids = []
            for day in range(1, 366):
                await anyio.sleep((after(days=day) - testing.now()).total_seconds())
                report = queue.using(task_id=f"report-{testing.now():%Y-%m-%d}")
                ids.append(await report.enqueue(chores.double, day))
            return sum([await queue.result(task_id) for task_id in ids])

    assert run(main) == 365 * 366


def test_time_that_a_test_moves_by_hand_is_still_looked_for(run) -> None:
    from sitq.adapters import clocks

    ahead = [0]

    def moment():
        now = clocks.moment()
        return now._replace(wall_ms=now.wall_ms + ahead[0])

    async def main() -> datetime:
        queue = TaskQueue(MemoryBackend(moment=moment))
        task_id = await queue.using(delay=86400).enqueue(chores.double, 1)
        async with Worker(queue.backend):
            await anyio.sleep(10)
            ahead[0] = 86_400_000
            await queue.result(task_id)
        return testing.now()

    assert after(seconds=10) <= run(main) <= after(seconds=12)


def test_nobody_steps_aside_where_nobody_else_is(run, monkeypatch) -> None:
    """How far a WAL has grown differs between versions of SQLite, and a run is always the same."""
    from sitq.adapters import clocks

    def sleep(seconds: float) -> None:
        pytest.fail("a virtual run slept")

    async def main() -> float:
        before = clocks.monotonic()
        clocks.step_aside(5.0)
        return clocks.monotonic() - before

    monkeypatch.setattr(time, "sleep", sleep)
    assert run(main) == 0.0


def test_ended_tasks_are_pruned_in_time(run) -> None:
    async def main() -> list:
        queue = TaskQueue(MemoryBackend(retention=timedelta(days=1)))
        ids = [await queue.enqueue(chores.double, n) for n in range(3)]
        async with Worker(queue.backend):
            await anyio.sleep(2 * 86400)
        return list(await queue.get_results(ids))

    assert len(run(main)) == 1  # the newest stays


# -- a real file -----------------------------------------------------------------------


def test_a_file_is_what_it_would_be_without_virtual_time(run, sqlite_path) -> None:
    async def main() -> str:
        backend = SQLiteBackend(sqlite_path)
        queue = TaskQueue(backend)
        async with Worker(backend):
            await queue.result(await queue.enqueue(chores.double, 1))
        return await queue.using(delay=60).enqueue(chores.double, 2)

    task_id = run(main)

    with SyncTaskQueue(SQLiteBackend(sqlite_path)) as desk:
        assert desk.get_result(task_id, timeout=0) is None
        assert desk.cancel(task_id) is True


def test_a_file_carries_work_from_one_run_to_the_next(run, sqlite_path) -> None:
    async def hand_over() -> str:
        return await TaskQueue(SQLiteBackend(sqlite_path)).using(delay=60).enqueue(chores.nap, 1)

    async def take_up(task_id: str) -> tuple:
        backend = SQLiteBackend(sqlite_path)
        async with Worker(backend):
            return await TaskQueue(backend).result(task_id), testing.now()

    task_id = run(hand_over)

    start = after(days=1)
    assert run(take_up, task_id, start=start) == ("slept 1", start + timedelta(seconds=1))


def test_a_file_that_is_refused_is_refused_here_too(run, sqlite_path) -> None:
    with open(sqlite_path, "w") as file:
        file.write("no database" * 100)

    async def main() -> None:
        await SQLiteBackend(sqlite_path).connect()

    with pytest.raises(FileRefusedError):
        run(main)


def test_a_backend_is_of_use_in_the_next_run_and_outside(run, make_backend) -> None:
    backend = make_backend()

    async def main() -> str:
        queue = TaskQueue(backend)
        task_id = await queue.enqueue(chores.nap, 1)
        async with Worker(backend):
            return await queue.result(task_id)

    assert run(main) == "slept 1"
    assert run(main, start=after(days=1)) == "slept 1"
    with SyncTaskQueue(backend) as desk:
        assert desk.enqueue(chores.double, 1)
