"""A payload that is not what was stored, or not for this program: told, and nobody else's trouble.

More of them are in `tests/public/test_unreadable_payloads.py`.
"""

import importlib
import os
import subprocess
import sys
import threading

import pytest

from sitq import CloudpickleSerializer, TaskQueue, Worker
from sitq.protocol.ops import Fetch
from tests.hostile import tasks


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_payload_with_any_bit_flipped_is_parked_and_nothing_of_it_is_run(
    loop, sqlite_path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.flipping", loop, sqlite_path],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    bits, parked, unclear = map(int, done.stdout.split())
    assert bits > 500
    assert parked == bits
    assert unclear == 0


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["function", "class of an argument"])
async def test_what_was_renamed_since_fails_that_task_and_is_named(
    backend, tmp_path, monkeypatch, what
) -> None:
    queue = TaskQueue(backend)
    (tmp_path / "moving.py").write_text("class Order: ...\ndef work(order): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    moving = importlib.import_module("moving")
    task_id = await queue.enqueue(moving.work, moving.Order())
    name = "work" if what == "function" else "Order"
    delattr(moving, name)
    neighbour = await queue.enqueue(tasks.pass_by)
    await Worker(backend).drain()
    del sys.modules["moving"]

    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.error_type, result.attempt) == ("failed", "AttributeError", 1)
    assert "the payload of moving.work could not be read" in result.error
    assert name in result.error
    assert await queue.result(neighbour, timeout=0) == "passed"


class OfAnotherPython(CloudpickleSerializer):
    """Writes as a Python does that this worker does not know."""

    def encode(self, value):
        return "cloudpickle-3.99", super().encode(value)[1]

    def stamps(self):
        return (*super().stamps(), "cloudpickle-3.99")


@pytest.mark.anyio
async def test_what_another_python_wrote_by_value_waits_for_one(backend) -> None:
    queue, another = TaskQueue(backend), TaskQueue(backend, OfAnotherPython())
    task_id = await another.enqueue(tasks.pass_by)
    neighbour = await queue.enqueue(tasks.pass_by)
    await Worker(backend).drain()
    assert await queue.result(neighbour, timeout=0) == "passed"

    session = await backend.session()
    (found,) = await session.reader.submit(Fetch((task_id,)))
    row = found.rows[task_id]
    assert (row.state, row.attempt, row.crashes) == ("parked", 0, 0)
    for said in ("'cloudpickle-3.99'", "this worker reads only", "waits for a worker"):
        assert said in row.error

    await Worker(backend, OfAnotherPython()).drain()
    assert await another.result(task_id, timeout=0) == "passed"


may_be_pickled = threading.Event()


class SlowToPickle:
    def __reduce__(self):
        assert may_be_pickled.wait(30)
        return str, ("pickled",)


def give_slowly() -> SlowToPickle:
    return SlowToPickle()


@pytest.mark.anyio
async def test_a_result_that_takes_its_time_to_be_written_keeps_one_slot(backend) -> None:
    may_be_pickled.clear()
    queue = TaskQueue(backend)
    async with Worker(backend, max_concurrency=2):
        slow = await queue.enqueue(give_slowly)
        neighbour = await queue.enqueue(tasks.pass_by)
        assert await queue.result(neighbour, timeout=30) == "passed"
        assert await queue.get_result(slow, timeout=0) is None
        may_be_pickled.set()
        assert await queue.result(slow, timeout=30) == "pickled"
