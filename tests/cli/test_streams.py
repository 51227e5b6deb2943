"""A worker whose standard streams are closed, or read by nobody."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from sitq import CloudpickleSerializer, SQLiteBackend, SyncTaskQueue
from sitq.serialization import unseal

pytestmark = pytest.mark.slow

MODULE = """
import logging
import os
import sys

from sitq import SQLiteBackend, TaskQueue

queue = TaskQueue(SQLiteBackend("tasks.db"))


@queue.task
def speak() -> list:
    print("out")
    print("err", file=sys.stderr, flush=True)
    logging.getLogger("shop").warning("a warning")
    os.write(2, b"written past Python")
    return [os.readlink(f"/proc/self/fd/{n}") for n in range(3)]
"""
OPTIONS = pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["one", "supervised"])


@pytest.fixture
def run(shell):
    """Run a worker until its one task is done; return its exit code and the result."""
    (shell.folder / "shop.py").write_text(MODULE)
    sys.path.insert(0, str(shell.folder))
    sys.modules.pop("shop", None)
    import shop  # type: ignore[import-not-found]

    def run(redirections: str, options, **streams):
        command = [sys.executable, "-m", "sitq.cli", "worker", "shop:queue", "--app-dir", "."]
        with SyncTaskQueue(SQLiteBackend(shell.folder / "tasks.db")) as queue:
            task_id = queue.enqueue(shop.speak)
            done = subprocess.run(
                ["sh", "-c", f'exec "$@" {redirections}', "sh", *command, "--drain", *options],
                cwd=shell.folder,
                timeout=60,
                **streams,
            )
            return done.returncode, queue.get_result(task_id, timeout=0)

    yield run
    sys.path.remove(str(shell.folder))
    sys.modules.pop("shop", None)


@OPTIONS
@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_the_null_device_and_never_the_queue_file(
    shell, run, redirections, options
) -> None:
    code, result = run(redirections, options)
    streams = unseal(CloudpickleSerializer(), result.value)

    assert code == 0
    for number, redirection in enumerate(["<&-", ">&-", "2>&-"]):
        if redirection in redirections.split():
            assert streams[number] == os.devnull
    with closing(sqlite3.connect(shell.folder / "tasks.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    written = (shell.folder / "tasks.db").read_bytes()
    assert b"written past Python" not in written.replace(MODULE.encode(), b"")


@OPTIONS
def test_a_reader_that_has_gone_does_not_end_the_worker(run, options) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        # print() into it fails the task, as it would anywhere; the worker goes on, and says so.
        code, result = run("", options, stdout=subprocess.DEVNULL, stderr=pipe)
    assert code == 0
    assert (result.status, result.error) == ("failed", "[Errno 32] Broken pipe")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize("command", ["stats", "doctor"])
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_an_output_that_is_full_is_an_error_without_a_traceback(shell, command, options) -> None:
    with SyncTaskQueue(SQLiteBackend(shell.folder / "tasks.db")) as queue:
        queue.enqueue(len, "abc")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sitq.cli", command, "tasks.db", *options],
            cwd=shell.folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.stderr == "Error: the standard output cannot be written: No space left on device\n"
    assert done.returncode == 1
