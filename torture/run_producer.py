"""A producer in a process of its own: `run_producer WHERE LOOP SEED FIRST PAUSE [POISON]`.

It enqueues tasks of all styles, one at a time and many together, under ids of its own and under
drawn ones, asks twice, waits for some and cancels some; until its input is closed.
Of 1,000 of its tasks, *POISON* take their worker down.
"""

import random
import sys
from contextlib import suppress
from functools import partial

import anyio

from sitq import EnqueueUnknown, Retry, StoreError, Task, TaskNotFoundError, TaskQueue
from sitq.protocol.lifecycle import TaskState
from sitq.task import DEFAULTS
from sitq.testing.simulation.history import Kind
from torture import witness
from torture.tasks import STYLES, poison
from torture.where import is_postgres, open_backend
from torture.witness import note

LANES = 4


class Producer:
    def __init__(self, where: str, seed: int, first: int, pause: float, poisonous: int) -> None:
        self._queue = TaskQueue(open_backend(where))
        self._away = (StoreError, EnqueueUnknown) if is_postgres(where) else ()
        self._dice = random.Random(seed)
        self._next = first
        self._pause = pause
        self._often = {style: often for style, (often, _) in STYLES.items()} | {poison: poisonous}

    async def run(self) -> None:
        async with anyio.create_task_group() as lanes:
            for _ in range(LANES):
                lanes.start_soon(self._lane)
            await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
            lanes.cancel_scope.cancel()

    async def _lane(self) -> None:
        dice = self._dice
        while True:
            await anyio.sleep(self._pause * dice.random())
            tasks = [self._task() for _ in range(dice.choice((1, 1, 1, 5, 10)))]
            ids = await self._enqueue(tasks)
            if ids and dice.random() < 0.1:
                await self._cancel(dice.choice(ids))
            if ids and dice.random() < 0.1:
                await self._wait(dice.choice(ids), dice.choice((0.0, 0.5, 5.0)))

    def _task(self) -> Task[object]:
        dice, number = self._dice, self._next
        self._next += 1
        (style,) = dice.choices(list(self._often), list(self._often.values()))
        _, longest = STYLES[style]
        task = Task(style, number, longest * dice.random())
        if dice.random() < 0.3:
            task = task.using(task_id=f"own-{number}")
        if dice.random() < 0.1:
            task = task.using(delay=dice.random(), priority=dice.choice((-1, 0, 1)))
        if style.__name__ == "fails":
            task = task.using(retry=Retry(attempts=3, delay=0.05))
        return task

    async def _enqueue(self, tasks: list[Task[object]]) -> list[str]:
        own = tuple(task.options(DEFAULTS).task_id or "" for task in tasks)
        for task_id in filter(None, own):
            note(Kind.ENQUEUE, value=(task_id,))
        try:
            ids = await self._queue.enqueue_many(tasks)
        except EnqueueUnknown as error:
            note(Kind.UNKNOWN, value=error.task_ids)
            return []
        except self._away:  # what was drawn for it is not known here
            note(Kind.REFUSED, value=tuple(filter(None, own)))
            return []
        note(Kind.ENQUEUED, value=tuple(ids))
        if all(own) and self._dice.random() < 0.2:  # and once more, as one does who was not told
            note(Kind.ENQUEUE, value=own)
            with suppress(*self._away):
                note(Kind.ENQUEUED, value=tuple(await self._queue.enqueue_many(tasks)))
        return list(ids)

    async def _cancel(self, task_id: str) -> None:
        note(Kind.CANCEL, task_id)
        with suppress(*self._away):
            await self._queue.cancel(task_id)

    async def _wait(self, task_id: str, timeout: float) -> None:
        note(Kind.WAIT, task_id, value=timeout)
        try:
            result = await self._queue.get_result(task_id, timeout)
        except TaskNotFoundError:
            result = None
        except self._away:
            return  # nobody was told anything
        if result is None:
            note(Kind.GAVE_UP, task_id)
        else:
            note(Kind.READ, task_id, value=(TaskState(result.status.value), result.value))


def main(where: str, loop: str, *numbers: str) -> None:
    witness.install(where)
    seed, first, pause, poisonous, *_ = *numbers, "10"
    producer = Producer(where, int(seed), int(first), float(pause), int(poisonous))
    anyio.run(partial(producer.run), backend=loop)


if __name__ == "__main__":
    main(*sys.argv[1:])
