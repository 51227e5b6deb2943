"""What a worker says of attempts that failed: enough to look for them, and nothing that was secret."""

import logging

import anyio
import pytest

from sitq import Retry, Serializer, TaskQueue, Worker

pytestmark = pytest.mark.anyio

SECRET = "hunter2"


def fail(secret: str) -> None:
    raise ValueError(f"no such password: {secret}")


async def linger() -> None:
    await anyio.sleep(30)


def read(text: str) -> None:
    """Nothing: it is never run."""


class Other(Serializer):
    """A format that a worker does not read unless it is told to."""

    name = "other-1"

    def dumps(self, value) -> bytes:
        return b"anything"

    def loads(self, data):
        raise AssertionError("nobody reads it")


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "sitq.worker")
    return lambda: [record.message for record in caplog.records if record.name == "sitq.worker"]


async def test_each_attempt_that_raises_is_logged_by_the_kind_of_its_error(
    backend, queue, said
) -> None:
    retry = Retry(attempts=2, delay=0.0, jitter=0.0)
    task_id = await queue.using(retry=retry).enqueue(fail, SECRET)
    await Worker(backend).drain()

    name = f"{__name__}.fail"
    assert said() == [
        f"task {task_id} ({name}) raised ValueError, attempt {n} of 2" for n in (1, 2)
    ]


async def test_a_task_that_is_over_its_timeout_is_logged(backend, queue, said) -> None:
    task_id = await queue.using(timeout=0.05).enqueue(linger)
    await Worker(backend).drain()

    name = f"{__name__}.linger"
    assert said() == [f"task {task_id} ({name}) is over its timeout of 0.05 s, attempt 1 of 1"]


async def test_a_task_that_cannot_be_read_is_logged(backend, queue, said) -> None:
    task_id = await TaskQueue(backend, Other()).enqueue(read, SECRET)
    await Worker(backend).drain()

    (line,) = said()
    assert line.startswith(f"task {task_id} ({__name__}.read) is parked: ")
    assert "'other-1'" in line
    assert SECRET not in line


async def test_a_task_that_succeeds_or_is_cancelled_is_not_logged(backend, queue, said) -> None:
    await queue.enqueue(len, "abc")
    running = await queue.enqueue(linger)
    async with Worker(backend, max_concurrency=2):
        await queue.cancel(running)
        await queue.get_result(running, timeout=10)

    assert said() == []
