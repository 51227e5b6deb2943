"""A worker in a process of its own, as `sitq worker` runs it: `run_worker WHERE LOOP SLOTS LEASE`."""

import logging
import sys

from sitq import Worker
from sitq.cli import worker as cli
from torture import witness
from torture.where import open_backend

GRACE = 2.0
"""Seconds that tasks have after the first signal."""


def main(where: str, loop: str, slots: str, lease: str) -> None:
    logging.basicConfig(level=logging.ERROR)
    witness.install(where)
    worker = Worker(
        open_backend(where), max_concurrency=int(slots), poll_interval=0.2, lease_for=float(lease)
    )
    cli.run(worker, grace=GRACE, trio=loop == "trio")


if __name__ == "__main__":
    main(*sys.argv[1:])
