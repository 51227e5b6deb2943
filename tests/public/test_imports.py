"""What a program loads: no more than it uses."""

import subprocess
import sys
from textwrap import dedent

import pytest

NEVER = {"psycopg", "click", "rich"}
PROGRAM = """
    import sys

    async def main():
        import sitq
        backend = sitq.SQLiteBackend(FILE)
        queue = sitq.TaskQueue(backend)
        task_id = await queue.enqueue(len, "abc")
        await sitq.Worker(backend).drain()
        assert await queue.result(task_id) == 3
        await backend.close()

    RUN
    print(*sys.modules)
"""
SYNC = """
    import sys
    import sitq

    with sitq.SyncTaskQueue(sitq.SQLiteBackend(FILE)) as queue:
        queue.get_result(queue.enqueue(len, "abc"), timeout=0)
    print(*sys.modules)
"""


def loaded_by(program: str, tmp_path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=20,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return set(done.stdout.split())


def test_the_protocol_loads_no_loop_and_no_database(tmp_path) -> None:
    loaded = loaded_by("import sys, sitq.protocol; print(*sys.modules)", tmp_path)
    assert "sitq.protocol" in loaded
    assert not loaded & {"anyio", "asyncio", "sqlite3"}


@pytest.mark.parametrize("statement", ["import sitq", "from sitq import *"])
def test_the_package_loads_no_library_that_may_not_be_there(tmp_path, statement) -> None:
    loaded = loaded_by(f"import sys\n{statement}\nprint(*sys.modules)", tmp_path)
    assert not loaded & {"trio", *NEVER}


def test_a_program_on_asyncio_loads_no_trio(tmp_path) -> None:
    program = dedent(PROGRAM).replace("FILE", "'tasks.db'")
    loaded = loaded_by(program.replace("RUN", "import asyncio; asyncio.run(main())"), tmp_path)
    assert not loaded & {"trio", *NEVER}


def test_a_program_on_trio_loads_no_library_for_asyncio(tmp_path) -> None:
    program = dedent(PROGRAM).replace("FILE", "'tasks.db'")
    loaded = loaded_by(program.replace("RUN", "import trio; trio.run(main)"), tmp_path)
    assert not loaded & {"aiosqlite", *NEVER}


def test_a_program_without_a_loop_loads_none(tmp_path) -> None:
    loaded = loaded_by(dedent(SYNC).replace("FILE", "'tasks.db'"), tmp_path)
    assert not loaded & {"trio", "aiosqlite", *NEVER}


def test_postgres_without_psycopg_says_what_to_install(tmp_path) -> None:
    program = """
        import sys
        sys.modules["psycopg"] = None
        from sitq import BackendError, PostgresBackend
        try:
            PostgresBackend("dbname=app")
        except BackendError as error:
            print(error)
    """
    printed = loaded_by(dedent(program), tmp_path)
    assert {"pip", "install", "'.[postgres]'"} <= printed
