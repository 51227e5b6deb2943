"""Tasks that leave a witness: a line in a file, written by one `write` to an O_APPEND file.

A line is written after the fact, so a kill may lose one and never invents one.
"""

import os
import time

import anyio


def _note(log: str, *words: object) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(descriptor)


async def work(log: str, number: int, seconds: float) -> int:
    _note(log, "start", number, os.getpid())
    await anyio.sleep(seconds)
    _note(log, "end", number, os.getpid())
    return number


def block(log: str, number: int, seconds: float) -> int:
    _note(log, "start", number, os.getpid())
    time.sleep(seconds)
    _note(log, "end", number, os.getpid())
    return number


async def die(log: str, number: int) -> None:
    _note(log, "start", number, os.getpid())
    os._exit(42)
