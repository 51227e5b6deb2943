"""The backends of sitq, held to what is asked of any."""

from pathlib import Path

from sitq import MemoryBackend, SQLiteBackend
from sitq.testing.conformance import BackendSuite


class TestMemoryBackend(BackendSuite):
    making = "from sitq import MemoryBackend\nbackend = MemoryBackend()"
    outlives_its_process = False

    def new_backend(self, folder: Path) -> MemoryBackend:
        return MemoryBackend()


class TestSQLiteBackend(BackendSuite):
    making = "from sitq import SQLiteBackend\nbackend = SQLiteBackend(folder / 'tasks.db')"

    def new_backend(self, folder: Path) -> SQLiteBackend:
        return SQLiteBackend(folder / "tasks.db")
