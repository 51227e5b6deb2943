"""What is counted: tasks that do nothing are enqueued, drained and asked for, in virtual time.

    python -m benchmarks.hot_path FEW MANY [--calls]

In a virtual run nothing is left to a thread: the store, a file, answers in the loop. So there is one
order in which all happens, and the same instructions each time, but for what the kernel decides.

Each part is played in a fork of its own, which has everything imported, and a line is printed for
each: the loop, the part, how many tasks, its process, and with `--calls` the calls of Python
functions. valgrind counts each process by itself, with all that came before its fork.
"""

import cProfile
import os
import pstats
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.tasks import answer
from sitq import SQLiteBackend, Task, TaskQueue, Worker, testing

LOOPS: Final = ("asyncio", "trio")
PARTS: Final = {
    "enqueue": "enqueue, one after the other",
    "bulk": "enqueue, 1,000 at once",
    "drain": "drain, 100 at a time",
    "results": "ask for each result",
}
NEEDS: Final = {"drain": "bulk", "results": "drain"}
"""What is played before, and is not of this part."""
AT_ONCE: Final = 1000


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


def _played(loop: str, part: str, tasks: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = str(Path(folder, "tasks.db"))
        testing.run(play, path, part, tasks, backend=loop)  # type: ignore[arg-type]


def _calls(loop: str, part: str, tasks: int) -> int:
    profile = cProfile.Profile()
    profile.runcall(_played, loop, part, tasks)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def main() -> None:
    few, many = int(sys.argv[1]), int(sys.argv[2])
    for loop in LOOPS:
        _played(loop, "results", 1)  # it imports what is imported late
        for part in PARTS:
            for tasks in (few, many):
                sys.stdout.flush()
                child = os.fork()
                if child:
                    os.waitpid(child, 0)
                    continue
                count = ""
                if "--calls" in sys.argv:
                    count = str(_calls(loop, part, tasks))
                else:
                    _played(loop, part, tasks)
                print(loop, part, tasks, os.getpid(), count, flush=True)
                os._exit(0)


if __name__ == "__main__":
    main()
