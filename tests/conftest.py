"""Every async test runs on every event loop, and on every backend that it asks for."""

import faulthandler
import gc
import threading

import pytest

from sitq import MemoryBackend, SQLiteBackend

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
    """Show where every thread stands, and end the run, if a test takes two minutes."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def sqlite_path(tmp_path):
    return str(tmp_path / "tasks.db")


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
    gc.collect()
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("sitq")]
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]
