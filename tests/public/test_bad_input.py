"""What is wrong is refused by name: the value, the rule, the remedy; and nothing is stored."""

import os
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial

import anyio
import anyio.to_thread
import pytest
from shapes import add, takes_anything

from sitq import (
    BackendClosedError,
    BackendInUseError,
    FileRefusedError,
    ForeignFileError,
    MemoryBackend,
    NewerSchemaError,
    NoEventLoopError,
    NotADatabaseError,
    PostgresBackend,
    Retry,
    SerializationError,
    SitqError,
    SQLiteBackend,
    Task,
    TaskQueue,
    ValidationError,
    Worker,
)
from sitq.protocol.ops import Count

NAN, INF = float("nan"), float("inf")
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001


async def values():
    yield 1


def numbers():
    yield 1


class NotCallable:
    def __repr__(self) -> str:
        return "<not callable>"


class CallsGenerator:
    def __call__(self):
        yield 1


class Box:
    def __init__(self, inside) -> None:
        self.inside = inside


class SaysNo:
    def __reduce__(self):
        raise LookupError("never")


def lock():
    return threading.Lock()


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def using(function=add, args=(1,), **options):
    return lambda queue: queue.using(**options).enqueue(function, *args)


def calling(function, *args, **kwargs):
    return lambda queue: queue.enqueue(function, *args, **kwargs)


# what is done with a queue, the error, and what its message must say
REFUSED_AT_ENQUEUE = {
    # what cannot be called
    "None": (calling(None), ValidationError, ["a function or another callable", "None"]),
    "a number": (calling(3), ValidationError, ["a function or another callable", "3"]),
    "a name": (calling("shapes.add", 1), ValidationError, ["callable", "'shapes.add'"]),
    "an object": (calling(NotCallable()), ValidationError, ["callable", "<not callable>"]),
    "a coroutine": (
        lambda queue: queue.enqueue(takes_nothing()),
        ValidationError,
        ["not a call of it", "enqueue(takes_nothing, ...)", "not enqueue(takes_nothing(...))"],
    ),
    "an async generator": (calling(values), ValidationError, ["generator function", "list"]),
    "a generator": (calling(numbers), ValidationError, ["numbers", "generator function", "list"]),
    "an object that generates": (calling(CallsGenerator()), ValidationError, ["generator", "list"]),
    "a partial that generates": (calling(partial(numbers)), ValidationError, ["generator", "list"]),
    "a task that is none": (
        lambda queue: queue.enqueue_many([add]),
        ValidationError,
        ["enqueue_many takes tasks", "Task(function, ...)"],
    ),
    # arguments that do not fit
    "too few arguments": (
        calling(add),
        ValidationError,
        ["add(a, b=0)", "missing a required argument: 'a'"],
    ),
    "too many arguments": (calling(add, 1, 2, 3), ValidationError, ["too many positional"]),
    "an unknown keyword": (calling(add, 1, c=2), ValidationError, ["keyword argument 'c'"]),
    "one argument twice": (calling(add, 1, a=2), ValidationError, ["multiple values", "'a'"]),
    # arguments that cannot be kept
    "a lock": (
        calling(takes_anything, 1, lock()),
        SerializationError,
        ["args[1] of shapes.takes_anything", "lock", "make it again inside the task"],
    ),
    "a lock by keyword": (
        calling(takes_anything, key=lock()),
        SerializationError,
        ["kwargs['key']", "lock"],
    ),
    "a lock deep inside": (
        calling(takes_anything, key=Box({"locks": [1, lock()]})),
        SerializationError,
        ["kwargs['key'].inside['locks'][1]", "lock"],
    ),
    "a generator as an argument": (
        calling(takes_anything, numbers()),
        SerializationError,
        ["args[0]", "generator"],
    ),
    "what refuses to be kept": (
        calling(takes_anything, SaysNo()),
        SerializationError,
        ["args[0]", "SaysNo", "never"],
    ),
    "what is nested without an end": (
        calling(takes_anything, nested(100_000)),
        SerializationError,
        ["args[0]", "list"],
    ),
    "too large": (
        calling(takes_anything, b"x" * 70_000),
        ValidationError,
        ["shapes.takes_anything", "70,", "65,536", "max_payload", "pass a path or a key"],
    ),
    # times
    "a naive eta": (using(eta=NAIVE), ValidationError, ["aware", "2030", "timezone.utc"]),
    "a naive eta by keyword": (calling(add, 1, eta=NAIVE), ValidationError, ["aware", "2030"]),
    "a date": (using(eta=date(2030, 1, 1)), ValidationError, ["aware datetime", "delay="]),
    "a timestamp": (using(eta=1.9e9), ValidationError, ["aware datetime", "1900000000.0"]),
    "a text as eta": (using(eta="2030-01-01"), ValidationError, ["datetime", "'2030-01-01'"]),
    "a far eta": (using(eta=datetime(9999, 1, 1, tzinfo=UTC)), ValidationError, ["2170", "9999"]),
    "an eta after the calendar": (
        using(eta=datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))),
        ValidationError,
        ["calendar", "9999"],
    ),
    "an eta before the calendar": (
        using(eta=datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))),
        ValidationError,
        ["calendar"],
    ),
    "eta and delay": (
        using(eta=datetime(2030, 1, 1, tzinfo=UTC), delay=1),
        ValidationError,
        ["eta and delay", "one of them"],
    ),
    # names and ids
    "an empty id": (using(task_id=""), ValidationError, ["task_id", "1 to 255", "''"]),
    "a long id": (using(task_id="x" * 256), ValidationError, ["task_id", "1 to 255", "256"]),
    "a number as id": (using(task_id=5), ValidationError, ["task_id", "string", "5"]),
    "a newline in an id": (using(task_id="a\nb"), ValidationError, ["task_id", "control", r"a\nb"]),
    "NUL in an id": (using(task_id="a\0"), ValidationError, ["task_id", "control", r"a\x00"]),
    "a surrogate in an id": (using(task_id="a\ud800"), ValidationError, ["task_id", r"\ud800"]),
    "an empty queue": (using(queue=""), ValidationError, ["queue", "1 to 255"]),
    "a queue of None": (using(queue=None), ValidationError, ["queue", "string", "None"]),
    "a tab in a queue": (using(queue="a\tb"), ValidationError, ["queue", "control"]),
    "an unknown option": (using(prio=1), ValidationError, ["'prio'", "priority"]),
}


def _numbers(name, rule, wrong):
    return {
        f"{name}={value!r}"[:50]: (
            using(**{name: value}),
            ValidationError,
            [name, rule, repr(value)],
        )
        for value in wrong
    }


REFUSED_AT_ENQUEUE |= {
    **_numbers("delay", "seconds or a timedelta", ["5", None, True, b"5"]),
    **_numbers("delay", "finite", [NAN, INF, 1e300]),
    **_numbers("delay", "0 or more", [-1, -0.001, -INF, timedelta(seconds=-1)][:2]),
    **_numbers("timeout", "seconds or a timedelta", ["5", True, [5]]),
    **_numbers("timeout", "finite", [NAN, INF]),
    **_numbers("timeout", "more than 0", [0, 0.0, -1]),
    **_numbers("priority", "whole number", [1.5, "1", None, True, NAN]),
    **_numbers("priority", "from", [2**31, -(2**31), 10**100]),
    **_numbers("max_crashes", "whole number", [1.5, "3", True, None]),
    **_numbers("max_crashes", "from 1", [0, -1, 1001]),
    **_numbers("retry", "Retry or None", [3, "3", True, {}]),
}


async def takes_nothing():
    return None


@pytest.mark.anyio
@pytest.mark.parametrize("name", REFUSED_AT_ENQUEUE)
async def test_bad_input_is_refused_by_name_and_nothing_is_stored(make_backend, name) -> None:
    act, named, says = REFUSED_AT_ENQUEUE[name]
    backend = make_backend(max_payload=2**16)
    queue = TaskQueue(backend)
    with pytest.raises(SitqError) as caught:
        await act(queue)
    error = caught.value
    stored = await _count(backend)
    await backend.close()

    assert type(error) is named
    assert stored == 0
    if named is ValidationError:
        assert isinstance(error, ValueError)
        assert isinstance(error, TypeError)
    for said in says:
        assert said in str(error)


async def _count(backend) -> int:
    store = backend.open_store()
    try:
        (outcome,) = store.apply([Count()])
        return sum(number for _, _, number in outcome.rows)
    finally:
        store.close()


# -- what is refused before there is anything to store ---------------------------------

MEMORY = MemoryBackend()
REFUSED_AT_ONCE = {
    **{
        f"max_concurrency={value!r}"[:40]: (
            partial(Worker, MEMORY, max_concurrency=value),
            ["max_concurrency", "1 to 1000", repr(value)],
        )
        for value in (0, -1, 1001, 1.5, 1.0, "4", True, None, NAN)
    },
    **{
        f"poll_interval={value!r}": (
            partial(Worker, MEMORY, poll_interval=value),
            ["poll_interval", repr(value)],
        )
        for value in (0, 0.0, -1, NAN, INF, "1", True, None)
    },
    **{
        f"lease_for={value!r}": (partial(Worker, MEMORY, lease_for=value), ["lease_for", "1 to"])
        for value in (0, 0.5, -1, NAN, INF, "30", True, None)
    },
    **{
        f"grace={value!r}": (partial(Worker, MEMORY, grace=value), ["grace", repr(value)])
        for value in (-1, NAN, INF, "1", True)
    },
    "queues as a text": (partial(Worker, MEMORY, queues="mail"), ["list of names", "'mail'"]),
    **{
        f"blocked_after={value!r}": (
            partial(Worker, MEMORY, blocked_after=value),
            ["blocked_after", repr(value)],
        )
        for value in (0, -1, "2", True, float("nan"))
    },
    "no queues": (partial(Worker, MEMORY, queues=[]), ["1 to 100 names", "not 0"]),
    "too many queues": (
        partial(Worker, MEMORY, queues=[f"q{n}" for n in range(101)]),
        ["1 to 100 names", "not 101"],
    ),
    "a queue without a name": (partial(Worker, MEMORY, queues=["a", ""]), ["1 to 255"]),
    "a queue that is no text": (partial(Worker, MEMORY, queues=["a", 5]), ["string", "5"]),
    "a worker on a path": (partial(Worker, "tasks.db"), ["SQLiteBackend('tasks.db')"]),
    **{
        f"record={value!r}": (partial(Worker, MEMORY, record=value), ["record", repr(value)])
        for value in (5, b"x.rec", "", "a\0b", True)
    },
    "a worker on nothing": (partial(Worker, None), ["Backend", "None"]),
    "a queue on a path": (partial(TaskQueue, "tasks.db"), ["SQLiteBackend('tasks.db')"]),
    "a queue on a class": (partial(TaskQueue, MemoryBackend), ["Backend", "MemoryBackend"]),
    "a serializer that is a module": (partial(Worker, MEMORY, sqlite3), ["Serializer", "sqlite3"]),
    "a serializer that is a class": (
        partial(TaskQueue, MEMORY, object),
        ["serializer must be a Serializer"],
    ),
    **{
        f"path {value!r}": (partial(SQLiteBackend, value), says)
        for value, says in (
            ("", ["path", "file", "''"]),
            (None, ["path", "str or a Path", "None"]),
            (5, ["path", "str or a Path", "5"]),
            (b"tasks.db", ["path", "tasks.db"]),
            ("a\0b", ["path", r"a\x00b"]),
            (":memory:", ["':memory:'", "MemoryBackend()"]),
            ("file:tasks.db?mode=ro", ["plain path", "file:tasks.db?mode=ro"]),
        )
    },
    "durability": (
        partial(SQLiteBackend, "t.db", durability="off"),
        ["durability", "'full' or 'normal'", "'off'"],
    ),
    **{
        f"busy_timeout={value!r}": (
            partial(SQLiteBackend, "t.db", busy_timeout=value),
            ["busy_timeout", repr(value)],
        )
        for value in (-1, NAN, INF, "30", True, None)
    },
    **{
        f"dsn {value!r}": (partial(PostgresBackend, value), ["dsn", *says])
        for value, says in (
            (None, ["'postgresql://user@host/database'", "not None"]),
            (5, ["'host=... dbname=...'", "not 5"]),
            ("tasks.db", ["'host=... dbname=...'"]),
            ("postgresql://me:secret@host/db?nonsense=1", ["query parameter", "nonsense"]),
        )
    },
    **{
        f"schema={value!r}": (
            partial(PostgresBackend, "dbname=app", schema=value),
            ["schema", repr(value)],
        )
        for value in ("", "Sitq", "a.b", "1a", 'a"b', "a" * 51, "pg_sitq", None, 5)
    },
    **{
        f"timeout={value!r} of Postgres": (
            partial(PostgresBackend, "dbname=app", timeout=value),
            ["timeout", repr(value)],
        )
        for value in (0, -1, NAN, INF, "30", True, None)
    },
    **{
        f"retention={value!r}": (
            partial(MemoryBackend, retention=value),
            ["retention", repr(value)],
        )
        for value in (-1, NAN, INF, "7 days", True)
    },
    **{
        f"max_payload={value!r}": (
            partial(MemoryBackend, max_payload=value),
            ["max_payload", repr(value)],
        )
        for value in (0, -1, 1.5, "16", True, None, 2**31)
    },
    **{
        f"Retry(attempts={value!r})": (partial(Retry, attempts=value), ["attempts", repr(value)])
        for value in (0, -1, 1001, 1.5, "3", True, None)
    },
    **{
        f"Retry(delay={value!r})": (partial(Retry, delay=value), ["delay", repr(value)])
        for value in (-1, NAN, INF, "1", True, None)
    },
    **{
        f"Retry(max_delay={value!r})": (partial(Retry, max_delay=value), ["max_delay", repr(value)])
        for value in (-1, NAN, INF, "1", True, None)
    },
    **{
        f"Retry(factor={value!r})": (partial(Retry, factor=value), ["factor", repr(value)])
        for value in (0.5, 0, -1, 1001, NAN, INF, "2", True, None)
    },
    **{
        f"Retry(jitter={value!r})": (partial(Retry, jitter=value), ["jitter", repr(value)])
        for value in (-0.1, 1.1, NAN, INF, "0", True, None)
    },
    "a task of no function": (partial(Task, 5), ["callable", "5"]),
    "a task with wrong arguments": (partial(Task, add, 1, 2, 3), ["add(a, b=0)", "too many"]),
    "a decorator on no function": (TaskQueue(MEMORY).task(priority=1), ["callable", "'add'"]),
}


def test_a_dsn_that_cannot_be_read_is_not_quoted() -> None:
    for dsn in ("host=h password=two secrets", "postgresql://me:secrets@[host/db"):
        with pytest.raises(ValidationError, match="dsn must be such as") as caught:
            PostgresBackend(dsn)
        assert "secrets" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:half@secrets@host/db",
        "postgresql://me:half@secrets@host,two/db",
        "host=half@secrets",
    ],
)
def test_an_at_sign_that_was_not_escaped_is_named_and_what_follows_is_not(dsn) -> None:
    with pytest.raises(ValidationError, match="is written %40") as caught:
        PostgresBackend(dsn)
    assert "secrets" not in str(caught.value)


def test_an_at_sign_that_is_escaped_or_begins_the_name_of_a_socket_is_right() -> None:
    for dsn in ("postgresql://me:half%40secrets@host/db", "host=@abstract user=me"):
        assert "secrets" not in repr(PostgresBackend(dsn))


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("postgresql+asyncpg://me:secrets@host/db", "not with 'postgresql\\+asyncpg://'"),
        ("mysql://me:secrets@host/db", "must begin with 'postgresql://', not with 'mysql://'"),
    ],
)
def test_a_dsn_of_something_else_is_told_what_it_must_be(dsn, says) -> None:
    with pytest.raises(ValidationError, match=says) as caught:
        PostgresBackend(dsn)
    assert "secrets" not in str(caught.value)


@pytest.mark.parametrize("name", REFUSED_AT_ONCE)
def test_bad_input_is_refused_at_once(name) -> None:
    make, says = REFUSED_AT_ONCE[name]
    arguments = ["add"] if name == "a decorator on no function" else []
    with pytest.raises(ValidationError) as caught:
        make(*arguments)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)
    for said in says:
        assert said in str(caught.value)


@pytest.mark.parametrize("most", [1, 1000])
def test_the_bounds_of_max_concurrency_are_allowed(most) -> None:
    assert Worker(MEMORY, max_concurrency=most).max_concurrency == most


@pytest.mark.anyio
@pytest.mark.parametrize("timeout", [-1, NAN, INF, "1", True, timedelta(-1)], ids=repr)
async def test_a_wait_needs_a_time_that_can_be_waited_for(queue, timeout) -> None:
    for wait in (queue.get_result, queue.result):
        with pytest.raises(ValidationError, match="timeout"):
            await wait("some-id", timeout=timeout)


@pytest.mark.anyio
@pytest.mark.parametrize("task_id", ["", None, 5, "x" * 256, "a\0"], ids=lambda v: repr(v)[:9])
async def test_a_wait_needs_an_id(queue, task_id) -> None:
    for wait in (queue.get_result, queue.result):
        with pytest.raises(ValidationError, match="task_id"):
            await wait(task_id)


# -- paths -----------------------------------------------------------------------------


def _foreign(path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
        db.commit()


def _newer(path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE sitq_schema (version INTEGER NOT NULL) STRICT")
        db.execute("INSERT INTO sitq_schema VALUES (999)")
        db.commit()


PATHS = {
    "a text": (lambda p: p.write_text("not a database\n" * 99), NotADatabaseError, "SQLite"),
    "a folder": (lambda p: p.mkdir(), FileRefusedError, "folder"),
    "foreign": (_foreign, ForeignFileError, "another program"),
    "newer": (_newer, NewerSchemaError, "Upgrade"),
    "a pipe": (os.mkfifo, FileRefusedError, "regular file"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", PATHS)
async def test_a_path_that_cannot_hold_a_queue_is_refused_and_left_alone(tmp_path, kind) -> None:
    make, named, said = PATHS[kind]
    path = tmp_path / "tasks.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    backend = SQLiteBackend(path)
    for use in (backend.connect, partial(TaskQueue(backend).enqueue, add, 1)):
        with pytest.raises(named, match=said) as caught:
            await use()
        assert str(path) in str(caught.value)
        assert isinstance(caught.value, FileRefusedError)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tasks.db"]
    assert before is None or path.read_bytes() == before


@pytest.mark.anyio
async def test_a_path_in_a_folder_that_is_not_there_is_refused(tmp_path) -> None:
    backend = SQLiteBackend(tmp_path / "none" / "tasks.db")
    with pytest.raises(FileRefusedError, match=r"no folder .*none.*make it first"):
        await TaskQueue(backend).enqueue(add, 1)
    assert list(tmp_path.iterdir()) == []


# -- the wrong moment, loop or process -------------------------------------------------


@pytest.mark.anyio
async def test_a_closed_backend_says_that_it_was_closed(make_backend) -> None:
    backend = make_backend()
    queue = TaskQueue(backend)
    task_id = await queue.enqueue(add, 1)
    await backend.close()
    for use in (
        partial(queue.enqueue, add, 1),
        partial(queue.get_result, task_id, timeout=0),
        partial(queue.cancel, task_id),
        Worker(backend).start,
        Worker(backend).__aenter__,
    ):
        with pytest.raises(BackendClosedError, match=r"closed; await its connect\(\)"):
            await use()

    await backend.connect()
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == 1
    await backend.close()
    await backend.close()


@pytest.mark.anyio
async def test_a_backend_at_work_in_another_loop_is_refused(backend, queue) -> None:
    task_id = await queue.enqueue(add, 1)
    errors = []

    async def elsewhere() -> None:
        for use in (partial(queue.enqueue, add, 2), Worker(backend).start):
            try:
                await use()
            except BackendInUseError as error:
                errors.append(str(error))

    for loop in ("asyncio", "trio"):
        await anyio.to_thread.run_sync(partial(anyio.run, elsewhere, backend=loop))
    assert len(errors) == 4
    assert all("another event loop" in said and "of its own" in said for said in errors)

    await Worker(backend).drain()  # here it goes on
    assert await queue.result(task_id, timeout=0) == 1


@pytest.mark.parametrize("loops", [["asyncio", "trio"], ["trio", "asyncio"], ["asyncio"] * 3])
def test_a_backend_goes_on_in_the_next_loop_once_the_first_has_ended(make_backend, loops) -> None:
    backend = make_backend()
    queue = TaskQueue(backend)

    async def use(last: bool) -> None:
        task_id = await queue.enqueue(add, 1)
        await Worker(backend).drain()
        assert await queue.result(task_id, timeout=0) == 1
        if last:
            await backend.close()

    for number, loop in enumerate(loops, start=1):
        anyio.run(use, number == len(loops), backend=loop)


def test_without_an_event_loop_it_says_so_and_names_what_needs_none(make_backend) -> None:
    backend = make_backend()
    for coroutine in (
        TaskQueue(backend).enqueue(add, 1),
        TaskQueue(backend).get_result("some-id"),
        Worker(backend).start(),
    ):
        with pytest.raises(NoEventLoopError, match="SyncTaskQueue"):
            coroutine.send(None)
