"""Another program that keeps the file locked for long: who waits, who is told, what is run again."""

import logging
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import contextmanager

import anyio
import pytest

from sitq import SQLiteBackend, StoreBusyError, TaskQueue, Worker
from sitq.protocol.ops import Count

HOLDER = """
    import sqlite3, sys
    db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE sitq_schema SET version = version")
    print("held", flush=True)
    sys.stdin.read()
    db.execute("COMMIT")
"""


@contextmanager
def held(path: str):
    """A process in the midst of a writing transaction."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.communicate(timeout=30)
    assert process.returncode == 0


starts: Counter[int] = Counter()
gates: dict[int, anyio.Event] = {}


async def wait(number: int) -> int:
    starts[number] += 1
    await gates[number].wait()
    return number


@pytest.fixture
def numbers():
    starts.clear()
    gates.clear()
    yield range(4)
    gates.clear()


async def states(backend) -> Counter[str]:
    (counted,) = await (await backend.session()).reader.submit(Count())
    return Counter({str(state): n for _, state, n in counted.rows})


async def until(condition, seconds: float = 40.0) -> None:
    with anyio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110  # it is others who change it
            await anyio.sleep(0.01)


async def start_all(queue, numbers) -> list[str]:
    gates.update({n: anyio.Event() for n in numbers})
    ids = [await queue.enqueue(wait, n) for n in numbers]

    async def running() -> bool:
        return (await states(queue.backend))["running"] == len(numbers)

    await until(running)
    return ids


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_for_eight_seconds_nothing_fails_and_nobody_is_told(
    sqlite_path, numbers, caplog
) -> None:
    """With the defaults: everybody waits up to 30 seconds."""
    queue = TaskQueue(SQLiteBackend(sqlite_path))
    async with queue.backend, Worker(queue.backend, max_concurrency=8):
        ids = await start_all(queue, numbers)
        enqueued = []

        async def enqueue() -> None:
            enqueued.append(await queue.enqueue(len, "abc"))

        began = time.monotonic()
        with held(sqlite_path):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(enqueue)
                for gate in gates.values():
                    gate.set()
                await anyio.sleep(8)
                assert enqueued == []
                assert await states(queue.backend) == {"running": 4}, "readers wait for nobody"
                tasks.cancel_scope.cancel()  # gives up the wait, not the task
        assert time.monotonic() - began >= 8
        assert [await queue.result(id_, timeout=30) for id_ in ids] == list(numbers)

        async def all_ended() -> bool:
            return await states(queue.backend) == {"success": 5}

        await until(all_ended)
    assert starts == dict.fromkeys(numbers, 1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_for_twice_busy_timeout_callers_are_told_and_a_worker_loses_nothing(
    sqlite_path, numbers
) -> None:
    """As 60 seconds are to the 30 of the defaults; its lease lasts longer than that."""
    busy_timeout = 1.5
    queue = TaskQueue(SQLiteBackend(sqlite_path, busy_timeout=busy_timeout))
    async with queue.backend, Worker(queue.backend, max_concurrency=8):
        ids = await start_all(queue, numbers)
        with held(sqlite_path):
            began = time.monotonic()
            for gate in gates.values():
                gate.set()
            while time.monotonic() - began < 2 * busy_timeout:
                with pytest.raises(StoreBusyError, match="longer than busy_timeout"):
                    await queue.enqueue(len, "abc")
            assert await states(queue.backend) == {"running": 4}
        await queue.enqueue(len, "abc")  # at once

        assert [await queue.result(id_, timeout=30) for id_ in ids] == list(numbers)
        session = await queue.backend.session()
        rows = [await session.fetch(id_) for id_ in ids]
    assert [(row.attempt, row.crashes) for row in rows] == [(1, 0)] * 4
    assert starts == dict.fromkeys(numbers, 1)


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_for_longer_than_a_lease_the_worker_lets_go_and_runs_its_tasks_again(
    sqlite_path, numbers, caplog
) -> None:
    """It cannot know that nobody else has taken them: so it is as if it had died, and come back."""
    queue = TaskQueue(SQLiteBackend(sqlite_path, busy_timeout=0.3))
    worker = Worker(queue.backend, max_concurrency=8, lease_for=1.5)
    async with queue.backend, worker:
        ids = await start_all(queue, numbers)
        with held(sqlite_path):
            gates[0].set()
            gates[1].set()  # two end while nothing can be stored, and two go on

            async def lost() -> bool:
                return "is lost" in caplog.text

            await until(lost)
            assert caplog.text.count("its lease is lost") == 2, "those that still ran are told"
            assert await states(queue.backend) == {"running": 4}
        for gate in gates.values():
            gate.set()
        assert [await queue.result(id_, timeout=30) for id_ in ids] == list(numbers)
        session = await queue.backend.session()
        rows = [await session.fetch(id_) for id_ in ids]
    # The end of one that was being asked for just then may still have been stored.
    crashes = [row.crashes for row in rows]
    assert crashes in ([0, 0, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1])
    assert starts == {n: 1 + crashes[n] for n in numbers}
    assert [row.attempt for row in rows] == [1] * 4
