"""A producer in a process of its own: `run_producer.py FILE LOG FIRST COUNT`.

It prints each id after the enqueue of it has returned.
"""

import sys

import anyio
import witness_tasks

from sitq import SQLiteBackend, TaskQueue


async def main(path: str, log: str, first: int, count: int) -> None:
    queue = TaskQueue(SQLiteBackend(path))

    async def produce(numbers: range) -> None:
        for number in numbers:
            task_id = await queue.enqueue(witness_tasks.work, log, number, 0.0)
            sys.stdout.write(f"{task_id} {number}\n")
            sys.stdout.flush()

    async with anyio.create_task_group() as tasks:
        for lane in range(10):
            tasks.start_soon(produce, range(first + lane, first + count, 10))


if __name__ == "__main__":
    path, log, first, count = sys.argv[1:]
    anyio.run(main, path, log, int(first), int(count))
