"""The same queue for code without an event loop; and inside one; and in several threads."""

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from textwrap import dedent

import anyio
import pytest
from gated_tasks import hold, until, visit
from shapes import add, takes_eta, takes_option_names

from sitq import (
    BackendClosedError,
    FileRefusedError,
    MemoryBackend,
    Result,
    ResultTimeout,
    Retry,
    SerializationError,
    SQLiteBackend,
    StoreError,
    SyncTaskQueue,
    Task,
    TaskCancelled,
    TaskConflictError,
    TaskFailed,
    TaskNotFoundError,
    TaskQueue,
    ValidationError,
    Worker,
)

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@pytest.fixture
def queue(make_backend):
    with SyncTaskQueue(make_backend()) as queue:
        yield queue


def drain(queue, loop="asyncio", **options) -> None:
    """Work until nothing is due, in a loop that is over then."""

    async def work() -> None:
        await queue.backend.connect()
        await Worker(queue.backend, **options).drain()
        await queue.backend.close()

    anyio.run(work, backend=loop)


@contextmanager
def worker_in_a_thread(queue, loop):
    started = threading.Event()
    stop = []

    async def work() -> None:
        worker = Worker(queue.backend, poll_interval=0.01)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.start)
            await until(lambda: worker._running)
            started.set()
            await until(lambda: stop)
            await worker.stop()
        await queue.backend.close()

    thread = threading.Thread(target=partial(anyio.run, work, backend=loop))
    thread.start()
    assert started.wait(10)
    try:
        yield
    finally:
        stop.append(True)
        thread.join(20)
        assert not thread.is_alive()


async def boom() -> None:
    raise LookupError("boom")


# -- without an event loop -------------------------------------------------------------


@LOOPS
def test_calls_are_stored_and_their_results_read_without_a_loop(queue, gate, loop) -> None:
    ids = [
        queue.enqueue(add, 1, b=2),
        *queue.enqueue_many([Task(add, 3), Task(add, 4)]),
        queue.using(priority=5).enqueue(visit, gate, "first"),
        *queue.using(priority=4).enqueue_many([Task(visit, gate, "second")]),
    ]
    assert [queue.get_result(task_id, timeout=0) for task_id in ids] == [None] * 5
    drain(queue, loop)

    assert [queue.result(task_id) for task_id in ids] == [3, 3, 4, "first", "second"]
    assert gate.order == ["first", "second"]
    result = queue.get_result(ids[0])
    assert isinstance(result, Result)
    assert (result.status, queue.deserialize_result(result)) == ("success", 3)


def test_a_function_is_made_enqueueable(queue) -> None:
    task = queue.task(add)
    urgent = queue.task(priority=3, retry=Retry())(lambda n: -n)
    ids = [task.enqueue(1), task.using(delay=3600).enqueue(2), urgent.enqueue(3)]
    ids += queue.enqueue_many([task.call(4), urgent.call(5).using(priority=1)])
    assert (task(6), urgent(7)) == (6, -7)
    drain(queue)
    results = [queue.get_result(task_id, timeout=0) for task_id in ids]
    assert [result and queue.deserialize_result(result) for result in results] == [
        1,
        None,
        -3,
        4,
        -5,
    ]


def test_a_wait_ends_in_time(queue, gate) -> None:
    task_id = queue.enqueue(visit, gate)
    for timeout in (0.03, timedelta(milliseconds=30)):
        began = time.monotonic()
        assert queue.get_result(task_id, timeout) is None
        assert 0.03 <= time.monotonic() - began < 5
    with pytest.raises(ResultTimeout):
        queue.result(task_id, timeout=0.01)


@LOOPS
def test_a_wait_ends_when_the_task_does(queue, loop) -> None:
    with worker_in_a_thread(queue, loop):
        assert [queue.result(queue.enqueue(add, n), timeout=10) for n in range(5)] == [*range(5)]
        assert queue.result(queue.enqueue(add, 5)) == 5


def test_the_errors_of_results_are_the_same(queue) -> None:
    failed, cancelled = queue.enqueue(boom), queue.using(delay=60).enqueue(add, 1)
    assert queue.cancel(cancelled)
    drain(queue)
    with pytest.raises(TaskFailed, match="LookupError: boom") as caught:
        queue.result(failed)
    assert caught.value.error_type == "LookupError"
    with pytest.raises(TaskCancelled):
        queue.result(cancelled)
    for call in (queue.get_result, queue.result, queue.cancel):
        with pytest.raises(TaskNotFoundError):
            call("nobody")
    with pytest.raises(SerializationError):
        queue.deserialize_result(queue.get_result(failed))
    assert queue.get_result("nobody", timeout=0.01) is None


def test_cancelling_is_the_same(queue, gate) -> None:
    waiting, ended = queue.using(delay=60).enqueue(visit, gate), queue.enqueue(visit, gate)
    assert queue.cancel(waiting)
    assert not queue.cancel(waiting)
    drain(queue)
    assert not queue.cancel(ended)
    assert gate.starts == 1


@LOOPS
def test_a_task_that_runs_in_another_thread_is_cancelled(queue, gate, loop) -> None:
    task_id = queue.enqueue(hold, gate)
    with worker_in_a_thread(queue, loop):
        anyio.run(until, lambda: gate.starts == 1)
        assert queue.cancel(task_id)
        result = queue.get_result(task_id, timeout=5)
    assert (result.status, result.reason) == ("cancelled", "user")


def test_options_are_the_same(queue, gate) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    names = ("queue", "priority", "delay", "timeout", "retry", "max_crashes", "task_id")
    given = dict.fromkeys(names, "mine")
    ids = [
        queue.enqueue(visit, gate, eta=later),
        queue.enqueue(visit, gate, "past", eta=past),
        queue.using(eta=past).enqueue(takes_eta, eta="mine"),
        queue.enqueue(takes_option_names, **given),
        queue.using(delay=3600).using(delay=0).enqueue(visit, gate, "now"),
    ]
    with pytest.raises(ValidationError, match="not clear whose"):
        queue.enqueue(takes_eta, eta=later)
    drain(queue)
    results = [queue.get_result(task_id, timeout=0) for task_id in ids]
    assert results[0] is None
    assert [queue.deserialize_result(result) for result in results[1:]] == [
        "past",
        "mine",
        ["mine"] * 7,
        "now",
    ]


def test_the_defaults_of_a_queue_are_the_same(make_backend, gate) -> None:
    backend = make_backend()
    with SyncTaskQueue(backend, queue="mail") as queue:
        queue.enqueue(visit, gate, 1)
        queue.enqueue(visit, gate, 2, eta=datetime(2020, 1, 1, tzinfo=UTC))
        queue.enqueue_many([Task(visit, gate, 3).using(priority=-1)])
        drain(queue)
        assert gate.order == []
        drain(queue, queues=["mail"])
        assert gate.order == [1, 2, 3]


def test_ids_of_ones_own_are_the_same(queue, gate) -> None:
    assert queue.using(task_id="one").enqueue(visit, gate, 1) == "one"
    assert queue.using(task_id="one").enqueue(visit, gate, 1) == "one"
    with pytest.raises(TaskConflictError, match="queued"):
        queue.using(task_id="one").enqueue(visit, gate, 2)
    with pytest.raises(TaskConflictError):
        queue.enqueue_many([Task(visit, gate, 3), Task(visit, gate, 4).using(task_id="one")])
    drain(queue)
    assert gate.order == [1]


def test_bad_input_is_refused_the_same(queue, gate) -> None:
    for act in (
        lambda: queue.enqueue(5),
        lambda: queue.enqueue(add),
        lambda: queue.using(priority="high"),
        lambda: queue.enqueue(add, 1, eta=datetime(2030, 1, 1)),  # noqa: DTZ001
        lambda: queue.get_result(""),
        lambda: queue.get_result("x", timeout=-1),
        lambda: queue.cancel(None),
        lambda: SyncTaskQueue("tasks.db"),
    ):
        with pytest.raises(ValidationError):
            act()
    with pytest.raises(SerializationError, match=r"args\[1\]"):
        queue.enqueue(visit, gate, threading.Lock())
    assert queue.enqueue_many([]) == []


def test_what_is_closed_says_so(make_backend) -> None:
    queue = SyncTaskQueue(make_backend())
    task_id = queue.enqueue(add, 1)
    queue.close()
    queue.close()
    for act in (
        lambda: queue.enqueue(add, 1),
        lambda: queue.get_result(task_id),
        lambda: queue.cancel(task_id),
    ):
        with pytest.raises(BackendClosedError, match="was closed"):
            act()


def test_a_path_that_cannot_be_used_is_refused_on_first_use(tmp_path) -> None:
    queue = SyncTaskQueue(SQLiteBackend(tmp_path / "none" / "tasks.db"))
    with pytest.raises(FileRefusedError, match="make it first"):
        queue.enqueue(add, 1)
    (tmp_path / "none").mkdir()
    assert queue.enqueue(add, 1)
    queue.close()


def test_it_starts_no_thread_and_no_loop(tmp_path) -> None:
    before = threading.enumerate()
    with SyncTaskQueue(SQLiteBackend(tmp_path / "tasks.db")) as queue:
        task_id = queue.enqueue(add, 1)
        queue.get_result(task_id, timeout=0.01)
        assert threading.enumerate() == before
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()


# -- inside a loop ---------------------------------------------------------------------


@pytest.mark.anyio
async def test_inside_a_running_loop_it_is_the_same(backend, gate) -> None:
    with SyncTaskQueue(backend) as here:
        task_id = here.enqueue(visit, gate, "value")
        async with Worker(backend, poll_interval=0.02):
            assert await TaskQueue(backend).result(task_id, timeout=10) == "value"
        assert here.result(task_id) == "value"


@pytest.mark.anyio
async def test_what_it_stores_wakes_an_idle_worker_within_its_poll(backend, gate) -> None:
    with SyncTaskQueue(backend) as here:
        async with Worker(backend, poll_interval=0.02):
            here.enqueue(hold, gate)
            await until(lambda: gate.starts == 1, seconds=5)
            gate.open()


# -- several threads, several processes ------------------------------------------------


def test_several_threads_share_one(queue, gate) -> None:
    def produce(lane: int) -> list[str]:
        return [str(queue.enqueue(visit, gate, (lane, n))) for n in range(25)]

    with ThreadPoolExecutor(8) as pool:
        ids = [task_id for lane in pool.map(produce, range(8)) for task_id in lane]
    assert len(set(ids)) == 200
    drain(queue, max_concurrency=50)
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(queue.result, ids))
    assert values == [(lane, n) for lane in range(8) for n in range(25)]


@LOOPS
def test_several_threads_wait_while_a_worker_works(queue, gate, loop) -> None:
    with worker_in_a_thread(queue, loop), ThreadPoolExecutor(8) as pool:
        values = pool.map(
            lambda n: queue.result(queue.enqueue(visit, gate, n), timeout=20), range(24)
        )
        assert list(values) == list(range(24))


def test_a_copy_speaks_to_the_same_tasks(queue) -> None:
    task_id = queue.enqueue(add, 1)
    with pickle.loads(pickle.dumps(queue)) as copy:
        assert copy.get_result(task_id, timeout=0) is None
        assert copy.cancel(task_id)
    assert queue.get_result(task_id).status == "cancelled"


def test_a_child_of_a_fork_connects_anew(tmp_path) -> None:
    program = """
    import os
    from sitq import SQLiteBackend, SyncTaskQueue

    queue = SyncTaskQueue(SQLiteBackend("tasks.db"))
    queue.enqueue(len, "parent")
    child = os.fork()
    queue.enqueue(len, "child" if child == 0 else "parent again")
    if child != 0:
        assert os.waitpid(child, 0)[1] == 0
        queue.enqueue(len, "parent at last")
    """
    command = [sys.executable, "-W", "error", "-c", dedent(program)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.stderr, done.returncode) == ("", 0)
    with SyncTaskQueue(SQLiteBackend(tmp_path / "tasks.db")) as queue:
        ids = [queue.enqueue(os.getpid)]
        drain(queue)
        assert queue.result(ids[0]) == os.getpid()


class OwnStore:
    """A store of somebody's own: one op or another *fails*, by whatever it raises."""

    def __init__(self, store, fails) -> None:
        self._store = store
        self._fails = fails

    def apply(self, ops):
        if self._fails == "apply":
            raise OSError("the disk is on fire")
        return self._store.apply(ops)

    def tidy(self) -> None:
        if self._fails == "tidy":
            raise OSError("what can wait fails")

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def own_backend():
    class OwnBackend(MemoryBackend):
        def open_store(self):
            return OwnStore(super().open_store(), self.fails)

    return OwnBackend()


def test_what_could_have_waited_may_fail_and_the_task_is_stored(own_backend) -> None:
    own_backend.fails = "tidy"
    queue = SyncTaskQueue(own_backend)
    task_id = queue.enqueue(add, 1, 2)
    drain(queue)
    assert queue.result(task_id, timeout=0) == 3


def test_whatever_a_store_raises_is_told_as_a_refusal(own_backend) -> None:
    own_backend.fails = "apply"
    with pytest.raises(StoreError, match="nothing was stored: OSError"):
        SyncTaskQueue(own_backend).enqueue(add, 1, 2)
