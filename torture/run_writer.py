"""A process that writes and checkpoints without pause: `run_writer FILE SEED SECONDS`.

It enqueues tasks, cancels some of them, and now and then closes its connections and opens others.
What was acknowledged is written to its witness.
"""

import random
import sys
import time
from typing import Any

import sitq.adapters.sqlite
from sitq import SQLiteBackend, SyncTaskQueue, Task
from sitq.testing.simulation.history import Kind
from torture import witness
from torture.wal import nothing

CHECKPOINT_AT = 16 * 1024
"""Bytes: a checkpoint every few commits, and not every thousand."""


def main(path: str, seed: str, seconds: str) -> None:
    dice = random.Random(int(seed))
    here = witness.open_witness()
    module: Any = sitq.adapters.sqlite
    checkpoint = module.SqliteStore._checkpoint

    def noted(store: object, db: object) -> None:
        checkpoint(store, db)
        here.note(Kind.FAULT, value="checkpoint")

    module.CHECKPOINT_AT, module.SqliteStore._checkpoint = CHECKPOINT_AT, noted
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        with SyncTaskQueue(SQLiteBackend(path)) as queue:
            for _ in range(dice.randint(1, 200)):
                size = dice.choice((0, 100, 5000))
                tasks = [Task(nothing, b"x" * size) for _ in range(dice.choice((1, 1, 20)))]
                ids = queue.enqueue_many(tasks)
                here.note(Kind.ENQUEUED, value=tuple(ids))
                if dice.random() < 0.3 and queue.cancel(ids[0]):
                    here.note(Kind.CANCELLED, ids[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
