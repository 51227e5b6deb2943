"""Callables of every shape run, and give back what they return."""

import functools
import os
import subprocess
import sys
import threading
from textwrap import dedent

import pytest
from anyio.lowlevel import checkpoint
from gated_tasks import Gate, visit
from shapes import (
    Account,
    Adder,
    AsyncAdder,
    add,
    add_async,
    add_later,
    add_soon,
    cached,
    takes_anything,
    thread,
    thread_async,
    wrapped,
    wrapped_async,
)

from sitq import SyncTaskQueue, Task, TaskQueue, Worker

pytestmark = pytest.mark.anyio


def closure(a):
    return lambda b: a + b


def closure_async(a):
    async def inner(b):
        await checkpoint()
        return a + b

    return inner


SHAPES = {
    "def": (add, 1, 2),
    "async def": (add_async, 1, 2),
    "lambda": (lambda a, b: a + b, 1, 2),
    "lambda that gives a coroutine": (lambda a: add_async(a, 2), 1),
    "def that gives a coroutine": (add_later, 1, 2),
    "def that gives an awaitable": (add_soon, 1, 2),
    "closure": (closure(1), 2),
    "async closure": (closure_async(1), 2),
    "partial": (functools.partial(add, 1), 2),
    "partial with keywords": (functools.partial(add, b=2), 1),
    "partial of async": (functools.partial(add_async, 1), 2),
    "partial of a partial of async": (functools.partial(functools.partial(add_async, 1)), 2),
    "partial of a lambda": (functools.partial(lambda a, b: a + b, 1), 2),
    "partial of an async object": (functools.partial(AsyncAdder(1)), 2),
    "bound method": (Account(1).add, 2),
    "async bound method": (Account(1).add_async, 2),
    "static async method": (Account.sum_of, 1, 2),
    "callable object": (Adder(1), 2),
    "async callable object": (AsyncAdder(1), 2),
    "wrapped": (wrapped, 1, 2),
    "wrapped async": (wrapped_async, 1, 2),
    "cached": (cached, 1, 2),
    "builtin": (max, 3, 2),
    "builtin without a signature": (int, "3"),
    "builtin method": ([0, 3].pop,),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_callable_runs_whatever_its_shape(backend, queue, shape) -> None:
    function, *args = SHAPES[shape]
    task_id = await queue.enqueue(function, *args)
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == 3


@pytest.mark.parametrize("make", [Account, Account.of], ids=["class", "class method"])
async def test_a_class_is_a_callable_like_any_other(backend, queue, make) -> None:
    task_id = await queue.enqueue(make, 3)
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == Account(3)


async def test_arguments_arrive_as_they_were_given(backend, queue) -> None:
    args = (None, True, 1.5, b"\0\xff", "\0 and \N{SNOWMAN}", {"a": [1, (2, {3})]})
    kwargs = {"key": "value", "ключ": range(3)}
    task_id = await queue.enqueue(takes_anything, *args, **kwargs)
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == (args, kwargs)


async def test_arguments_are_those_of_the_moment_of_enqueue(backend, queue) -> None:
    given = [1]
    task_id = await queue.enqueue(takes_anything, given)
    given.append(2)
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == (([1],), {})


async def test_a_plain_function_runs_in_a_thread_and_a_coroutine_function_on_the_loop(
    backend, queue
) -> None:
    here = threading.get_ident()
    plain, coroutine = await queue.enqueue_many([Task(thread), Task(thread_async)])
    await Worker(backend).drain()
    assert await queue.result(plain, timeout=0) != here
    assert await queue.result(coroutine, timeout=0) == here


# -- tasks that enqueue ----------------------------------------------------------------


async def follow_up(queue: TaskQueue, gate: Gate) -> str:
    return str(await queue.enqueue(visit, gate, "child"))


def follow_up_in_a_thread(queue: SyncTaskQueue, gate: Gate) -> str:
    return str(queue.enqueue(visit, gate, "child"))


async def test_a_task_enqueues_to_its_own_queue(backend, queue, gate) -> None:
    parent = await queue.enqueue(follow_up, queue, gate)
    await Worker(backend).drain()
    child = await queue.result(parent, timeout=0)
    assert await queue.result(child, timeout=0) == "child"


async def test_a_task_in_a_thread_enqueues_to_its_own_queue(backend, queue, gate) -> None:
    with SyncTaskQueue(backend) as sync_queue:
        parent = await queue.enqueue(follow_up_in_a_thread, sync_queue, gate)
        await Worker(backend).drain()
        child = await queue.result(parent, timeout=0)
        assert await queue.result(child, timeout=0) == "child"


async def test_a_closure_carries_the_queue_that_it_enqueues_to(backend, queue, gate) -> None:
    async def follow() -> str:
        return str(await queue.enqueue(visit, gate, "child"))

    parent = await queue.enqueue(follow)
    await Worker(backend).drain()
    child = await queue.result(parent, timeout=0)
    assert await queue.result(child, timeout=0) == "child"


# -- functions that were made enqueueable ----------------------------------------------


async def test_a_function_made_enqueueable_can_still_be_called(queue) -> None:
    double = queue.task(lambda n: 2 * n)
    double_async = queue.task(closure_async(1))
    assert double(4) == 8
    assert await double_async(4) == 5


@pytest.mark.parametrize("shape", ["def", "async def", "closure", "async closure", "lambda"])
async def test_a_function_made_enqueueable_runs(backend, queue, shape) -> None:
    function, *args = SHAPES[shape]
    task = queue.task(function)
    ids = [await task.enqueue(*args), await queue.enqueue(task, *args)]
    ids += await queue.enqueue_many([task.call(*args)])
    await Worker(backend).drain()
    assert [await queue.result(task_id, timeout=0) for task_id in ids] == [3, 3, 3]


MODULE = """
    from sitq import SQLiteBackend, TaskQueue

    queue = TaskQueue(SQLiteBackend("tasks.db"))

    @queue.task
    async def greet(name):
        return f"hello {name}"

    @queue.task(priority=3)
    def greet_all(*names):
        return [f"hello {name}" for name in names]

    @queue.task
    async def greet_twice(name):
        return [await greet.enqueue(name), await greet.enqueue(name)]
"""
ENQUEUE = """
    async def main():
        print(await greet.enqueue("ann"))
        print(await greet_all.enqueue("bob", "cid"))
        print(await greet_twice.enqueue("dan"))

    import anyio
    anyio.run(main, backend=LOOP)
"""
WORK = """
    import sys
    import anyio
    from sitq import SQLiteBackend, TaskQueue, Worker

    async def main():
        backend = SQLiteBackend("tasks.db")
        await Worker(backend).drain()
        for task_id in sys.argv[1:]:
            result = await TaskQueue(backend).get_result(task_id, timeout=0)
            value = TaskQueue(backend).deserialize_result(result)
            print(value if "hello" in str(value) else f"{len(value)} ids")

    anyio.run(main, backend=LOOP)
"""


@pytest.mark.parametrize("home", ["module", "main"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_function_made_enqueueable_runs_in_another_process(tmp_path, home, loop) -> None:
    module, enqueue, work = (dedent(text) for text in (MODULE, ENQUEUE, WORK))
    if home == "module":
        (tmp_path / "greetings.py").write_text(module)
        (tmp_path / "enqueue.py").write_text("from greetings import *\n" + enqueue)
    else:  # and the worker's process knows nothing of the functions
        (tmp_path / "enqueue.py").write_text(module + enqueue)
    (tmp_path / "work.py").write_text(work)

    def run(script: str, *args: str) -> list[str]:
        source = (tmp_path / script).read_text().replace("LOOP", repr(loop))
        (tmp_path / script).write_text(source)
        done = subprocess.run(
            [sys.executable, "-W", "error", script, *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=20,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    ids = run("enqueue.py")
    assert run("work.py", *ids) == ["hello ann", "['hello bob', 'hello cid']", "2 ids"]
