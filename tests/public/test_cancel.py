"""A task is cancelled, whatever state it is in; what has ended stays as it ended."""

import anyio
import pytest
from gated_tasks import Gate, hold, hold_thread, stays, until, visit

from sitq import (
    Retry,
    SQLiteBackend,
    TaskNotFoundError,
    TaskQueue,
    ValidationError,
    Worker,
)

pytestmark = pytest.mark.anyio


async def boom() -> None:
    raise LookupError("boom")


async def return_although_interrupted(gate: Gate) -> str:
    gate.enter()
    try:
        await anyio.sleep(10)
    except BaseException:
        gate.leave(interrupted=True)
    return "done all the same"


async def raise_when_interrupted(gate: Gate) -> None:
    gate.enter()
    try:
        await anyio.sleep(10)
    finally:
        gate.leave(interrupted=True)
        raise LookupError("from the cleaning up")


@pytest.mark.parametrize("options", [{}, {"delay": 3600}, {"queue": "nobody"}], ids=str)
async def test_a_task_that_waits_is_cancelled_at_once_and_never_runs(
    backend, queue, gate, options
) -> None:
    task_id = await queue.using(**options).enqueue(visit, gate)
    assert await queue.cancel(task_id)
    result = await queue.get_result(task_id, timeout=0)
    await Worker(backend).drain()

    assert (result.status, result.reason, result.attempt) == ("cancelled", "user", 0)
    assert gate.starts == 0
    assert await queue.get_result(task_id, timeout=0) == result


async def test_a_task_that_runs_is_interrupted(backend, queue, gate) -> None:
    task_id = await queue.enqueue(hold, gate)
    async with Worker(backend, poll_interval=60) as worker:
        await until(lambda: gate.starts == 1)
        assert await queue.cancel(task_id)
        result = await queue.get_result(task_id, timeout=10)
        assert worker._running
    assert (result.status, result.reason, result.attempt) == ("cancelled", "user", 1)
    assert gate.interrupts == 1


async def test_a_task_in_a_thread_is_cancelled_and_keeps_its_slot_until_it_returns(
    backend, queue, gate
) -> None:
    task_id = await queue.enqueue(hold_thread, gate, "no longer wanted")
    next_one = await queue.enqueue(visit, gate, "next")
    async with Worker(backend, poll_interval=0.02):
        await until(lambda: gate.starts == 1)
        assert await queue.cancel(task_id)
        result = await queue.get_result(task_id, timeout=10)
        assert (result.status, result.reason) == ("cancelled", "user")
        await stays(lambda: gate.starts == 1)
        gate.open()
        assert await queue.result(next_one, timeout=10) == "next"
    assert await queue.get_result(task_id, timeout=0) == result


async def test_a_task_that_has_ended_stays_as_it_ended(backend, queue, gate) -> None:
    ids = [
        await queue.enqueue(visit, gate, "value"),
        await queue.enqueue(boom),
        await queue.using(delay=60).enqueue(visit, gate),
    ]
    await queue.cancel(ids[2])
    await Worker(backend).drain()
    before = [await queue.get_result(task_id, timeout=0) for task_id in ids]

    assert [await queue.cancel(task_id) for task_id in ids] == [False] * 3
    assert [await queue.get_result(task_id, timeout=0) for task_id in ids] == before
    assert [result.status for result in before] == ["success", "failed", "cancelled"]


async def test_a_task_that_nobody_knows_cannot_be_cancelled(queue) -> None:
    with pytest.raises(TaskNotFoundError, match="nobody") as caught:
        await queue.cancel("nobody")
    assert caught.value.task_id == "nobody"


@pytest.mark.parametrize("wrong", ["", None, 5, "a\nb", "x" * 256], ids=lambda v: repr(v)[:10])
async def test_an_id_must_be_one(queue, wrong) -> None:
    with pytest.raises(ValidationError, match="task_id"):
        await queue.cancel(wrong)


async def test_cancelling_twice_is_cancelling(backend, queue, gate) -> None:
    task_id = await queue.enqueue(hold, gate)
    async with Worker(backend):
        await until(lambda: gate.starts == 1)
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(queue.cancel, task_id)
        assert (await queue.get_result(task_id, timeout=10)).status == "cancelled"
    assert (gate.starts, gate.interrupts) == (1, 1)


async def test_a_cancelled_task_is_not_tried_again(backend, queue, gate) -> None:
    retry = Retry(attempts=5, delay=0)
    task_id = await queue.using(retry=retry).enqueue(raise_when_interrupted, gate)
    async with Worker(backend):
        await until(lambda: gate.starts == 1)
        await queue.cancel(task_id)
        result = await queue.get_result(task_id, timeout=10)
        await stays(lambda: gate.starts == 1)
    assert (result.status, result.reason, result.attempt) == ("cancelled", "user", 1)


async def test_a_task_that_returns_all_the_same_has_succeeded(backend, queue, gate) -> None:
    task_id = await queue.enqueue(return_although_interrupted, gate)
    async with Worker(backend):
        await until(lambda: gate.starts == 1)
        await queue.cancel(task_id)
        assert await queue.result(task_id, timeout=10) == "done all the same"


async def test_a_cancel_that_meets_a_stop_is_not_lost(backend, queue, gate) -> None:
    task_id = await queue.enqueue(hold_thread, gate)
    worker = Worker(backend)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        tasks.start_soon(worker.stop, 0)
        await queue.cancel(task_id)
    gate.open()
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, gate.starts) in {("cancelled", 1), ("success", 2)}
    if result.status == "success":
        pytest.fail("cancel() returned True, and the task was run again")


async def test_a_task_on_another_backend_object_is_interrupted_within_a_second_or_so(
    sqlite_path, gate
) -> None:
    async with SQLiteBackend(sqlite_path) as here, SQLiteBackend(sqlite_path) as there:
        queue = TaskQueue(here)
        task_id = await queue.enqueue(hold, gate)
        async with Worker(there, poll_interval=0.02):
            await until(lambda: gate.starts == 1)
            assert await queue.cancel(task_id)
            result = await queue.get_result(task_id, timeout=2.5)
    assert result is not None
    assert (result.status, result.reason) == ("cancelled", "user")
