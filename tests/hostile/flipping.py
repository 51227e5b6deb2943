"""A program: the same task once for every bit of its payload, which is flipped there.

`python -m tests.hostile.flipping LOOP PATH` prints how many bits there were, how many of the tasks
are parked, and how many say too little. The function goes by value: a flipped bit of it may be an
instruction, if it is ever read.
"""

import sqlite3
import sys
from collections import Counter
from contextlib import closing

import anyio

from sitq import SQLiteBackend, TaskQueue, Worker
from sitq.task import Task
from tests.hostile.tasks import pass_by


def repeat(what: str, times: int) -> str:
    return what * times


async def main(path: str) -> None:
    backend = SQLiteBackend(path)
    queue = TaskQueue(backend)
    first = await queue.enqueue(repeat, "spam", times=3)
    with closing(sqlite3.connect(path)) as db:
        ((payload,),) = db.execute("SELECT payload FROM sitq_tasks").fetchall()
    bits = 8 * len(payload)
    ids = await queue.enqueue_many([Task(repeat, "spam", times=3)] * bits)
    with closing(sqlite3.connect(path)) as db:
        for bit, task_id in enumerate(ids):
            flipped = bytearray(payload)
            flipped[bit // 8] ^= 1 << bit % 8
            db.execute("UPDATE sitq_tasks SET payload = ? WHERE id = ?", (flipped, task_id))
        db.commit()
    await Worker(backend, max_concurrency=4).drain()
    last = await queue.enqueue(pass_by)
    await Worker(backend).drain()
    assert await queue.result(first, timeout=0) == "spam" * 3
    assert await queue.result(last, timeout=0) == "passed"
    await backend.close()
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT id, state, error FROM sitq_tasks").fetchall()
    ended = Counter(state for task_id, state, _ in rows if task_id in set(ids))
    unclear = [error for _, state, error in rows if state == "parked" and len(error) < 20]
    print(bits, ended["parked"], len(unclear))


if __name__ == "__main__":
    anyio.run(main, sys.argv[2], backend=sys.argv[1])
