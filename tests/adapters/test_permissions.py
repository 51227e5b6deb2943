"""Files are made for their owner alone; what may not be written is refused by name.

Root may write anything, so the second half is tried by a process that has become `nobody`.
"""

import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from sitq import SQLiteBackend
from sitq.adapters.presence import LockFiles
from tests.adapters.asked import enqueue
from tests.adapters.folder import contents, permissions

NOBODY = 65534


@pytest.fixture
def umask_0():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.anyio
async def test_all_files_of_a_queue_are_for_their_owner_alone(sqlite_path, umask_0) -> None:
    async with SQLiteBackend(sqlite_path) as backend:
        session = await backend.session()
        await session.writer.submit(enqueue("a"))
        session.presence.enter("w")

        folder = Path(sqlite_path).parent
        found = {str(p.relative_to(folder)): oct(permissions(p)) for p in folder.rglob("*")}
        session.presence.leave("w")
    assert found == {
        "tasks.db": "0o600",
        "tasks.db-wal": "0o600",
        "tasks.db-shm": "0o600",
        "tasks.db-workers": "0o700",
        "tasks.db-workers/w.lock": "0o600",
    }


def test_a_link_that_leads_nowhere_yet_opens_no_door(tmp_path, umask_0) -> None:
    target = tmp_path / "target.db"
    (tmp_path / "tasks.db").symlink_to(target)

    with closing(SQLiteBackend(tmp_path / "tasks.db").open_store()):
        assert oct(permissions(target)) == "0o600"


def test_what_the_owner_has_opened_to_others_stays_so(tmp_path) -> None:
    SQLiteBackend(tmp_path / "tasks.db").open_store().close()
    (tmp_path / "tasks.db").chmod(0o660)

    with closing(SQLiteBackend(tmp_path / "tasks.db").open_store()) as store:
        store.apply([enqueue("a")])
        assert permissions(tmp_path / "tasks.db") == 0o660
        assert permissions(tmp_path / "tasks.db-wal") == 0o660


# -- as somebody who is not root --------------------------------------------------------------


@pytest.fixture
def folder():
    """A folder that `nobody` can reach; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="sitq-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_as_nobody(run_program):
    """Open a queue as `nobody`; return the name of the error and its text, or `opened`."""

    def open_(path) -> str:
        program = """
            import os, sys, tempfile
            from sitq import SQLiteBackend, SitqError
            with tempfile.TemporaryDirectory() as folder:  # loads what nobody could load later
                SQLiteBackend(folder + "/warm.db").open_store().close()
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            try:
                SQLiteBackend(sys.argv[1]).open_store().close()
                print("opened")
            except SitqError as error:
                print(f"{type(error).__name__}: {error}")
        """
        (line,) = run_program(program, path)
        return line

    return open_


def belongs_to_nobody(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def test_a_queue_of_ones_own_is_opened(folder, open_as_nobody) -> None:
    belongs_to_nobody(folder)

    assert open_as_nobody(folder / "tasks.db") == "opened"


@pytest.mark.parametrize("mode", [0o444, 0o400])
def test_a_file_that_may_only_be_read_is_refused(folder, open_as_nobody, mode) -> None:
    path = folder / "tasks.db"
    SQLiteBackend(path).open_store().close()
    path.chmod(mode)
    belongs_to_nobody(folder)
    belongs_to_nobody(path)
    before = contents(folder)

    answer = open_as_nobody(path)
    assert answer.startswith(f"FileRefusedError: {str(path)!r} cannot be written")
    assert contents(folder) == before


def test_a_file_that_may_not_be_read_is_refused(folder, open_as_nobody) -> None:
    path = folder / "tasks.db"
    SQLiteBackend(path).open_store().close()
    path.chmod(0)
    belongs_to_nobody(folder)
    belongs_to_nobody(path)
    before = contents(folder)

    assert open_as_nobody(path).startswith("FileRefusedError")
    assert contents(folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_file_in_a_folder_that_may_only_be_read_is_refused(folder, open_as_nobody) -> None:
    """SQLite has to make -wal and -shm beside it."""
    path = folder / "tasks.db"
    SQLiteBackend(path).open_store().close()
    belongs_to_nobody(path)
    before = contents(folder)

    answer = open_as_nobody(path)
    assert answer.startswith(f"FileRefusedError: {str(path)!r} cannot be written")
    assert "folder" in answer
    assert contents(folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_may_only_be_read_takes_no_new_queue(folder, open_as_nobody) -> None:
    answer = open_as_nobody(folder / "tasks.db")

    assert answer.startswith(f"FileRefusedError: '{folder / 'tasks.db'}' cannot be created")
    assert contents(folder) == {}


def test_a_folder_that_may_not_be_entered_is_refused(folder, open_as_nobody) -> None:
    SQLiteBackend(folder / "tasks.db").open_store().close()
    folder.chmod(0)
    answer = open_as_nobody(folder / "tasks.db")
    folder.chmod(0o755)

    assert answer.startswith("FileRefusedError")
    assert "Permission denied" in answer


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a Linux")
def test_a_file_system_that_takes_no_files_is_refused() -> None:
    with pytest.raises(Exception, match="cannot be created") as caught:
        SQLiteBackend("/proc/tasks.db").open_store()
    assert type(caught.value).__name__ == "FileRefusedError"


@pytest.mark.anyio
async def test_a_worker_without_a_place_for_its_lock_works_on(tmp_path, caplog) -> None:
    (tmp_path / "tasks.db-workers").write_text("in the way")
    locks = LockFiles(str(tmp_path / "tasks.db-workers"))

    await anyio.to_thread.run_sync(locks.enter, "w")
    assert "the lease alone decides" in caplog.text
    assert locks.dead(("w",)) == ()
    locks.leave("w")
