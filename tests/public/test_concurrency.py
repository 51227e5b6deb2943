"""As many tasks run at once as were asked for, and never one more."""

import pytest
from crowd_tasks import join, join_in_a_thread
from gated_tasks import hold, hold_thread, stays, until

from sitq import Task, Worker

pytestmark = pytest.mark.anyio

SHARE = 0.95
"""Of the bound: what the peak must reach."""


async def test_three_thousand_coroutines_at_five_hundred(backend, queue, gate) -> None:
    crowd = int(500 * SHARE)
    await queue.enqueue_many([Task(join, gate, crowd)] * 3000)
    await Worker(backend, max_concurrency=500).drain()

    assert crowd <= gate.peak <= 500
    assert (gate.starts, gate.ends, gate.running) == (3000, 3000, 0)


async def test_a_hundred_and_twenty_eight_threads_at_sixty_four(backend, queue, gate) -> None:
    crowd = int(64 * SHARE)
    ids = await queue.enqueue_many([Task(join_in_a_thread, gate, crowd)] * 128)
    await Worker(backend, max_concurrency=64).drain()
    threads = {await queue.result(task_id, timeout=0) for task_id in ids}

    assert crowd <= gate.peak <= 64
    assert (gate.starts, gate.ends) == (128, 128)
    assert crowd <= len(threads) <= 128


async def test_one_at_a_time_is_the_default(backend, queue, gate) -> None:
    await queue.enqueue_many([Task(hold, gate)] * 5)
    async with Worker(backend):
        await until(lambda: gate.starts == 1)
        await stays(lambda: gate.starts == 1)
        gate.open()
        await until(lambda: gate.ends == 5)
    assert gate.peak == 1


async def test_coroutines_and_threads_share_the_bound(backend, queue, gate) -> None:
    await queue.enqueue_many([Task(hold, gate), Task(hold_thread, gate)] * 4)
    async with Worker(backend, max_concurrency=3):
        await until(lambda: gate.running == 3)
        await stays(lambda: gate.running == 3)
        gate.open()
        await until(lambda: gate.ends == 8)
    assert gate.peak == 3


async def test_a_thousand_at_once(backend, queue, gate) -> None:
    await queue.enqueue_many([Task(hold, gate)] * 1001)
    async with Worker(backend, max_concurrency=1000, grace=0):
        await until(lambda: gate.running == 1000)
        await stays(lambda: gate.starts == 1000)
        gate.open()
        await until(lambda: gate.ends == 1001)
    assert gate.peak == 1000
