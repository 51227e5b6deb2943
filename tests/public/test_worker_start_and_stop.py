"""When a worker runs, and when it has stopped: every order in which it may be asked."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta

import anyio
import anyio.from_thread
import pytest
from anyio.lowlevel import checkpoint
from gated_tasks import Gate, hold, hold_thread, stays, until, visit

from sitq import (
    BackendClosedError,
    ForeignFileError,
    MemoryBackend,
    NotADatabaseError,
    SQLiteBackend,
    Task,
    TaskQueue,
    ValidationError,
    Worker,
    WorkerRunningError,
)

pytestmark = pytest.mark.anyio

ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)


async def stop_own_worker(gate: Gate) -> str:
    await gate.worker.stop()
    return "stopped"


async def stop_own_worker_from_a_child(gate: Gate) -> str:
    async with anyio.create_task_group() as children:
        children.start_soon(gate.worker.stop)
    return "stopped"


def stop_own_worker_from_a_thread(gate: Gate) -> str:
    anyio.from_thread.run(gate.worker.stop)
    return "stopped"


# -- stop ------------------------------------------------------------------------------


async def test_stop_from_another_task_waits_for_running_tasks(backend, queue, gate, view) -> None:
    worker = Worker(backend, max_concurrency=2)
    running = [await queue.enqueue(hold, gate, n) for n in range(2)]
    left = await queue.enqueue(visit, gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 2)
        assert worker._running
        tasks.start_soon(worker.stop)
        await stays(lambda: worker._running)
        gate.open()

    assert not worker._running
    assert [await queue.result(task_id, timeout=0) for task_id in running] == [0, 1]
    assert gate.ends == 2
    assert (view.state(left), view.row(left).attempt) == ("queued", 0)


async def test_stop_returns_once_the_worker_has_stopped(backend, queue, gate) -> None:
    worker = Worker(backend)
    task_id = await queue.enqueue(hold, gate, "done")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        gate.open()
        await worker.stop()
        assert not worker._running
        assert await queue.result(task_id, timeout=0) == "done"


async def test_stop_before_start_makes_that_start_return_at_once(backend, queue, gate) -> None:
    worker = Worker(backend)
    task_id = await queue.enqueue(visit, gate, "ran")
    await worker.stop()
    with anyio.fail_after(5):
        await worker.start()
    assert (gate.starts, worker._running) == (0, False)

    await worker.drain()  # the stop was meant for one start
    assert await queue.result(task_id, timeout=0) == "ran"


async def test_stop_before_start_counts_once_however_often_it_is_called(
    backend, queue, gate
) -> None:
    worker = Worker(backend)
    await queue.enqueue(visit, gate)
    await worker.stop()
    await worker.stop()
    await worker.start()
    await worker.drain()
    assert gate.starts == 1


async def test_stop_twice_is_stop(backend, queue, gate) -> None:
    worker = Worker(backend)
    await queue.enqueue(visit, gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.ends == 1)
        await worker.stop()
        await worker.stop()
    await worker.stop()

    await queue.enqueue(visit, gate)
    await worker.drain()  # none of them is left over for the next run
    assert gate.starts == 2


async def test_many_stops_at_once_all_wait_for_the_same_end(backend, queue, gate) -> None:
    worker = Worker(backend)
    await queue.enqueue(hold, gate)
    stopped = []

    async def stop() -> None:
        await worker.stop()
        stopped.append(worker._running)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        for _ in range(5):
            tasks.start_soon(stop)
        await stays(lambda: not stopped)
        gate.open()

    assert stopped == [False] * 5


@pytest.mark.parametrize(
    "function",
    [stop_own_worker, stop_own_worker_from_a_child, stop_own_worker_from_a_thread],
)
async def test_a_task_may_stop_the_worker_that_runs_it(backend, queue, gate, function) -> None:
    worker = gate.worker = Worker(backend)
    task_id = await queue.enqueue(function, gate)
    left = await queue.enqueue(visit, gate)
    with anyio.fail_after(10):
        await worker.start()

    assert await queue.result(task_id, timeout=0) == "stopped"
    assert await queue.get_result(left, timeout=0) is None
    assert not worker._running


async def test_stop_right_after_the_task_of_start_was_made_stops_it(backend, queue, gate) -> None:
    worker = Worker(backend)
    await queue.enqueue(visit, gate)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.start)
            await worker.stop()
    assert (gate.starts, worker._running) == (0, False)

    await worker.drain()
    assert gate.starts == 1


@ON_ASYNCIO
async def test_create_task_then_stop_at_once_as_a_program_would_write_it(backend) -> None:
    worker = Worker(backend)
    worker_task = asyncio.create_task(worker.start())
    await worker.stop()
    with anyio.fail_after(10):
        assert await worker_task is None


@pytest.mark.parametrize("turns", [0, 1, 2, 4, 8])
async def test_stop_in_any_turn_of_the_start_leaves_a_worker_that_has_stopped(
    backend, turns
) -> None:
    worker = Worker(backend)  # not connected yet, so the start takes many turns
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.start)
            for _ in range(turns):
                await checkpoint()
            await worker.stop()
            assert not worker._running


async def test_stop_takes_a_number_of_seconds_or_a_timedelta(backend) -> None:
    worker = Worker(backend)
    async with worker:
        await worker.stop(grace=timedelta(seconds=1))
    for wrong in (-1, float("nan"), "1", True):
        with pytest.raises(ValidationError, match="grace"):
            await worker.stop(grace=wrong)


async def test_stop_leaves_the_backend_usable(backend, queue, gate) -> None:
    worker = Worker(backend)
    async with worker:
        await queue.enqueue(visit, gate)
    task_id = await queue.enqueue(visit, gate, "after")
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == "after"


# -- start -----------------------------------------------------------------------------


async def test_a_worker_can_be_started_again(backend, queue, gate) -> None:
    worker = Worker(backend)
    for round_ in range(3):
        task_id = await queue.enqueue(visit, gate, round_)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.start)
            assert await queue.result(task_id, timeout=10) == round_
            await worker.stop()
            assert not worker._running


async def test_a_second_block_is_refused_and_the_first_goes_on(backend, queue, gate) -> None:
    async with Worker(backend) as worker:
        for _ in range(2):
            with pytest.raises(WorkerRunningError, match="running already"):
                async with worker:
                    pass
        gate.open()
        task_id = await queue.enqueue(visit, gate, 7)
        assert await queue.result(task_id, timeout=10) == 7


async def test_a_second_start_is_refused_and_the_first_goes_on(backend, queue, gate) -> None:
    worker = Worker(backend)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await queue.enqueue(hold, gate)
        await until(lambda: gate.starts == 1)
        for _ in range(2):
            with pytest.raises(WorkerRunningError, match="running already"):
                await worker.start()
        with pytest.raises(WorkerRunningError, match="running already"):
            await worker.drain()
        assert worker._running
        gate.open()
        await until(lambda: gate.ends == 1)
        await worker.stop()


async def test_a_second_start_is_refused_while_the_first_still_connects(backend) -> None:
    worker = Worker(backend)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        while not worker._running:  # in the very turn in which it begins
            await checkpoint()
        for _ in range(2):
            with pytest.raises(WorkerRunningError):
                await worker.start()
            assert worker._running
        await worker.stop()


async def test_a_start_that_was_cancelled_before_its_first_step_leaves_nothing_behind(
    backend, queue, gate
) -> None:
    worker = Worker(backend)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        tasks.cancel_scope.cancel()
    await worker.stop()  # there is nothing to stop: it must not wait for the next start

    await queue.enqueue(visit, gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.ends == 1, seconds=3)
        await worker.stop()


@ON_ASYNCIO
async def test_a_start_whose_task_was_cancelled_before_it_ran_leaves_nothing_behind(
    backend, queue, gate
) -> None:
    worker = Worker(backend)
    worker_task = asyncio.create_task(worker.start())
    worker_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker_task
    await worker.stop()

    await queue.enqueue(visit, gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.ends == 1, seconds=3)
        await worker.stop()


async def test_stop_after_a_cancelled_start_returns_and_the_next_start_runs(
    backend, queue, gate
) -> None:
    worker = Worker(backend)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: worker._running)
        tasks.cancel_scope.cancel()
    assert not worker._running
    with anyio.fail_after(5):
        await worker.stop()

    task_id = await queue.enqueue(visit, gate, "ran")
    await worker.drain()
    assert await queue.result(task_id, timeout=0) == "ran"


# -- async with ------------------------------------------------------------------------


async def test_a_worker_runs_inside_its_block_and_has_stopped_after_it(
    backend, queue, gate
) -> None:
    async with Worker(backend) as worker:
        assert isinstance(worker, Worker)
        assert await queue.result(await queue.enqueue(visit, gate, 1), timeout=10) == 1
        held = await queue.enqueue(hold, gate, 2)
        await until(lambda: gate.starts == 2)
        assert worker._running
        gate.open()
    assert not worker._running
    assert await queue.result(held, timeout=0) == 2


async def test_a_block_can_be_entered_again(backend, queue, gate) -> None:
    worker = Worker(backend)
    for round_ in range(2):
        async with worker:
            assert (
                await queue.result(await queue.enqueue(visit, gate, round_), timeout=10) == round_
            )


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("mine"),
        KeyError("mine"),
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration("mine"),
        StopAsyncIteration("mine"),
        ExceptionGroup("mine", [ValueError("one"), KeyError("two")]),
        BaseExceptionGroup("mine", [SystemExit(1)]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_exception_leaves_the_block_as_it_was_raised(backend, raised) -> None:
    worker = Worker(backend)

    # A coroutine cannot let a StopIteration out, so this one is caught where it leaves the block.
    caught = None
    try:
        async with worker:
            raise raised  # noqa: TRY301
    except BaseException as error:
        caught = error
    assert caught is raised  # not wrapped, and not a copy
    assert not worker._running


async def test_a_block_left_by_an_exception_hands_running_tasks_back(
    backend, queue, gate, view
) -> None:
    task_id = await queue.enqueue(hold, gate, "later")

    async def block() -> None:
        async with Worker(backend):
            await until(lambda: gate.starts == 1)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await block()
    assert gate.interrupts == 1
    assert (view.state(task_id), view.row(task_id).attempt) == ("queued", 0)

    gate.open()
    await Worker(backend).drain()
    assert (await queue.get_result(task_id, timeout=0)).attempt == 1


async def test_a_cancelled_block_passes_the_cancellation_on(backend) -> None:
    worker = Worker(backend)
    with anyio.move_on_after(0.05) as scope:
        async with worker:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not worker._running


async def test_the_grace_of_a_worker_holds_at_the_end_of_its_block(backend, queue, gate) -> None:
    task_id = await queue.enqueue(hold, gate)
    with anyio.fail_after(10):
        async with Worker(backend, grace=0.02):
            await until(lambda: gate.starts == 1)
    assert gate.interrupts == 1
    assert await queue.get_result(task_id, timeout=0) is None


@pytest.mark.parametrize("how", ["start", "drain", "block"])
async def test_a_worker_whose_backend_is_closed_raises_the_plain_error(
    make_backend, gate, how
) -> None:
    backend = make_backend()
    worker = Worker(backend, poll_interval=0.02)
    await TaskQueue(backend).enqueue(hold, gate)
    caught = []

    async def block() -> None:
        async with worker:
            await anyio.sleep(10)

    async def run() -> None:
        try:
            await {"start": worker.start, "drain": worker.drain, "block": block}[how]()
        except Exception as error:
            caught.append(error)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: gate.starts == 1)
            await backend.close()
            gate.open()

    assert [type(error) for error in caught] == [BackendClosedError]
    assert not worker._running


# -- backends that cannot be opened ----------------------------------------------------


@pytest.mark.parametrize("how", ["start", "drain", "block"])
@pytest.mark.parametrize(
    ("content", "named"),
    [(b"no database at all, but text\n" * 50, NotADatabaseError), (None, ForeignFileError)],
    ids=["text", "foreign"],
)
async def test_a_worker_on_a_file_that_cannot_be_opened_raises_the_named_error(
    tmp_path, content, named, how
) -> None:
    path = tmp_path / "file.db"
    if content is None:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE theirs (x)")
            db.commit()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    worker = Worker(SQLiteBackend(path))

    async def block() -> None:
        async with worker:
            pytest.fail("the block was entered")

    runs = {"start": worker.start, "drain": worker.drain, "block": block}
    with pytest.raises(named, match=r"file\.db"):
        await runs[how]()
    assert not worker._running
    assert path.read_bytes() == before


def test_a_file_that_was_refused_leaves_no_thread_that_speaks_to_a_loop_that_is_over(
    tmp_path,
) -> None:
    (tmp_path / "file.db").write_bytes(b"no database at all, but text\n" * 50)
    program = f"""
import asyncio, threading, time
from sitq import FileRefusedError, SQLiteBackend, Worker

for _ in range(20):
    try:
        asyncio.run(Worker(SQLiteBackend({str(tmp_path / "file.db")!r})).start())
    except FileRefusedError:
        print("refused")
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(5)
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)

    assert done.stderr == ""
    assert done.stdout.split() == ["refused"] * 20


async def test_a_worker_can_be_started_once_the_path_is_mended(tmp_path, gate) -> None:
    folder = tmp_path / "folder"
    backend = SQLiteBackend(folder / "tasks.db")
    worker = Worker(backend)
    with pytest.raises(Exception, match="make it first"):
        await worker.start()
    await worker.stop()

    folder.mkdir()
    queue = TaskQueue(backend)
    task_id = await queue.enqueue(visit, gate, "ran")
    await worker.drain()
    assert await queue.result(task_id, timeout=0) == "ran"
    await backend.close()


# -- drain -----------------------------------------------------------------------------


async def add(queue: TaskQueue, gate: Gate, more: int) -> None:
    gate.enter(more)
    if more:
        await queue.enqueue(add, queue, gate, more - 1)
    gate.leave()


async def test_drain_of_an_empty_queue_returns(backend) -> None:
    worker = Worker(backend, poll_interval=60)
    with anyio.fail_after(10):
        await worker.drain()
        await worker.drain()
    assert not worker._running


async def test_drain_works_until_nothing_is_due(backend, queue, gate) -> None:
    await queue.enqueue(add, queue, gate, 5)
    later = await queue.using(delay=3600).enqueue(visit, gate)
    with anyio.fail_after(10):
        await Worker(backend, max_concurrency=2, poll_interval=60).drain()
    assert gate.order == [5, 4, 3, 2, 1, 0]
    assert await queue.get_result(later, timeout=0) is None


async def test_drain_can_be_stopped(backend, queue, gate) -> None:
    worker = Worker(backend)
    await queue.enqueue_many([Task(hold, gate, n) for n in range(3)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.drain)
        await until(lambda: gate.starts == 1)
        tasks.start_soon(worker.stop)
        await stays(lambda: worker._running)
        gate.open()
    assert gate.ends == 1


# -- several workers -------------------------------------------------------------------


async def test_several_workers_on_one_backend_share_the_tasks(backend, queue, gate) -> None:
    ids = await queue.enqueue_many([Task(hold, gate, n) for n in range(40)])
    workers = [Worker(backend, max_concurrency=2) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for worker in workers:
            tasks.start_soon(worker.start)
        await until(lambda: gate.running == 8)
        await stays(lambda: gate.running == 8)
        gate.open()
        assert [await queue.result(task_id, timeout=10) for task_id in ids] == list(range(40))
        for worker in workers:
            await worker.stop()

    assert (gate.starts, gate.peak) == (40, 8)
    assert sorted(gate.order) == list(range(40))


async def test_a_worker_that_is_busy_holds_nothing_that_an_idle_one_could_start(
    backend, queue, gate
) -> None:
    first = await queue.enqueue(hold, gate, "first")
    async with Worker(backend, poll_interval=60):
        await until(lambda: gate.starts == 1)
        second = await queue.enqueue(visit, gate, "second")
        async with Worker(backend, poll_interval=60):
            assert await queue.result(second, timeout=10) == "second"
        gate.open()
        assert await queue.result(first, timeout=10) == "first"


def test_a_worker_takes_a_backend_and_nothing_else() -> None:
    with pytest.raises(ValidationError, match="SQLiteBackend"):
        Worker("tasks.db")
    assert Worker(MemoryBackend()).backend is not None


async def test_a_thread_does_not_keep_a_graceful_stop_from_waiting(backend, queue, gate) -> None:
    task_id = await queue.enqueue(hold_thread, gate, "thread")
    worker = Worker(backend)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        await until(lambda: gate.starts == 1)
        tasks.start_soon(worker.stop)
        await stays(lambda: worker._running)
        gate.open()
    assert await queue.result(task_id, timeout=0) == "thread"
