"""A file that may only be read, at first or from some moment on: named, waited for, and used again.

What a program has open it may go on writing, whatever becomes of the file's mode; so the mode is
felt by those who come later. A file system that refuses to write is felt by all.
"""

import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from sitq import EnqueueUnknown, SQLiteBackend, StoreError, TaskQueue, Worker
from sitq.adapters.base import BatchError
from sitq.protocol.commit import Blame
from tests.adapters.asked import count, enqueue
from tests.adapters.recorded import Wrapped, operational_error
from tests.adapters.test_permissions import belongs_to_nobody, folder

__all__ = ["folder"]

READ_ONLY = (sqlite3.SQLITE_READONLY, "SQLITE_READONLY", "attempt to write a readonly database")
NO_WRITE = (sqlite3.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE", "disk I/O error")


@pytest.mark.parametrize(
    ("where", "code", "blame", "words"),
    [
        ("BEGIN IMMEDIATE", READ_ONLY, Blame.STORE, "may only be read by now .*; nothing was"),
        ("COMMIT", NO_WRITE, Blame.UNKNOWN, "disk I/O error .SQLITE_IOERR_WRITE"),
    ],
)
def test_the_error_is_named_and_the_next_write_goes_through_once_it_may(
    open_store, where, code, blame, words
) -> None:
    store = open_store()
    read_only = [True]

    def before(sql: str) -> None:
        if sql == where and read_only[0]:
            raise operational_error(*code)

    store._db = Wrapped(store._db, before)
    for _ in range(2):
        with pytest.raises(BatchError, match=words) as caught:
            store.apply([enqueue("a")])
        assert isinstance(caught.value.error, StoreError)
        assert caught.value.blame is blame
    read_only[0] = False

    store.apply([enqueue("b")])
    assert count(store) == 1


# -- a disk that refuses, under a worker that runs ----------------------------------------


@contextmanager
def immutable(*paths: object):
    """Have the kernel refuse every write to these files; -shm, which is memory, is none of them."""
    names = list(map(str, paths))
    if shutil.which("chattr") is None:
        pytest.skip("no chattr; RLIMIT_FSIZE in test_full_disk.py refuses writes in the same way")
    if subprocess.run(["chattr", "+i", *names], capture_output=True).returncode:
        pytest.skip("chattr may not; RLIMIT_FSIZE in test_full_disk.py refuses in the same way")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *names], check=True)


starts: list[int] = []
gate: list[anyio.Event] = []


async def held(number: int) -> int:
    starts.append(number)
    await gate[0].wait()
    return number


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_worker_waits_until_it_may_write_again_and_runs_nothing_twice(
    sqlite_path, caplog
) -> None:
    starts.clear()
    gate[:] = [anyio.Event()]
    queue = TaskQueue(SQLiteBackend(sqlite_path))
    async with queue.backend, Worker(queue.backend, max_concurrency=2, poll_interval=0.05):
        ids = [await queue.enqueue(held, n) for n in range(2)]
        with anyio.fail_after(30):
            while len(starts) < 2:  # noqa: ASYNC110  # tasks of a worker tell nobody
                await anyio.sleep(0.01)
        with immutable(sqlite_path, f"{sqlite_path}-wal"):
            with pytest.raises((StoreError, EnqueueUnknown)):
                await queue.enqueue(held, 9)
            with pytest.raises(Exception, match=r"cannot be written|may only be read"):
                await anyio.to_thread.run_sync(open_anew, sqlite_path)
            gate[0].set()
            with anyio.fail_after(30):
                while caplog.text.count("trying again") < 3:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            assert caplog.text.count("trying again") < 50, "it does not spin"
        assert await queue.enqueue(held, 3)
        assert [await queue.result(id_, timeout=30) for id_ in ids] == [0, 1]
        session = await queue.backend.session()
        rows = [await session.fetch(id_) for id_ in ids]
    assert [(row.attempt, row.crashes) for row in rows] == [(1, 0)] * 2
    assert starts.count(0) == starts.count(1) == 1


def open_anew(path: str) -> None:
    with closing(SQLiteBackend(path).open_store()) as store:
        try:
            store.apply([enqueue("b")])
        except BatchError as error:
            raise error.error from error


# -- modes, for somebody who is not root --------------------------------------------------


def test_those_who_have_it_open_go_on_and_those_who_come_are_refused_until_it_is_lifted(
    folder, run_program
) -> None:
    belongs_to_nobody(folder)
    program = """
        import os, sys, tempfile
        from sitq import SQLiteBackend, SyncTaskQueue, FileRefusedError
        def enqueue(path):
            with SyncTaskQueue(SQLiteBackend(path)) as queue:
                return bool(queue.enqueue(len, "abc"))
        with tempfile.TemporaryDirectory() as warm:  # loads what nobody could load later
            enqueue(warm + "/warm.db")
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        path = sys.argv[1]
        with SyncTaskQueue(SQLiteBackend(path)) as queue:
            queue.enqueue(len, "abc")
            for file in (path, path + "-wal", path + "-shm"):
                os.chmod(file, 0o444)
            print(bool(queue.enqueue(len, "abc")))
            try:
                enqueue(path)
            except FileRefusedError as error:
                print("cannot be written" in str(error))
            for file in (path, path + "-wal", path + "-shm"):
                os.chmod(file, 0o600)
            print(enqueue(path))
    """
    assert run_program(program, folder / "tasks.db") == ["True", "True", "True"]


# -- a file system that was mounted read-only ---------------------------------------------

MOUNT = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
TRY = """
    import sys
    from sitq import SitqError, SQLiteBackend
    for path in sys.argv[1:]:
        try:
            SQLiteBackend(path).open_store()
        except SitqError as error:
            print(f"{type(error).__name__}: {error}")
"""


def read_only(folder: Path, *command: object) -> list[str]:
    return ["unshare", "-Urm", "sh", "-c", MOUNT, "sh", str(folder), *map(str, command)]


def test_a_file_system_that_is_mounted_read_only_is_named(tmp_path) -> None:
    try:
        can = subprocess.run(read_only(tmp_path, "true"), capture_output=True).returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("no mount namespaces here; tests/adapters/test_permissions.py goes by modes")
    path = tmp_path / "tasks.db"
    SQLiteBackend(path).open_store().close()
    before = path.read_bytes()
    command = [sys.executable, "-c", textwrap.dedent(TRY), path, tmp_path / "new.db"]
    there, new = subprocess.run(
        read_only(tmp_path, *command), capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert there.startswith(f"FileRefusedError: '{path}' cannot be written")
    assert new.startswith(f"FileRefusedError: '{tmp_path}/new.db' cannot be created: Read-only")
    assert path.read_bytes() == before

    command = [sys.executable, "-m", "sitq.cli", "doctor", path]
    doctor = subprocess.run(read_only(tmp_path, *command), capture_output=True, text=True)
    assert doctor.returncode == 1
    assert "FAIL" in doctor.stdout
