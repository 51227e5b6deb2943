"""A second worker, in a process of its own: `run_watcher.py FILE UP`.

It makes the file UP once it is at work, and would take whatever it believes to be left behind.
"""

import os
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from sitq import SQLiteBackend, TaskQueue, Worker


async def main(path: str, up: str) -> None:
    backend = SQLiteBackend(path)
    queue = TaskQueue(backend, queue="for the watcher")
    worker = Worker(
        backend,
        max_concurrency=4,
        poll_interval=0.02,
        lease_for=1.0,
        queues=["default", "for the watcher"],
    )
    async with worker:
        assert await queue.result(await queue.enqueue(os.getpid), timeout=20) == os.getpid()
        await anyio.to_thread.run_sync(Path(up).touch)
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
