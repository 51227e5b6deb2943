"""Whatever a task raises or returns, and whenever: it alone ends, in words for a person.

The plainer cases are in `tests/public/test_task_endings.py`.
"""

import pytest

from sitq import MemoryBackend, Retry, SQLiteBackend, TaskQueue, Worker
from sitq.testing import run
from tests.hostile import tasks
from tests.hostile.tasks import BUILTIN, ERRORS, RESULTS

pytestmark = pytest.mark.anyio


@pytest.fixture
def queue(backend):
    return TaskQueue(backend)


async def all_end(backend, queue, calls, **options) -> list:
    """Enqueue *calls*, and a neighbour behind each; return how they ended, by one worker."""
    enqueued = []
    for function, argument in calls:
        enqueued.append(await queue.using(**options).enqueue(function, argument))
        enqueued.append(await queue.enqueue(tasks.pass_by))
    async with Worker(backend, max_concurrency=4) as worker:
        results = [await queue.get_result(task_id, timeout=60) for task_id in enqueued]
        assert worker._running
        assert await queue.result(await queue.enqueue(tasks.pass_by), timeout=30) == "passed"
    assert all(result.status == "success" for result in results[1::2])
    return results[::2]


def readable(result) -> bool:
    texts = (result.error, result.error_type, result.traceback or "")
    return bool(result.error) and all(
        len(text) < 70_000 and all(c.isprintable() or c in "\n\t" for c in text) for text in texts
    )


@pytest.mark.parametrize("function", [tasks.throw, tasks.throw_async])
async def test_every_error_that_python_has_fails_its_task_alone(backend, queue, function) -> None:
    assert len(BUILTIN) > 60
    results = await all_end(backend, queue, [(function, name) for name in BUILTIN])
    for name, result in zip(BUILTIN, results, strict=True):
        assert result.status == "failed", name
        assert readable(result), name
        if name != "StopIteration":  # which a coroutine may not raise: Python makes it another
            assert result.error_type == type(tasks.builtin_error(name)).__name__
            assert "kept" in result.error


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_that_lies_or_fails_when_asked_fails_its_task_alone(
    backend, queue, name
) -> None:
    calls = [(tasks.throw, name), (tasks.throw_async, name)]
    for result in await all_end(backend, queue, calls):
        assert result.status == "failed"
        assert readable(result)


@pytest.mark.parametrize("name", [*ERRORS, "KeyboardInterrupt", "SystemExit", "GeneratorExit"])
async def test_it_does_so_too_while_it_is_interrupted(backend, queue, name) -> None:
    (result,) = await all_end(backend, queue, [(tasks.throw_when_interrupted, name)], timeout=0.05)
    assert (result.status, result.reason, result.error_type) == (
        "failed",
        "timeout",
        "TimeoutError",
    )


@pytest.mark.parametrize("name", RESULTS)
async def test_a_result_that_cannot_be_stored_fails_its_task_alone(backend, queue, name) -> None:
    calls = [(tasks.give, name), (tasks.give_async, name)]
    for result in await all_end(backend, queue, calls):
        assert (result.status, result.value) == ("failed", None)
        assert readable(result)


@pytest.mark.parametrize("reader", [tasks.read_label, tasks.read_label_in_thread])
@pytest.mark.parametrize("writer", [tasks.set_label, tasks.set_label_in_thread])
async def test_a_context_variable_does_not_leave_its_task(backend, queue, writer, reader) -> None:
    worker = Worker(backend)
    await queue.enqueue(writer)
    read = await queue.enqueue(reader)
    await worker.drain()
    assert await queue.result(read, timeout=0) == "untouched"
    assert tasks.label.get() == "untouched"


async def test_each_attempt_has_arguments_of_its_own(backend, queue) -> None:
    tasks.attempts.clear()
    retry = Retry(attempts=2, delay=0)
    task_id = await queue.using(retry=retry).enqueue(tasks.spoil, ["given"], {"a": 1})
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == ["given", "spoilt"]
    assert tasks.attempts == [["given", "spoilt"]] * 2


async def test_a_task_that_swallows_its_interrupts_keeps_its_slot_and_nothing_else(
    backend, queue
) -> None:
    deaf = await queue.using(timeout=0.05).enqueue(tasks.swallow, 200)
    async with Worker(backend, max_concurrency=2):
        for _ in range(20):
            neighbour = await queue.enqueue(tasks.pass_by)
            assert await queue.result(neighbour, timeout=30) == "passed"
        assert await queue.result(deaf, timeout=30) == "had enough"


# -- tasks that wait for each other ------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_task_that_waits_for_one_behind_it_gives_up_with_its_timeout(loop, sqlite_path) -> None:
    """With one slot it could wait for ever: so a task that waits should have a timeout."""

    async def main() -> None:
        backend = SQLiteBackend(sqlite_path)
        queue = TaskQueue(backend)

        async def wait_for_another() -> str:
            return await queue.result(await queue.enqueue(tasks.pass_by))

        async def wait_patiently() -> str:
            return await queue.result(await queue.enqueue(tasks.pass_by), timeout=30)

        stuck = await queue.using(timeout=120).enqueue(wait_for_another)
        patient = await queue.enqueue(wait_patiently)
        await Worker(backend).drain()
        first = await queue.get_result(stuck, timeout=0)
        second = await queue.get_result(patient, timeout=0)
        assert (first.status, first.reason) == ("failed", "timeout")
        assert (second.status, second.error_type) == ("failed", "ResultTimeout")

        again = await queue.using(timeout=120).enqueue(wait_for_another)
        await Worker(backend, max_concurrency=2).drain()  # with a second slot it is no matter
        assert await queue.result(again, timeout=0) == "passed"
        await backend.close()

    run(main, backend=loop)


def test_a_task_that_waits_for_itself_gives_up_with_its_timeout() -> None:
    async def main() -> None:
        backend = MemoryBackend()
        queue = TaskQueue(backend)

        async def wait_for_itself() -> None:
            await queue.result("me", timeout=60)

        await queue.using(task_id="me").enqueue(wait_for_itself)
        await Worker(backend).drain()
        result = await queue.get_result("me", timeout=0)
        assert (result.status, result.error_type) == ("failed", "ResultTimeout")

    run(main)
