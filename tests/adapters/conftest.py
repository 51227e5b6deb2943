"""A store in the thread of the test, and programs run by a Python of their own."""

import subprocess
import sys
import textwrap

import pytest

from sitq.adapters.sqlite import SqliteSettings, SqliteStore


@pytest.fixture
def open_store(sqlite_path):
    """Open a store on the file of the test; all are closed at its end."""
    stores = []

    def open_(path=sqlite_path, **settings) -> SqliteStore:
        store = SqliteStore(SqliteSettings(str(path), **settings))
        stores.append(store)
        store.open()
        return store

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def run_program():
    """Run a program to its end in a Python of its own; return what it printed, line by line."""

    def run(source: str, *args: object, seconds: float = 20.0) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(source), *map(str, args)],
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr}"
        return done.stdout.splitlines()

    return run
