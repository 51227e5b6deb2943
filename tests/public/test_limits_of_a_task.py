"""How long a task may run, how often it is tried, and what each attempt costs."""

import sqlite3
import time
from contextlib import AsyncExitStack, closing
from datetime import timedelta

import anyio
import pytest
from gated_tasks import Gate, hold, hold_thread, stays, until, visit

from sitq import MemoryBackend, Retry, Task, TaskQueue, Worker
from sitq.protocol.ops import Moment

pytestmark = pytest.mark.anyio


async def fail(gate: Gate, times: int) -> str:
    """Fail so many times, then succeed."""
    gate.enter()
    gate.leave()
    if gate.starts <= times:
        raise LookupError(f"failure {gate.starts}")
    return f"attempt {gate.starts}"


def fail_in_a_thread(gate: Gate, times: int) -> str:
    gate.enter()
    gate.leave()
    if gate.starts <= times:
        raise LookupError(f"failure {gate.starts}")
    return f"attempt {gate.starts}"


async def clean_up(gate: Gate) -> None:
    try:
        await anyio.sleep(10)
    finally:
        gate.enter("cleaned up")
        gate.leave()


async def fail_to_clean_up() -> None:
    try:
        await anyio.sleep(10)
    finally:
        raise LookupError("from the cleaning up")


# -- timeout ---------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.03, timedelta(milliseconds=30)], ids=repr)
async def test_a_task_that_runs_longer_than_its_timeout_fails(
    backend, queue, gate, timeout
) -> None:
    task_id = await queue.using(timeout=timeout).enqueue(hold, gate)
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)

    assert (result.status, result.reason, result.attempt) == ("failed", "timeout", 1)
    assert (result.error_type, gate.interrupts) == ("TimeoutError", 1)
    assert result.error == "the task ran longer than its timeout of 0.03 s"
    assert result.finished_at - result.started_at >= timedelta(milliseconds=29)


async def test_a_task_that_ends_within_its_timeout_is_not_touched(backend, queue, gate) -> None:
    task_id = await queue.using(timeout=60).enqueue(visit, gate, "in time")
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == "in time"


async def test_a_task_that_timed_out_may_clean_up(backend, queue, gate) -> None:
    ids = await queue.using(timeout=0.03).enqueue_many(
        [Task(clean_up, gate), Task(fail_to_clean_up)]
    )
    await Worker(backend, max_concurrency=2).drain()
    assert gate.order == ["cleaned up"]
    assert [(await queue.get_result(id_, timeout=0)).reason for id_ in ids] == ["timeout"] * 2


async def test_a_thread_that_timed_out_keeps_its_slot_until_it_returns(
    backend, queue, gate
) -> None:
    slow = await queue.using(timeout=0.03).enqueue(hold_thread, gate, "too late")
    next_one = await queue.enqueue(visit, gate, "next")
    async with Worker(backend, poll_interval=0.02):
        result = await queue.get_result(slow, timeout=10)
        assert (result.status, result.reason) == ("failed", "timeout")
        await stays(lambda: gate.starts == 1, 0.1)
        gate.open()
        assert await queue.result(next_one, timeout=10) == "next"
    assert gate.peak == 1
    assert await queue.get_result(slow, timeout=0) == result  # what came too late changed nothing


async def test_every_task_has_a_timeout_of_its_own(backend, queue, gate) -> None:
    ids = [
        await queue.using(timeout=timeout).enqueue(hold, gate, timeout)
        for timeout in (0.09, 0.03, 60, 0.06)
    ]
    async with Worker(backend, max_concurrency=4):
        results = [await queue.get_result(ids[n], timeout=10) for n in (0, 1, 3)]
        gate.open()
        assert await queue.result(ids[2], timeout=10) == 60
    assert [result.reason for result in results] == ["timeout"] * 3
    first, second, third = (result.finished_at for result in results)
    assert second <= third <= first


# -- retry -----------------------------------------------------------------------------


async def test_a_task_is_tried_once_if_nothing_else_is_said(backend, queue, gate) -> None:
    task_id = await queue.enqueue(fail, gate, 1)
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.attempt, gate.starts) == ("failed", 1, 1)


@pytest.mark.parametrize("function", [fail, fail_in_a_thread])
async def test_a_task_is_tried_until_it_succeeds(backend, queue, gate, function) -> None:
    task_id = await queue.using(retry=Retry(delay=0.01)).enqueue(function, gate, 2)
    async with Worker(backend, poll_interval=60):
        assert await queue.result(task_id, timeout=10) == "attempt 3"
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.attempt, gate.starts) == ("success", 3, 3)
    assert (result.error, result.error_type, result.traceback) == (None, None, None)


async def test_a_task_fails_after_its_last_attempt_with_its_last_error(
    backend, queue, gate
) -> None:
    task_id = await queue.using(retry=Retry(attempts=3, delay=0)).enqueue(fail, gate, 99)
    async with Worker(backend):
        result = await queue.get_result(task_id, timeout=10)
    assert (result.status, result.attempt, result.error) == ("failed", 3, "failure 3")
    assert gate.starts == 3


async def test_a_timeout_uses_up_an_attempt(backend, queue, gate) -> None:
    retry = Retry(attempts=2, delay=0)
    task_id = await queue.using(retry=retry, timeout=0.02).enqueue(hold, gate)
    async with Worker(backend):
        result = await queue.get_result(task_id, timeout=10)
    assert (result.status, result.reason, result.attempt) == ("failed", "timeout", 2)
    assert (gate.starts, gate.interrupts) == (2, 2)


async def test_a_shutdown_uses_up_none(backend, queue, gate) -> None:
    task_id = await queue.using(retry=Retry(attempts=1)).enqueue(hold, gate)
    for round_ in range(3):
        async with Worker(backend, grace=0):
            await until(lambda round_=round_: gate.starts == round_ + 1)
    gate.open()
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.attempt, gate.starts) == ("success", 1, 4)


async def test_a_task_that_waits_for_its_next_attempt_has_not_ended(
    backend, queue, gate, view
) -> None:
    task_id = await queue.using(retry=Retry(delay=3600)).enqueue(fail, gate, 1)
    await Worker(backend).drain()  # returns: nothing is due
    assert await queue.get_result(task_id, timeout=0) is None
    row = view.row(task_id)
    assert (row.state, row.attempt, row.error) == ("scheduled", 1, "failure 1")
    assert await queue.cancel(task_id)
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.reason, result.attempt) == ("cancelled", "user", 1)


# -- back-off --------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000_000_000

    def __call__(self) -> Moment:
        return Moment(self.now_ms, 0, "a clock moved by hand")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def clocked(clock):
    backend = MemoryBackend(moment=clock)
    yield TaskQueue(backend)
    await backend.close()


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [
        (Retry(attempts=5, delay=10, factor=3, jitter=0), [10, 30, 90, 270]),
        (Retry(attempts=5, delay=10, factor=1, jitter=0), [10, 10, 10, 10]),
        (Retry(attempts=5, delay=10, max_delay=25, jitter=0), [10, 20, 25, 25]),
        (Retry(attempts=4, delay=timedelta(minutes=1), jitter=0), [60, 120, 240]),
        (Retry(attempts=4, jitter=0), [1, 2, 4]),
        (Retry(attempts=4, delay=100, max_delay=timedelta(seconds=5), jitter=0), [5, 5, 5]),
    ],
    ids=str,
)
async def test_the_pauses_grow_as_was_asked(clocked, clock, gate, retry, seconds) -> None:
    await clocked.using(retry=retry).enqueue(fail, gate, 99)
    worker = Worker(clocked.backend)
    await worker.drain()
    for attempt, pause in enumerate(seconds, start=1):
        clock.now_ms += pause * 1000 - 1
        await worker.drain()
        assert gate.starts == attempt
        clock.now_ms += 1
        await worker.drain()
        assert gate.starts == attempt + 1


async def test_jitter_spreads_the_pauses_downwards_and_stays_in_its_bounds(
    clocked, clock, gate
) -> None:
    retry = Retry(attempts=2, delay=100, jitter=0.5)
    await clocked.using(retry=retry).enqueue_many([Task(fail, gate, 999) for _ in range(100)])
    worker = Worker(clocked.backend, max_concurrency=10)
    await worker.drain()
    clock.now_ms += 49_999
    await worker.drain()
    assert gate.starts == 100  # not one in the first half of the pause
    clock.now_ms += 25_000
    await worker.drain()
    assert 110 < gate.starts < 190
    clock.now_ms += 25_001
    await worker.drain()
    assert gate.starts == 200


@pytest.mark.parametrize("make_backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("jitter", [0, 0.25, 1])
async def test_the_stored_schedule_is_the_promised_one(backend, queue, gate, jitter) -> None:
    retry = Retry(attempts=2, delay=100, jitter=jitter)
    await queue.using(retry=retry).enqueue_many([Task(fail, gate, 999) for _ in range(50)])
    before = time.time()
    await Worker(backend, max_concurrency=50).drain()
    after = time.time()
    with closing(sqlite3.connect(backend.path)) as db:
        rows = db.execute("SELECT state, run_at_ms / 1000.0 FROM sitq_tasks").fetchall()

    assert {state for state, _ in rows} == {"scheduled"}
    due = [at for _, at in rows]
    assert min(due) >= before + 100 * (1 - jitter) - 0.001
    assert max(due) <= after + 100 + 0.001
    spread = max(due) - min(due)
    assert spread <= after - before if jitter == 0 else spread > 50 * jitter


async def test_a_pause_that_would_overflow_any_date_is_cut(backend, queue, gate, view) -> None:
    retry = Retry(attempts=1000, delay=86400 * 365, factor=1000, max_delay=86400 * 36500)
    task_id = await queue.using(retry=retry).enqueue(fail, gate, 999)
    await Worker(backend).drain()
    assert view.state(task_id) == "scheduled"


# -- deaths of workers -----------------------------------------------------------------


async def test_how_often_a_worker_died_counts_apart_from_the_attempts(gate) -> None:
    """The clock of the leases jumps, as if all workers had been suspended: the next one rescues."""

    class Suspended(Clock):
        lease_ms = 0

        def __call__(self) -> Moment:
            return Moment(self.now_ms, self.lease_ms, "a clock moved by hand")

    clock = Suspended()
    backend = MemoryBackend(moment=clock)
    queue = TaskQueue(backend)
    task_id = await queue.using(max_crashes=2).enqueue(hold, gate)
    async with AsyncExitStack() as workers:
        for crashes in (0, 1):
            await workers.enter_async_context(Worker(backend, grace=0))
            await until(lambda crashes=crashes: gate.starts == crashes + 1)
            clock.lease_ms += 31_000
        await workers.enter_async_context(Worker(backend, grace=0))
        result = await queue.get_result(task_id, timeout=10)
    await backend.close()

    assert (result.status, result.reason, result.error_type) == ("failed", "crash", "WorkerDied")
    assert result.crashes == 2
    assert "the worker died 2 times while running this task" in result.error


def test_the_default_retry_is_documented() -> None:
    assert Retry() == Retry(attempts=3, delay=1.0, factor=2.0, max_delay=300.0, jitter=0.1)
