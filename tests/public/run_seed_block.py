"""Runs one Python block of a document as a program: `run_seed_block.py DOCUMENT NUMBER LOOP`.

The blocks are fragments. What they leave undefined is defined here: their imports, a function,
a backend and a worker, and tasks for that worker to do. The text of the block itself is run as
it stands, with `await` allowed at its top level; nothing is closed behind it.

Seconds of waiting are cut short: a long `asyncio.sleep` returns as soon as no task is left, and
in no less than a tenth of a second.
"""

import ast
import asyncio
import inspect
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from sitq import SQLiteBackend, SyncTaskQueue, Task, TaskQueue, Worker

FILE = "tasks.db"
DONE = Path("done")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def my_function(arg: object) -> str:
    return f"my function has done {arg}"


def note(number: int) -> None:
    with DONE.open("a") as file:
        file.write(f"{number}\n")


def waiting() -> int:
    if not Path(FILE).exists():
        return 0
    with closing(sqlite3.connect(FILE, timeout=10)) as db:
        sql = "SELECT count(*) FROM sitq_tasks WHERE state IN ('queued', 'running')"
        return db.execute(sql).fetchone()[0]


_sleep = asyncio.sleep


async def sleep_less(delay: float, result: object = None) -> object:
    if delay < 1:
        return await _sleep(delay, result)
    loop = asyncio.get_running_loop()
    latest = loop.time() + delay
    await _sleep(0.1)
    while waiting() and loop.time() < latest:
        await _sleep(0.02)
    return result


def names_for(source: str) -> dict[str, object]:
    """Return what a block that begins in the middle may take for granted."""
    names: dict[str, object] = {"__name__": "__main__", "my_function": my_function}
    names |= {"asyncio": asyncio, "TaskQueue": TaskQueue, "Worker": Worker}
    if "backend = " not in source:
        backend = SQLiteBackend(FILE)
        names |= {"backend": backend, "worker": Worker(backend)}
        with SyncTaskQueue(backend) as queue:
            queue.enqueue_many([Task(note, number) for number in range(20)])
    return names


def main(document: str, number: int, loop: str) -> None:
    if loop == "uvloop":
        import uvloop

        asyncio.events.new_event_loop = uvloop.new_event_loop
    source = BLOCK.findall(Path(document).read_text("utf-8"))[number]
    asyncio.sleep = sleep_less
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, f"{document}, block {number}", "exec", flags=flags)
    names = names_for(source)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, names)
        return

    async def program() -> None:
        await eval(code, names)

    asyncio.run(program())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
