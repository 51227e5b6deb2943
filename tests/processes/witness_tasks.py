"""Tasks that leave a witness: a line in a file, written by one `write` to an O_APPEND file.

A line is written after the fact, so a kill may lose one and never invents one. It bears the time
on the clock that all processes of the machine share.
"""

import os
import time

import anyio


def _note(log: str, *words: object) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        line = " ".join(map(str, (*words, os.getpid(), time.monotonic_ns()))) + "\n"
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


async def work(log: str, number: int, seconds: float) -> int:
    _note(log, "start", number)
    await anyio.sleep(seconds)
    _note(log, "end", number)
    return number


def block(log: str, number: int, seconds: float) -> int:
    _note(log, "start", number)
    time.sleep(seconds)
    _note(log, "end", number)
    return number


async def die(log: str, number: int) -> None:
    _note(log, "start", number)
    os._exit(42)
