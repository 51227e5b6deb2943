"""`sitq worker` on a file that is replaced: it ends with one line that says what to do."""

import pytest

from sitq import SQLiteBackend, SyncTaskQueue
from tests.cli.conftest import successes, wait_for

APP = """
from sitq import SQLiteBackend, TaskQueue

queue = TaskQueue(SQLiteBackend("tasks.db"))
"""


@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
def test_a_worker_whose_file_was_deleted_says_so_and_exits_with_1(shell, loop) -> None:
    (shell.folder / "app.py").write_text(APP)
    path = shell.folder / "tasks.db"
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        queue.enqueue(len, "abc")
    worker = shell.start("worker", "app:queue", "--app-dir", ".", *loop)
    wait_for(lambda: successes(path) == 1)
    path.unlink()

    _, errors = worker.communicate(timeout=30)
    assert worker.returncode == 1
    assert errors.splitlines()[-1].startswith(
        f"Error: '{path}' is gone: it was deleted, renamed or"
    )
    assert "Traceback" not in errors
    assert not path.exists(), "and it makes no new one"
