"""`sitq worker` on a server that is away when it starts, or that does not let it in."""

import signal
import textwrap

import pytest

from sitq import PostgresBackend, SyncTaskQueue
from tests.private_postgres import running_server

MODULE = """
    from sitq import PostgresBackend, TaskQueue

    queue = TaskQueue(PostgresBackend({dsn!r}, timeout={timeout}))
"""
LOOPS = pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])


@pytest.fixture(scope="module")
def postgres_server():
    """One of its own: it is stopped."""
    with running_server() as server:
        yield server


@pytest.fixture
def stopped(postgres_server):
    postgres_server.stop()
    yield postgres_server
    if not postgres_server.is_running():
        postgres_server.start()


@pytest.fixture
def start_worker(shell):
    def start(dsn, *options, timeout=0.3):
        module = textwrap.dedent(MODULE.format(dsn=dsn, timeout=timeout))
        (shell.folder / "shop.py").write_text(module)
        return shell.start("worker", "shop:queue", "--app-dir", ".", *options)

    return start


def said(process, text) -> str:
    """Return the line on which it says so, as soon as it does."""
    line = ""
    while text not in line:
        line = process.stderr.readline()
        assert line, f"it has ended without a word of {text!r}"
    return line


@LOOPS
def test_a_server_that_is_away_is_waited_for(stopped, start_worker, loop) -> None:
    process = start_worker(stopped.dsn(), *loop)
    line = said(process, "waits for the server: cannot connect to host=")
    assert stopped.password not in line
    said(process, "still waits")

    stopped.start()
    with SyncTaskQueue(PostgresBackend(stopped.dsn())) as queue:
        assert queue.result(queue.enqueue(len, "ab"), timeout=30.0) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@LOOPS
def test_who_waits_can_be_stopped(stopped, start_worker, loop) -> None:
    process = start_worker(stopped.dsn(), *loop)
    said(process, "waits for the server")
    process.send_signal(signal.SIGTERM)

    said(process, "has stopped")
    assert process.wait(30) == 0


@LOOPS
def test_a_signal_ends_the_first_attempt_to_connect_however_long_it_may_take(
    stopped, start_worker, loop
) -> None:
    process = start_worker(stopped.dsn(), *loop, timeout=3600)
    said(process, "on PostgresBackend(")
    process.send_signal(signal.SIGTERM)

    said(process, "has stopped")
    assert process.wait(30) == 0


def test_a_supervised_worker_waits_as_well(stopped, start_worker) -> None:
    process = start_worker(stopped.dsn(), "--processes", 2)
    said(process, "waits for the server")
    stopped.start()
    with SyncTaskQueue(PostgresBackend(stopped.dsn())) as queue:
        assert queue.result(queue.enqueue(len, "ab"), timeout=30.0) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_wrong_password_and_an_unknown_database_are_errors_at_once(
    postgres_server, start_worker
) -> None:
    for dsn, text in (
        (postgres_server.dsn(password="wrong"), "password authentication failed"),
        (postgres_server.dsn("nowhere"), 'database "nowhere" does not exist'),
        (postgres_server.dsn(user="nobody", password="x"), "authentication failed"),
    ):
        process = start_worker(dsn)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert text in errors
        assert "waits" not in errors
