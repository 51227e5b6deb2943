"""A worker that is cut short hands its tasks back: at once, and without charging the attempt."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from textwrap import dedent

import anyio
import pytest
from gated_tasks import hold, hold_thread, stays, until, visit

from sitq import Retry, Worker

pytestmark = pytest.mark.anyio

ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)


@pytest.fixture
async def handed_back(backend, queue, gate, view):
    """Check that a task which was interrupted waits as if it had never been started."""

    async def check(task_id) -> None:
        row = view.row(task_id)
        assert (row.state, row.attempt, row.crashes, row.error) == ("queued", 0, 0, None)
        gate.open()
        await Worker(backend).drain()
        result = await queue.get_result(task_id, timeout=0)
        assert (result.status, result.attempt, result.crashes) == ("success", 1, 0)

    return check


# -- cancelling ------------------------------------------------------------------------


async def test_a_cancelled_start_hands_back_and_the_cancellation_goes_on(
    backend, queue, gate, handed_back
) -> None:
    task_id = await queue.enqueue(hold, gate)
    returned = False
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def start() -> None:
                nonlocal returned
                await Worker(backend).start()
                returned = True

            tasks.start_soon(start)
            await until(lambda: gate.starts == 1)
            scope.cancel()

    assert scope.cancelled_caught
    assert not returned
    assert gate.interrupts == 1
    await handed_back(task_id)


async def test_a_cancelled_start_hands_back_what_runs_in_a_thread(
    backend, queue, gate, view
) -> None:
    task_id = await queue.enqueue(hold_thread, gate, "value")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Worker(backend).start)
        await until(lambda: gate.starts == 1)
        tasks.cancel_scope.cancel()
    assert (view.state(task_id), view.row(task_id).attempt) == ("queued", 0)

    gate.open()  # the thread that nobody could stop comes to its end, and changes nothing
    await until(lambda: gate.ends == 1)
    assert view.state(task_id) == "queued"


async def test_a_cancelled_drain_hands_back(backend, queue, gate, handed_back) -> None:
    task_id = await queue.enqueue(hold, gate)
    with anyio.move_on_after(5) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Worker(backend).drain)
            await until(lambda: gate.starts == 1)
            scope.cancel()
    await handed_back(task_id)


async def test_a_time_limit_around_start_hands_back(backend, queue, gate, handed_back) -> None:
    task_id = await queue.enqueue(hold, gate)
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.1):
            await Worker(backend).start()
    await handed_back(task_id)


async def test_handing_back_charges_no_attempt_of_a_retry(backend, queue, gate) -> None:
    task_id = await queue.using(retry=Retry(attempts=2, delay=0)).enqueue(hold, gate)
    for round_ in range(3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Worker(backend).start)
            await until(lambda round_=round_: gate.starts == round_ + 1)
            tasks.cancel_scope.cancel()
    gate.open()
    await Worker(backend).drain()
    assert (await queue.get_result(task_id, timeout=0)).attempt == 1


@ON_ASYNCIO
@pytest.mark.parametrize("times", [1, 3])
async def test_a_native_cancel_of_the_task_of_start_hands_back(
    backend, queue, gate, handed_back, times
) -> None:
    task_id = await queue.enqueue(hold, gate)
    worker_task = asyncio.create_task(Worker(backend).start())
    await until(lambda: gate.starts == 1)
    for _ in range(times):
        worker_task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await worker_task
    assert worker_task.cancelled()
    await handed_back(task_id)


@ON_ASYNCIO
async def test_wait_for_around_start_hands_back(backend, queue, gate, handed_back) -> None:
    task_id = await queue.enqueue(hold, gate)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Worker(backend).start(), 0.1)
    await handed_back(task_id)


@ON_ASYNCIO
async def test_a_task_group_of_asyncio_that_fails_hands_back(
    backend, queue, gate, handed_back
) -> None:
    task_id = await queue.enqueue(hold, gate)

    async def program() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Worker(backend).start())
            await until(lambda: gate.starts == 1)
            raise LookupError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        await program()
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    await handed_back(task_id)


# -- stop with a grace -----------------------------------------------------------------


@pytest.mark.parametrize("grace", [0, 0.02, timedelta(milliseconds=20)], ids=repr)
async def test_stop_with_a_grace_interrupts_and_hands_back(
    backend, queue, gate, handed_back, grace
) -> None:
    worker = Worker(backend)
    task_id = await queue.enqueue(hold, gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        await worker.stop(grace=grace)
        assert not worker._running
    assert gate.interrupts == 1
    await handed_back(task_id)


async def test_what_ends_within_the_grace_is_not_interrupted(backend, queue, gate) -> None:
    worker = Worker(backend)
    task_id = await queue.enqueue(hold, gate, "value")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        tasks.start_soon(worker.stop, 20)
        await stays(lambda: worker._running)
        gate.open()
    assert gate.interrupts == 0
    assert await queue.result(task_id, timeout=0) == "value"


async def test_a_second_stop_can_shorten_the_grace(backend, queue, gate, handed_back) -> None:
    worker = Worker(backend)
    task_id = await queue.enqueue(hold, gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        tasks.start_soon(worker.stop)
        await stays(lambda: worker._running, 0.02)
        await worker.stop(grace=0)
    await handed_back(task_id)


async def test_a_second_stop_does_not_lengthen_the_grace(backend, queue, gate, handed_back) -> None:
    worker = Worker(backend)
    task_id = await queue.enqueue(hold, gate)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.start)
            await until(lambda: gate.starts == 1)
            tasks.start_soon(worker.stop, 0.05)
            tasks.start_soon(worker.stop, 3600)
            tasks.start_soon(worker.stop)
    await handed_back(task_id)


async def test_a_thread_that_outlasts_the_grace_is_left_behind_and_its_task_handed_back(
    backend, queue, gate, view
) -> None:
    worker = Worker(backend)
    task_id = await queue.enqueue(hold_thread, gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        with anyio.fail_after(5):
            await worker.stop(grace=0.02)
    assert (view.state(task_id), view.row(task_id).attempt) == ("queued", 0)
    gate.open()
    await until(lambda: gate.ends == 1)


async def test_a_stop_starts_nothing_more(backend, queue, gate, view) -> None:
    worker = Worker(backend)
    await queue.enqueue(hold, gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        tasks.start_soon(worker.stop)
        await stays(lambda: worker._running, 0.02)
        late = await queue.enqueue(visit, gate)
        gate.open()
    assert gate.starts == 1
    assert (view.state(late), view.row(late).attempt) == ("queued", 0)


# -- programs that end around their worker ---------------------------------------------

PROGRAM = """
    import asyncio, sys, time
    import anyio
    from pathlib import Path
    from sitq import SQLiteBackend, TaskQueue, Worker

    async def long():
        Path("started").touch()
        await anyio.sleep(60)

    async def started():
        while not Path("started").exists():
            await anyio.sleep(0.01)

    async def main():
        backend = SQLiteBackend("tasks.db")
        await TaskQueue(backend).enqueue(long)
        {end}
"""


def run_program(tmp_path, end: str, run: str) -> "subprocess.Popen[str]":
    program = dedent(PROGRAM).format(end=end) + "\n" + run
    (tmp_path / "program.py").write_text(program)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def states(tmp_path) -> list[tuple[str, int, int]]:
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as db:
        return db.execute("SELECT state, attempt, crashes FROM sitq_tasks").fetchall()


@pytest.mark.parametrize(
    "end",
    [
        "asyncio.create_task(Worker(backend).start()); await started()",
        "await asyncio.wait([asyncio.create_task(Worker(backend).start())], timeout=0.3)",
        "asyncio.create_task(Worker(backend).start()); await started(); sys.exit(0)",
    ],
    ids=["forgotten", "waited for in vain", "sys.exit"],
)
def test_the_end_of_asyncio_run_hands_the_tasks_of_a_forgotten_worker_back(tmp_path, end) -> None:
    program = run_program(tmp_path, end, "asyncio.run(main())")
    printed, errors = program.communicate(timeout=20)

    assert (printed, errors, program.returncode) == ("", "", 0)
    assert (tmp_path / "started").exists()
    assert states(tmp_path) == [("queued", 0, 0)]


def test_an_error_in_main_hands_the_tasks_of_a_forgotten_worker_back(tmp_path) -> None:
    end = "asyncio.create_task(Worker(backend).start()); await started(); raise LookupError('mine')"
    program = run_program(tmp_path, end, "asyncio.run(main())")
    _, errors = program.communicate(timeout=20)

    assert program.returncode == 1
    assert errors.rstrip().endswith("LookupError: mine")
    assert states(tmp_path) == [("queued", 0, 0)]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_ctrl_c_hands_the_tasks_back(tmp_path, loop) -> None:
    run = f"anyio.run(main, backend={loop!r})"
    program = run_program(tmp_path, "await Worker(backend).start()", run)
    _wait_until_started(program, tmp_path)
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=20)

    assert "KeyboardInterrupt" in errors
    assert states(tmp_path) == [("queued", 0, 0)]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_ctrl_c_leaves_a_program_as_a_plain_keyboard_interrupt(tmp_path, loop) -> None:
    run = f"""
try:
    anyio.run(main, backend={loop!r})
except KeyboardInterrupt:
    print("plain")
"""
    program = run_program(tmp_path, "await Worker(backend).start()", run)
    _wait_until_started(program, tmp_path)
    program.send_signal(signal.SIGINT)

    assert program.communicate(timeout=20) == ("plain\n", "")


def _wait_until_started(program, tmp_path) -> None:
    for _ in range(1000):
        if (tmp_path / "started").exists():
            return
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.02)
    pytest.fail("the task was not started")


def test_a_task_in_a_thread_does_not_keep_a_program_from_ending(tmp_path) -> None:
    end = (
        "await TaskQueue(backend).enqueue(time.sleep, 0.3);"
        " asyncio.create_task(Worker(backend, max_concurrency=2).start()); await started()"
    )
    program = run_program(tmp_path, end, "asyncio.run(main())")
    _, errors = program.communicate(timeout=20)

    assert (errors, program.returncode) == ("", 0)
    assert states(tmp_path) == [("queued", 0, 0)] * 2
