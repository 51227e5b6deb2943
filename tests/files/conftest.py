"""What disks and files do to a queue: stores, programs and crews to do it to."""

from tests.adapters.conftest import open_store, run_program
from tests.processes.conftest import crew, tasks

__all__ = ["crew", "open_store", "run_program", "tasks"]
