"""What is counted: tasks that do nothing are enqueued, drained and asked for, in virtual time.

    python -m benchmarks.hot_path LOOP PART TASKS

In a virtual run nothing is left to a thread: the store, a file, answers in the loop. So there is one
order in which all happens, and the same instructions each time, but for what the kernel decides.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.tasks import answer
from sitq import SQLiteBackend, Task, TaskQueue, Worker, testing

PARTS = ("enqueue", "bulk", "drain", "results")
"""Each is done after those before it, but `drain` after `bulk` alone."""
AT_ONCE = 1000


async def play(path: str, part: str, tasks: int) -> None:
    async with SQLiteBackend(path, durability="normal") as backend:
        queue = TaskQueue(backend)
        if part == "enqueue":
            for _ in range(tasks):
                await queue.enqueue(answer)
            return
        ids = []
        for start in range(0, tasks, AT_ONCE):
            many = min(AT_ONCE, tasks - start)
            ids += await queue.enqueue_many([Task(answer)] * many)
        if part == "bulk":
            return
        await Worker(backend, max_concurrency=100).drain()
        if part == "results":
            for task_id in ids:
                await queue.result(task_id)


def main() -> None:
    loop, part, tasks = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = str(Path(folder, "tasks.db"))
        testing.run(play, path, part, int(tasks), backend=loop)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
