"""Tasks for two processes on one file: each notes its start and its end in a common log."""

import os
import time
from pathlib import Path

import anyio


def note(log: str, *words: object) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(descriptor)


async def _wait_for(path: str) -> None:
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
        await anyio.sleep(0.01)


async def block_the_loop(log: str, watched: str, seconds: float) -> str:
    """Once the watcher is up, keep the event loop from doing anything else."""
    note(log, "start", "block")
    await _wait_for(watched)
    time.sleep(seconds)  # noqa: ASYNC251  # which is what this is about
    note(log, "end", "block")
    return "blocked"


async def take_long(log: str, watched: str, seconds: float) -> str:
    """Be longer than any lease, without getting in anybody's way."""
    note(log, "start", "long")
    give_up_at = time.monotonic() + seconds
    await _wait_for(watched)
    while time.monotonic() < give_up_at:  # noqa: ASYNC110
        await anyio.sleep(0.05)
    note(log, "end", "long")
    return "took long"
