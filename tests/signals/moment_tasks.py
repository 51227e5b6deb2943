"""What the workers of a trial load and run: tasks that leave a witness.

`SITQ_TRIAL` names the queue file, and marks every process of a trial. A line is written after the
fact, by one `write`, so a kill may lose one and never invents one.
"""

import os
import time

import anyio

from sitq import SQLiteBackend, TaskQueue

PATH = os.environ["SITQ_TRIAL"]
LOADS_FOR = float(os.environ.get("SITQ_TRIAL_LOADS_FOR", "0"))
HASTE = "SITQ_TRIAL_HASTE" in os.environ
"""The later worker only has to show that nothing is lost."""

queue = TaskQueue(SQLiteBackend(PATH))
time.sleep(LOADS_FOR)


def note(word: str, number: int) -> None:
    descriptor = os.open(f"{PATH}.witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{word} {number}\n".encode())
    finally:
        os.close(descriptor)


@queue.task
async def work(number: int, seconds: float) -> int:
    note("start", number)
    await anyio.sleep(0 if HASTE else seconds)
    note("end", number)
    return number
