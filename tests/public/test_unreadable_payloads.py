"""What a worker cannot read waits, uncharged, for one that can; nothing is guessed at."""

import json
import sqlite3
from contextlib import closing

import pytest
from gated_tasks import hold, stays, until, visit
from shapes import add

from sitq import SerializationError, Serializer, TaskQueue, ValidationError, Worker

pytestmark = pytest.mark.anyio


class Json(Serializer):
    """A format of one's own: calls of `add`, and numbers."""

    name = "json-1"

    def dumps(self, value) -> bytes:
        if isinstance(value, tuple):
            value = [value[1], value[2]]
        return json.dumps(value).encode()

    def loads(self, data):
        value = json.loads(data)
        return (add, *value) if isinstance(value, list) else value


class Newer(Json):
    """Writes a newer format, and still reads the older one."""

    name = "json-2"

    def stamps(self):
        return ("json-1", "json-2")


@pytest.fixture
def json_queue(backend):
    return TaskQueue(backend, Json())


async def test_a_serializer_of_ones_own_writes_calls_and_results(backend, json_queue) -> None:
    task_id = await json_queue.enqueue(add, 1, b=2)
    await Worker(backend, Json()).drain()
    result = await json_queue.get_result(task_id, timeout=0)
    assert json_queue.deserialize_result(result) == 3
    assert result.value.endswith(b"3")


async def test_a_foreign_payload_is_parked_pending_and_uncharged(
    backend, queue, json_queue, gate, view
) -> None:
    task_id = await json_queue.enqueue(add, 1, 2)
    async with Worker(backend) as worker:
        await until(lambda: view.state(task_id) == "parked")
        after = await queue.enqueue(visit, gate, "after")
        assert await queue.result(after, timeout=10) == "after"
        await stays(lambda: view.state(task_id) == "parked")
        assert worker._running
    row = view.row(task_id)

    assert (row.attempt, row.crashes, row.started_ms, row.finished_ms) == (0, 0, None, None)
    for said in ("'json-1'", "this worker reads only", "waits for a worker that can read it"):
        assert said in row.error
    assert await json_queue.get_result(task_id, timeout=0) is None


async def test_a_parked_task_is_read_by_a_fitting_worker_that_starts_later(
    backend, json_queue, view
) -> None:
    task_id = await json_queue.enqueue(add, 1, 2)
    async with Worker(backend):
        await until(lambda: view.state(task_id) == "parked")
    async with Worker(backend, Json()):
        assert await json_queue.result(task_id, timeout=10) == 3
    result = await json_queue.get_result(task_id, timeout=0)
    assert (result.attempt, result.error) == (1, None)


async def test_a_parked_task_is_read_while_the_worker_that_could_not_goes_on(
    backend, queue, json_queue, gate, view
) -> None:
    task_id = await json_queue.enqueue(add, 1, 2)
    async with Worker(backend):
        await until(lambda: view.state(task_id) == "parked")
        await queue.enqueue(hold, gate)
        await until(lambda: gate.starts == 1)
        async with Worker(backend, Newer()):
            assert await TaskQueue(backend, Newer()).result(task_id, timeout=10) == 3
        gate.open()


async def test_drain_reads_what_was_parked_before_it(backend, json_queue, view) -> None:
    for number in range(5):
        task_id = await json_queue.enqueue(add, number, 2)
        async with Worker(backend):
            await until(lambda task_id=task_id: view.state(task_id) == "parked")
        await Worker(backend, Json()).drain()
        assert await json_queue.result(task_id, timeout=0) == number + 2


async def test_a_worker_that_reads_an_older_format_reads_it(backend, json_queue) -> None:
    task_id = await json_queue.enqueue(add, 1, 2)
    await Worker(backend, Newer()).drain()
    assert await TaskQueue(backend, Newer()).result(task_id, timeout=0) == 3


async def test_a_parked_task_can_be_cancelled(backend, json_queue, view) -> None:
    task_id = await json_queue.enqueue(add, 1, 2)
    async with Worker(backend):
        await until(lambda: view.state(task_id) == "parked")
    assert await json_queue.cancel(task_id)
    async with Worker(backend, Json()):
        await stays(lambda: view.state(task_id) == "cancelled")
    assert (await json_queue.get_result(task_id, timeout=0)).attempt == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("x'00'", "damaged"),
        ("x''", "damaged"),
        ("CAST('sq' AS BLOB)", "damaged"),
        ("CAST(x'737103' || substr(payload, 4) AS BLOB)", "newer sitq"),
        ("CAST(substr(payload, 1, 3) AS BLOB)", "damaged"),
        ("CAST(substr(payload, 1, 6) AS BLOB)", "damaged: its checksum"),
        ("CAST(substr(payload, 1, length(payload) - 1) AS BLOB)", "damaged: its checksum"),
        ("randomblob(100)", "damaged"),
    ],
    ids=[
        "one byte",
        "empty",
        "cut in the mark",
        "newer",
        "cut",
        "cut in the stamp",
        "cut at the end",
        "noise",
    ],
)
@pytest.mark.parametrize("make_backend", ["sqlite"], indirect=True)
async def test_a_damaged_payload_is_parked_and_the_worker_goes_on(
    queue, gate, view, damage, said
) -> None:
    task_id = await queue.enqueue(visit, gate)
    with closing(sqlite3.connect(queue.backend.path)) as db:
        db.execute(f"UPDATE sitq_tasks SET payload = {damage}")
        db.commit()
    async with Worker(queue.backend):
        await until(lambda: view.state(task_id) not in {"queued", "running"})
        after = await queue.enqueue(visit, gate, "after")
        assert await queue.result(after, timeout=10) == "after"
    row = view.row(task_id)

    assert (row.state, row.attempt) == ("parked", 0)
    assert said in row.error
    assert gate.order == ["after"]


@pytest.mark.parametrize("damage", ["x''", "x'00'", "x'7371'", "x'737102'", "x'73710205'"])
@pytest.mark.parametrize("make_backend", ["sqlite"], indirect=True)
async def test_a_result_that_was_damaged_is_a_named_error(backend, queue, damage) -> None:
    task_id = await queue.enqueue(add, 1, 2)
    await Worker(backend).drain()
    with closing(sqlite3.connect(backend.path)) as db:
        db.execute(f"UPDATE sitq_tasks SET result = {damage}")
        db.commit()
    with pytest.raises(SerializationError):
        await queue.result(task_id, timeout=0)


@pytest.mark.parametrize("name", ["", "x" * 101, "ünïcode"])
def test_a_serializer_needs_a_name_that_can_be_stamped(make_backend, name) -> None:
    serializer = Json()
    serializer.name = name
    with pytest.raises(ValidationError, match="1 to 100 ASCII characters"):
        TaskQueue(make_backend(), serializer)
