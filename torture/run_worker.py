"""A worker in a process of its own, as `sitq worker` runs it: `run_worker FILE LOOP SLOTS LEASE`."""

import logging
import sys

from sitq import SQLiteBackend, Worker
from sitq.cli import worker as cli
from torture import witness

GRACE = 2.0
"""Seconds that tasks have after the first signal."""


def main(path: str, loop: str, slots: str, lease: str) -> None:
    logging.basicConfig(level=logging.ERROR)
    witness.install()
    worker = Worker(
        SQLiteBackend(path), max_concurrency=int(slots), poll_interval=0.2, lease_for=float(lease)
    )
    cli.run(worker, grace=GRACE, trio=loop == "trio")


if __name__ == "__main__":
    main(*sys.argv[1:])
