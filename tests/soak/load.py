"""Batches of mixed tasks, and whoever waits for them: all that a queue can be asked for."""

import itertools

import anyio

from sitq import Retry, TaskCancelled, TaskFailed, TaskQueue
from sitq.task import Task
from tests.soak import tasks
from tests.soak.tasks import Tracked

SHARE = 12
"""Kinds of tasks; a batch has as many of each."""
RETRY = Retry(attempts=2, delay=0.01, jitter=0)

_numbers = itertools.count()


class Load:
    def __init__(self, queue: TaskQueue) -> None:
        self.queue = queue
        self.enqueued = 0

    async def batch(self, size: int) -> None:
        """Enqueue some *size* tasks, wait for some, abandon some; return when all have ended."""
        each = max(1, size // SHARE)
        queue = self.queue
        plain = [
            Task(function, Tracked())
            for function in (
                tasks.give_back,
                tasks.give_back_in_thread,
                tasks.fail,
                tasks.fail_in_thread,
                tasks.fail_in_a_group,
                tasks.sleep_briefly,
            )
            for _ in range(each)
        ]
        limited = [Task(tasks.give_back, Tracked()).using(timeout=90_000) for _ in range(each)]
        timed_out = [Task(tasks.sleep_long, Tracked()).using(timeout=0.01) for _ in range(each)]
        retried = [
            Task(tasks.fail_once, Tracked(), str(next(_numbers))).using(retry=RETRY)
            for _ in range(each)
        ]
        never = [Task(tasks.give_back, Tracked()).using(delay=3600) for _ in range(each)]
        stopped = [Task(tasks.sleep_long, Tracked()) for _ in range(each)]
        ids = await queue.enqueue_many([*plain, *limited, *timed_out, *retried])
        cancelled = await queue.enqueue_many([*never, *stopped])
        single = [await queue.enqueue(tasks.give_back, Tracked()) for _ in range(each)]
        self.enqueued += len(ids) + len(cancelled) + len(single)
        async with anyio.create_task_group() as waiting:
            for task_id in single:
                waiting.start_soon(self._wait, task_id)
            for task_id in cancelled:
                waiting.start_soon(queue.cancel, task_id)
            for task_id in ids[::5]:
                waiting.start_soon(self._abandon, task_id)
            for task_id in (*ids, *cancelled):
                waiting.start_soon(self._wait, task_id)

    async def _wait(self, task_id: str) -> None:
        try:
            value = await self.queue.result(task_id, timeout=120)
        except (TaskFailed, TaskCancelled):
            return
        assert isinstance(value, Tracked)

    async def _abandon(self, task_id: str) -> None:
        with anyio.move_on_after(0.001):
            await self.queue.result(task_id)
