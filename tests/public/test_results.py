"""How a task stands and how it ended, as its callers see it."""

import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from gated_tasks import hold, hold_thread, stays, until, visit

from sitq import (
    MemoryBackend,
    Result,
    ResultTimeout,
    SerializationError,
    SitqError,
    SQLiteBackend,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskNotFoundError,
    TaskQueue,
    TaskStatus,
    ValidationError,
    Worker,
)
from sitq.protocol.ops import Moment

pytestmark = pytest.mark.anyio


async def boom() -> None:
    raise LookupError("boom")


# -- get_result ------------------------------------------------------------------------


async def test_a_timeout_of_zero_looks_once(backend, queue, gate) -> None:
    task_id = await queue.enqueue(visit, gate, "value")
    assert await queue.get_result(task_id, timeout=0) is None
    await Worker(backend).drain()
    assert (await queue.get_result(task_id, timeout=0)).status == "success"


@pytest.mark.parametrize("timeout", [0.03, timedelta(milliseconds=30)], ids=repr)
async def test_a_task_that_has_not_ended_in_time_is_none(queue, gate, timeout) -> None:
    task_id = await queue.enqueue(visit, gate)
    began = anyio.current_time()
    assert await queue.get_result(task_id, timeout) is None
    assert anyio.current_time() - began >= 0.03 - 0.001  # uvloop's clock ticks in ms


async def test_without_a_timeout_it_waits_until_the_task_has_ended(backend, queue, gate) -> None:
    task_id = await queue.enqueue(hold, gate, "value")
    results = []

    async def wait() -> None:
        results.append(await queue.get_result(task_id))

    async with Worker(backend), anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(wait)
        await stays(lambda: not results)
        gate.open()
    assert [result.status for result in results] == ["success"] * 20


async def test_a_waiting_caller_is_woken_and_does_not_ask_again_and_again(
    backend, queue, gate, monkeypatch
) -> None:
    for pause in ("QUICKEST", "SLOWEST"):  # so long that asking again would be too late
        monkeypatch.setattr(f"sitq.protocol.waiter.{pause}", 3600.0)
    task_id = await queue.enqueue(hold, gate, "value")
    values = []

    async def wait() -> None:
        values.append(await queue.result(task_id))

    async with Worker(backend), anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await stays(lambda: not values)
        gate.open()
        await until(lambda: values == ["value"], seconds=10)


async def test_an_unknown_id_is_an_error_at_once_if_there_is_no_time_limit(queue) -> None:
    with anyio.fail_after(5), pytest.raises(TaskNotFoundError, match="nobody") as caught:
        await queue.get_result("nobody")
    assert caught.value.task_id == "nobody"
    with pytest.raises(TaskNotFoundError):
        await queue.result("nobody")


async def test_an_unknown_id_is_waited_for_if_there_is_a_time_limit(backend, queue, gate) -> None:
    assert await queue.get_result("not-yet", timeout=0) is None
    assert await queue.get_result("not-yet", timeout=0.02) is None
    results = []

    async def wait() -> None:
        results.append(await queue.result("not-yet", timeout=10))

    async with anyio.create_task_group() as tasks, Worker(backend):
        tasks.start_soon(wait)
        await stays(lambda: not results, 0.02)
        await queue.using(task_id="not-yet").enqueue(visit, gate, "value")
        await until(lambda: results == ["value"])


async def test_giving_up_the_wait_leaves_the_task_alone(backend, queue, gate) -> None:
    task_id = await queue.enqueue(hold, gate, "value")
    async with Worker(backend):
        with anyio.move_on_after(0.02):
            await queue.get_result(task_id)
        gate.open()
        assert await queue.result(task_id, timeout=10) == "value"


async def test_a_result_is_seen_through_another_backend_on_the_same_file(sqlite_path, gate) -> None:
    async with SQLiteBackend(sqlite_path) as here, SQLiteBackend(sqlite_path) as there:
        task_id = await TaskQueue(here).enqueue(visit, gate, "value")
        async with Worker(there, poll_interval=0.02):
            assert await TaskQueue(here).result(task_id, timeout=10) == "value"


# -- result ----------------------------------------------------------------------------


async def test_result_gives_the_value(backend, queue, gate) -> None:
    task_id = await queue.enqueue(visit, gate, {"a": [1, 2]})
    async with Worker(backend):
        assert await queue.result(task_id) == {"a": [1, 2]}
    assert await queue.result(task_id, timeout=timedelta(seconds=1)) == {"a": [1, 2]}


async def test_result_of_a_failed_task_raises_what_its_worker_saw(backend, queue) -> None:
    task_id = await queue.enqueue(boom)
    await Worker(backend).drain()
    with pytest.raises(TaskFailed, match="failed: LookupError: boom") as caught:
        await queue.result(task_id, timeout=0)
    error = caught.value
    assert (error.task_id, error.error_type) == (task_id, "LookupError")
    assert error.traceback.rstrip().endswith("LookupError: boom")
    assert isinstance(error, SitqError)


async def test_result_of_a_cancelled_task_raises_that(queue, gate) -> None:
    task_id = await queue.enqueue(visit, gate)
    await queue.cancel(task_id)
    with pytest.raises(TaskCancelled, match="was cancelled") as caught:
        await queue.result(task_id, timeout=0)
    assert caught.value.task_id == task_id


@pytest.mark.parametrize("timeout", [0, 0.02])
async def test_result_that_is_not_there_in_time_raises_that(queue, gate, timeout) -> None:
    task_id = await queue.enqueue(visit, gate)
    with pytest.raises(ResultTimeout, match="the wait is over") as caught:
        await queue.result(task_id, timeout=timeout)
    assert caught.value.task_id == task_id
    assert isinstance(caught.value, TimeoutError)


async def test_only_a_task_that_succeeded_has_a_value(backend, queue, gate) -> None:
    failed = await queue.enqueue(boom)
    cancelled = await queue.using(delay=1).enqueue(visit, gate)
    await queue.cancel(cancelled)
    await Worker(backend).drain()
    for task_id, said in ((failed, "'failed' .*boom"), (cancelled, "'cancelled'")):
        result = await queue.get_result(task_id, timeout=0)
        with pytest.raises(SerializationError, match=said):
            queue.deserialize_result(result)


@pytest.mark.parametrize("wrong", [None, "a task's id", b"", 5], ids=repr)
async def test_only_a_result_can_be_deserialised(queue, wrong) -> None:
    with pytest.raises(ValidationError, match="takes a Result"):
        queue.deserialize_result(wrong)


# -- what a result tells ---------------------------------------------------------------


async def test_a_result_tells_when_and_how_a_task_ended(backend, queue, gate) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    task_id = await queue.enqueue(visit, gate, "value")
    await Worker(backend).drain()
    after = datetime.now(UTC)
    result = await queue.get_result(task_id, timeout=0)

    assert isinstance(result, Result)
    assert (result.task_id, result.status, result.attempt) == (task_id, TaskStatus.SUCCESS, 1)
    assert result.status == "success"
    assert str(result.status) == "success"
    assert isinstance(result.value, bytes)
    assert (result.error, result.error_type, result.traceback) == (None, None, None)
    assert (result.reason, result.crashes) == (None, 0)
    assert before <= result.enqueued_at <= result.started_at <= result.finished_at <= after
    for when in (result.enqueued_at, result.started_at, result.finished_at):
        assert when.tzinfo is UTC


async def test_a_result_tells_why_a_task_did_not_succeed(backend, queue, gate) -> None:
    ids = [
        await queue.enqueue(boom),
        await queue.using(timeout=0.02).enqueue(hold, gate),
        await queue.using(delay=60).enqueue(visit, gate),
    ]
    await queue.cancel(ids[2])
    await Worker(backend, max_concurrency=2).drain()
    raised, timed_out, cancelled = [await queue.get_result(id_, timeout=0) for id_ in ids]

    assert (raised.status, raised.reason, raised.error) == ("failed", None, "boom")
    assert (timed_out.status, timed_out.reason) == ("failed", "timeout")
    assert (cancelled.status, cancelled.reason, cancelled.attempt) == ("cancelled", "user", 0)
    assert cancelled.started_at is None
    assert cancelled.finished_at >= cancelled.enqueued_at


async def test_a_result_tells_of_workers_that_died(sqlite_path) -> None:
    program = f"""
import os, anyio
from sitq import SQLiteBackend, TaskQueue, Worker

async def main():
    backend = SQLiteBackend({sqlite_path!r})
    await TaskQueue(backend).using(task_id="poison", max_crashes=1).enqueue(os._exit, 42)
    await Worker(backend).start()

anyio.run(main)
"""
    died = await anyio.run_process([sys.executable, "-c", program], check=False)
    assert died.returncode == 42

    async with SQLiteBackend(sqlite_path) as backend, Worker(backend):
        result = await TaskQueue(backend).get_result("poison", timeout=10)
    assert (result.status, result.reason, result.error_type) == ("failed", "crash", "WorkerDied")
    assert result.crashes == 1
    assert "the worker died 1 time while running this task" in result.error
    assert f"pid {os.getpid()}" not in result.error


def test_a_status_is_its_text() -> None:
    assert {str(status) for status in TaskStatus} == {
        "pending",
        "running",
        "success",
        "failed",
        "cancelled",
    }


# -- retention -------------------------------------------------------------------------


async def test_a_finished_task_is_forgotten_after_its_retention_and_a_waiting_one_is_not(
    gate,
) -> None:
    class Clock:
        now_ms = 1_000_000_000_000

        def __call__(self) -> Moment:
            return Moment(self.now_ms, 0, "a clock moved by hand")

    clock = Clock()
    backend = MemoryBackend(moment=clock, retention=timedelta(minutes=1))
    queue = TaskQueue(backend)
    ended, waiting = await queue.enqueue_many(
        [Task(visit, gate), Task(visit, gate).using(queue="nobody serves this one")]
    )
    await Worker(backend).drain()
    clock.now_ms += 59_999
    async with Worker(backend):
        await stays(lambda: True)
    assert await queue.get_result(ended, timeout=0) is not None

    clock.now_ms += 1
    async with Worker(backend):
        for _ in range(1000):
            if await queue.get_result(ended, timeout=0) is None:
                break
    with pytest.raises(TaskNotFoundError):
        await queue.get_result(ended)
    with pytest.raises(ResultTimeout):
        await queue.result(waiting, timeout=0)
    assert await queue.cancel(waiting)
    await backend.close()


async def test_who_waits_for_a_task_that_is_pruned_meanwhile_is_told_at_once(
    tmp_path, gate
) -> None:
    path = tmp_path / "tasks.db"
    async with SQLiteBackend(path) as backend, anyio.create_task_group() as group:
        queue = TaskQueue(backend)
        task_id = await queue.enqueue(visit, gate)
        told = anyio.Event()

        async def wait() -> None:
            with pytest.raises(
                TaskNotFoundError, match="pruned after its retention before anybody"
            ):
                await queue.get_result(task_id, timeout=3600)
            told.set()

        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await queue.get_results([task_id])  # the waiter has looked by now: the two share a reader
        with closing(sqlite3.connect(path)) as db:
            db.execute("DELETE FROM sitq_tasks")
            db.commit()
        with anyio.fail_after(20):
            await told.wait()


async def test_a_thread_returns_its_result_as_any_task_does(backend, queue, gate) -> None:
    task_id = await queue.enqueue(hold_thread, gate, "value")
    async with Worker(backend):
        await until(lambda: gate.starts == 1)
        gate.open()
        assert await queue.result(task_id, timeout=10) == "value"
