"""A worker in a process of its own: `run_worker.py FILE LOOP SLOTS LEASE`."""

import logging
import os
import sys
import traceback
from functools import partial

import anyio

from sitq import SQLiteBackend, Worker


async def main(path: str, slots: int, lease_for: float) -> None:
    worker = Worker(
        SQLiteBackend(path), max_concurrency=slots, poll_interval=0.05, lease_for=lease_for
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        print("up", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        await worker.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    path, loop, slots, lease_for = sys.argv[1:]
    try:
        anyio.run(partial(main, path, int(slots), float(lease_for)), backend=loop)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the thread that reads the input does not end
