"""Every async test runs on every event loop, and on every backend that it asks for."""

import faulthandler
import os
import threading

import pytest
from hypothesis import settings

from sitq import MemoryBackend, SQLiteBackend
from tests.private_postgres import running_server

# In CI the same examples every time, so that a red run says something about the change; fresh ones
# are drawn wherever else the tests are run.
settings.register_profile("ci", derandomize=True)
if "CI" in os.environ:
    settings.load_profile("ci")

LOOPS = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.fixture(params=LOOPS.values(), ids=LOOPS)
def anyio_backend(request):
    return request.param


@pytest.fixture(autouse=True)
def _no_test_hangs():
    """Show where every thread stands, and end the run, if a test takes five minutes."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def sqlite_path(tmp_path):
    return str(tmp_path / "tasks.db")


@pytest.fixture(scope="session")
def postgres_server():
    """One for all tests of this process."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_dsn(postgres_server):
    """A fresh database, gone after the test."""
    name = postgres_server.create_database()
    yield postgres_server.dsn(name)
    postgres_server.drop_database(name)


def pytest_terminal_summary(terminalreporter):
    """Say aloud what a machine without Postgres has not tested."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)}
    for reason in sorted(reasons):
        if "no Postgres server" in reason:
            terminalreporter.write_line(f"NOT TESTED: {reason}", red=True, bold=True)


@pytest.fixture(params=["memory", "sqlite"])
def make_backend(request, sqlite_path):
    """Make a backend, with options of the caller's choice."""

    def make(**options):
        if request.param == "memory":
            return MemoryBackend(**options)
        return SQLiteBackend(sqlite_path, **options)

    make.kind = request.param
    return make


@pytest.fixture
async def backend(make_backend):
    """A fresh backend, closed at the end; no thread of ours is left behind then."""
    before = set(threading.enumerate())
    backend = make_backend()
    yield backend
    await backend.close()
    left = [t for t in threading.enumerate() if t not in before and _is_ours(t)]
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]


def _is_ours(thread) -> bool:
    """Say whether it is a store's, a lease's, or aiosqlite's."""
    return thread.name.startswith("sitq") or "_connection_worker_thread" in thread.name
