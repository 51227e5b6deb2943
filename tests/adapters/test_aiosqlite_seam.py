"""What `on_asyncio._Connection` needs of aiosqlite's protected names is there, and behaves.

A release of aiosqlite that changes one of them fails here, and says which.
"""

import gc
import sqlite3
import threading
import warnings

import aiosqlite
import anyio.to_thread
import pytest

from sitq.adapters.on_asyncio import _Connection

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}  # aiosqlite knows no other loop


def connect_in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False)


async def submitted(connection, function) -> None:
    """Have *function* called in the thread; return once it was."""
    called = threading.Event()
    connection.submit(lambda: (function(), called.set()))
    assert await anyio.to_thread.run_sync(called.wait, 10)


@pytest.fixture
async def connection(anyio_backend):
    connection = _Connection(connect_in_memory, iter_chunk_size=64)
    await connection
    yield connection
    await connection.close()


async def test_the_protected_names_are_there(connection) -> None:
    plain = aiosqlite.Connection(connect_in_memory, 64)
    assert isinstance(plain._thread, threading.Thread)
    assert callable(plain._tx.put_nowait)
    assert callable(plain.stop)


async def test_the_thread_has_not_begun_before_the_connection_is_awaited() -> None:
    """So that it can still be made a daemon."""
    connection = _Connection(connect_in_memory, iter_chunk_size=64)
    assert not connection._thread.is_alive()
    assert connection._thread.daemon

    await connection
    assert connection._thread.is_alive()
    await connection.close()


async def test_functions_run_on_that_thread_in_the_order_of_their_coming(connection) -> None:
    ran = []
    for n in range(20):
        connection.submit(lambda n=n: ran.append((n, threading.current_thread())))
    await submitted(connection, lambda: ran.append("last"))

    assert ran == [*((n, connection._thread) for n in range(20)), "last"]


async def test_a_function_that_fails_does_not_end_the_thread(connection) -> None:
    def fail() -> None:
        raise SystemExit

    connection.submit(fail)
    ran = []
    await submitted(connection, lambda: ran.append(1))
    assert ran == [1]


async def test_a_function_whose_result_is_anything_does_not_end_the_thread(connection) -> None:
    for value in (None, False, 0, object(), StopIteration()):
        connection.submit(lambda value=value: value)
    await submitted(connection, lambda: None)
    assert connection._thread.is_alive()


async def test_closing_runs_what_was_submitted_and_ends_the_thread() -> None:
    connection = _Connection(connect_in_memory, iter_chunk_size=64)
    await connection
    ran = []
    for n in range(5):
        connection.submit(lambda n=n: ran.append(n))
    await connection.close()

    assert ran == [0, 1, 2, 3, 4]
    connection._thread.join(5)
    assert not connection._thread.is_alive()


async def test_one_that_cannot_connect_says_why_and_that_its_thread_is_ending() -> None:
    def fail() -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    connection = _Connection(fail, iter_chunk_size=64)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        await connection

    assert connection.stopped is not None
    await connection.stopped
    connection._thread.join(5)
    assert not connection._thread.is_alive()


async def test_one_that_is_never_closed_says_nothing() -> None:
    connection = _Connection(connect_in_memory, iter_chunk_size=64)
    await connection
    thread, tx, db = connection._thread, connection._tx, connection._connection
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del connection
        gc.collect()

    # What it had is ended by hand, for the sake of the tests that follow.
    tx.put_nowait((None, lambda: aiosqlite.core._STOP_RUNNING_SENTINEL))
    thread.join(5)
    assert not thread.is_alive()
    db.close()
