"""Tasks that are enqueued, and finished, within the caller's own transaction."""

import contextlib
import threading
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread
import psycopg
import pytest
from psycopg.rows import dict_row

from sitq import (
    BackendError,
    MemoryBackend,
    NewerSchemaError,
    PostgresBackend,
    Retry,
    SerializationError,
    StoreBusyError,
    StoreError,
    SyncTaskQueue,
    Task,
    TaskConflictError,
    TaskLostError,
    TaskQueue,
    TaskStatus,
    ValidationError,
    Worker,
    WorkerError,
    current_task,
)
from sitq.protocol import waiter
from sitq.protocol.ops import Count
from tests.conftest import LOOPS

pytestmark = pytest.mark.anyio

NEVER = 3600.0
"""Seconds between two looks: what is found before that was told."""
SOON = 30.0


@pytest.fixture(
    params=[
        ("asyncio", "async"),
        ("uvloop", "async"),
        ("asyncio", "sync"),
        ("trio", "sync"),  # psycopg's AsyncConnection is for asyncio alone
    ],
    ids="-".join,
)
def way(request):
    return request.param


@pytest.fixture
def anyio_backend(way):
    return LOOPS[way[0]]


class Own:
    """A connection of the caller's, of either kind, and the queue that goes with it."""

    def __init__(self, connection, backend) -> None:
        self.connection = connection
        self.is_async = isinstance(connection, psycopg.AsyncConnection)
        self.queue = (TaskQueue if self.is_async else SyncTaskQueue)(backend)

    async def call(self, function, *args, **kwargs):
        if self.is_async:
            return await function(*args, **kwargs)
        return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))

    async def execute(self, sql, *params):
        cursor = await self.call(self.connection.execute, sql, params or None)
        return await self.call(cursor.fetchall) if cursor.description else None

    async def enqueue(self, function, *args, **options):
        enqueuer = self.queue.within(self.connection).using(**options)
        return await self.call(enqueuer.enqueue, function, *args)

    async def commit(self):
        await self.call(self.connection.commit)

    async def rollback(self):
        await self.call(self.connection.rollback)

    @contextlib.asynccontextmanager
    async def transaction(self):
        transaction = self.connection.transaction()
        if self.is_async:
            async with transaction:
                yield
        else:
            with transaction:
                yield


@pytest.fixture
async def backend(postgres_dsn):
    async with PostgresBackend(postgres_dsn) as backend:
        yield backend


@pytest.fixture
async def connect(way, postgres_dsn, backend):
    """Make connections of the caller's, to the database of the queue."""
    opened = []

    async def connect_(dsn=postgres_dsn, **options) -> Own:
        kind = psycopg.AsyncConnection if way[1] == "async" else psycopg.Connection
        made = kind.connect(dsn, **options)
        opened.append(Own(await made if way[1] == "async" else made, backend))
        return opened[-1]

    yield connect_
    for own in opened:
        await own.call(own.connection.close)


@pytest.fixture
async def own(connect):
    own = await connect()
    await own.execute("CREATE TABLE effects (number int, is_last bool DEFAULT true)")
    await own.commit()
    return own


@pytest.fixture
def queue(backend):
    return TaskQueue(backend)


async def states(backend) -> list[str]:
    session = await backend.session()
    (counted,) = await session.reader.submit(Count())
    return [str(state) for _, state, n in counted.rows for _ in range(n)]


# -- enqueue ---------------------------------------------------------------------------------


async def test_a_task_is_there_once_its_transaction_is_committed(own, backend, queue) -> None:
    await own.execute("INSERT INTO effects VALUES (1)")
    task_id = await own.enqueue(len, "ab", priority=3)
    assert await states(backend) == []

    await own.commit()
    assert await states(backend) == ["queued"]
    await Worker(backend).drain()
    assert await queue.result(task_id) == 2


async def test_a_task_was_never_there_if_its_transaction_is_rolled_back(own, backend) -> None:
    await own.execute("INSERT INTO effects VALUES (1)")
    await own.enqueue(len, "ab")
    await own.rollback()

    assert await states(backend) == []
    assert await own.execute("SELECT * FROM effects") == []


async def test_an_exception_that_leaves_the_block_takes_the_task_with_it(own, backend) -> None:
    async def fail() -> None:
        async with own.transaction():
            await own.enqueue(len, "ab")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await states(backend) == []


async def test_a_savepoint_that_is_rolled_back_takes_its_tasks_and_no_others(
    own, backend, queue
) -> None:
    async with own.transaction():
        kept = await own.enqueue(len, "ab")
        with contextlib.suppress(ZeroDivisionError):
            async with own.transaction():
                await own.enqueue(len, "abc")
                raise ZeroDivisionError
    assert await states(backend) == ["queued"]
    await Worker(backend).drain()
    assert await queue.result(kept) == 2


async def test_many_are_enqueued_and_a_time_to_start_is_kept(own, backend) -> None:
    within = own.queue.within(own.connection)
    await own.call(within.enqueue_many, [Task(len, "a"), Task(len, "b").using(delay=500)])
    assert await own.call(within.enqueue_many, []) == []
    await own.commit()

    assert sorted(await states(backend)) == ["queued", "scheduled"]


async def test_an_idle_worker_hears_of_it_at_the_commit(own, backend, monkeypatch) -> None:
    monkeypatch.setattr(waiter, "QUICKEST", NEVER)
    monkeypatch.setattr(waiter, "SLOWEST", NEVER)
    queue = TaskQueue(backend)
    async with anyio.create_task_group() as group:
        worker = Worker(backend, poll_interval=NEVER)
        group.start_soon(worker.start)
        assert await queue.result(await queue.enqueue(len, "ab"), timeout=SOON) == 2
        async with own.transaction():
            task_id = await own.enqueue(len, "abc")
        assert await queue.result(task_id, timeout=SOON) == 3
        await worker.stop()


async def test_an_id_of_ones_own_is_idempotent_and_another_call_a_conflict(own, backend) -> None:
    await own.enqueue(len, "ab", task_id="t")
    await own.enqueue(len, "ab", task_id="t")
    with pytest.raises(TaskConflictError):
        await own.enqueue(len, "abc", task_id="t")
    await own.execute("INSERT INTO effects VALUES (1)")  # the transaction has not failed by that
    await own.commit()

    assert await states(backend) == ["queued"]
    await own.enqueue(len, "ab", task_id="t")
    await own.commit()
    assert await states(backend) == ["queued"]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_every_isolation_level_will_do(own, backend, level) -> None:
    await own.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
    await own.enqueue(len, "ab", task_id="t")
    await own.commit()
    assert await states(backend) == ["queued"]


async def test_what_cannot_be_brought_into_line_is_to_be_run_again(own, connect) -> None:
    await own.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await own.execute("SELECT 1 FROM effects")
    other = await connect()
    await other.enqueue(len, "ab", task_id="t")
    await other.commit()

    with pytest.raises(StoreBusyError, match="run it again") as caught:
        await own.enqueue(len, "ab", task_id="t")
    assert isinstance(caught.value.__cause__, psycopg.errors.SerializationFailure)


async def test_what_the_caller_has_set_for_its_own_rows_does_not_matter(connect, backend) -> None:
    own = await connect(row_factory=dict_row, prepare_threshold=None)
    own.connection.adapters.register_loader("text", psycopg.types.string.ByteaLoader)
    own.connection.adapters.register_dumper(str, psycopg.types.string.BytesDumper)
    own.connection.cursor_factory = (
        psycopg.AsyncClientCursor if own.is_async else psycopg.ClientCursor
    )
    await own.enqueue(len, "ab", task_id="t")
    await own.enqueue(len, "ab", task_id="t")
    await own.commit()
    assert await states(backend) == ["queued"]


async def test_nothing_of_the_connection_is_changed(own) -> None:
    settings = "SELECT name, setting FROM pg_settings ORDER BY name"
    before = await own.execute(settings)
    await own.enqueue(len, "ab")
    assert await own.execute(settings) == before


# -- what is refused -------------------------------------------------------------------------


async def test_a_connection_without_a_transaction_is_refused(connect, backend) -> None:
    own = await connect(autocommit=True)
    with pytest.raises(ValidationError, match=r"autocommit mode .* connection\.transaction\(\)"):
        await own.enqueue(len, "ab")
    async with own.transaction():
        await own.enqueue(len, "ab")
    assert await states(backend) == ["queued"]


async def test_a_transaction_that_has_failed_is_refused(own, backend) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await own.execute("SELECT 1/0")
    with pytest.raises(StoreError, match="has failed before"):
        await own.enqueue(len, "ab")
    await own.rollback()
    await own.enqueue(len, "ab")
    await own.commit()
    assert await states(backend) == ["queued"]


async def test_a_transaction_that_may_only_read_is_refused_and_lives_on(own) -> None:
    await own.execute("SET TRANSACTION READ ONLY")
    with pytest.raises(StoreError, match="may only read"):
        await own.enqueue(len, "ab")
    assert await own.execute("SELECT * FROM effects") == []


async def test_a_closed_connection_is_refused(own) -> None:
    await own.call(own.connection.close)
    with pytest.raises(StoreError, match="closed or lost"):
        await own.enqueue(len, "ab")


async def test_a_database_without_a_queue_is_named(connect, postgres_server) -> None:
    name = postgres_server.create_database()
    own = await connect(postgres_server.dsn(name))
    with pytest.raises(StoreError, match=rf"'{name}' .* has no queue in the schema 'sitq'"):
        await own.enqueue(len, "ab")


async def test_a_schema_that_nobody_has_made_is_named(own, postgres_dsn) -> None:
    own.queue = type(own.queue)(PostgresBackend(postgres_dsn, schema="elsewhere"))
    with pytest.raises(StoreError, match="has no queue in the schema 'elsewhere'"):
        await own.enqueue(len, "ab")


async def test_a_newer_schema_is_refused(own) -> None:
    await own.execute("UPDATE sitq.schema_version SET version = 99")
    with pytest.raises(NewerSchemaError):
        await own.enqueue(len, "ab")
    await own.rollback()


async def test_another_encoding_is_refused(connect) -> None:
    own = await connect(client_encoding="latin1")
    with pytest.raises(ValidationError, match="client_encoding='utf8'"):
        await own.enqueue(len, "ab")


async def test_a_connection_on_which_something_is_under_way_is_refused(own) -> None:
    if not own.is_async:
        with own.connection.cursor().copy("COPY effects (number) FROM STDIN") as copy:
            with pytest.raises(ValidationError, match="under way"):
                own.queue.within(own.connection).enqueue(len, "ab")
            copy.write(b"1\n")
        return
    async with own.connection.cursor().copy("COPY effects (number) FROM STDIN") as copy:
        with pytest.raises(ValidationError, match="under way"):
            await own.queue.within(own.connection).enqueue(len, "ab")
        await copy.write(b"1\n")


async def test_a_role_that_may_not_is_told_so(connect, own, postgres_server) -> None:
    await own.execute("CREATE ROLE nobody_at_all")
    await own.execute("SET LOCAL ROLE nobody_at_all")
    with pytest.raises(StoreError, match="permission denied"):
        await own.enqueue(len, "ab")
    await own.rollback()


async def test_each_queue_takes_its_own_kind_of_connection(own, backend) -> None:
    other = (SyncTaskQueue if own.is_async else TaskQueue)(backend)
    with pytest.raises(ValidationError, match="takes the other"):
        other.within(own.connection)
    with pytest.raises(ValidationError, match=r"not builtins\.str"):
        own.queue.within("postgresql://")


async def test_other_backends_say_that_they_cannot(own) -> None:
    with pytest.raises(BackendError, match="only PostgresBackend can"):
        type(own.queue)(MemoryBackend()).within(own.connection)


# -- finish ----------------------------------------------------------------------------------


@pytest.fixture
def effect(way, postgres_dsn):
    """A task that writes a number and finishes within the same transaction, which comes to an *end*."""

    def plain(number, *, end="commit", again=False, error=None):
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("INSERT INTO effects VALUES (%s)", (number,))
            current_task().finish(f"finished {number}", within=connection)
            if end == "rollback":
                connection.rollback()
            elif end == "commit":
                connection.commit()
            else:
                raise ZeroDivisionError
            if again:
                connection.execute("INSERT INTO effects VALUES (%s)", (number,))
                current_task().finish("again", within=connection)
        if error is not None:
            raise error
        return "ignored"

    async def waits(number, *, end="commit", again=False, error=None):
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
            await connection.execute("INSERT INTO effects VALUES (%s)", (number,))
            await current_task().finish(f"finished {number}", within=connection)
            if end == "rollback":
                await connection.rollback()
            elif end == "commit":
                await connection.commit()
            else:
                raise ZeroDivisionError
            if again:
                await connection.execute("INSERT INTO effects VALUES (%s)", (number,))
                await current_task().finish("again", within=connection)
        if error is not None:
            raise error
        return "ignored"

    return waits if way[1] == "async" else plain


async def effects(own) -> list[int]:
    found = await own.execute("SELECT number FROM effects ORDER BY number")
    await own.commit()
    return [number for (number,) in found]


async def test_an_effect_and_the_end_of_its_task_are_one_commit(
    own, backend, queue, effect
) -> None:
    task_id = await queue.enqueue(effect, 1)
    await Worker(backend).drain()

    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.attempt) == (TaskStatus.SUCCESS, 1)
    assert queue.deserialize_result(result) == "finished 1"
    assert await effects(own) == [1]


async def test_who_returns_after_a_rollback_has_failed_and_is_tried_again(
    own, backend, queue, effect
) -> None:
    once = await queue.enqueue(effect, 1, end="rollback")
    retry = Retry(attempts=2, delay=0)
    twice = await queue.using(retry=retry).enqueue(effect, 2, end="rollback")
    await Worker(backend).drain()

    for task_id, attempts in ((once, 1), (twice, 2)):
        result = await queue.get_result(task_id, timeout=SOON)
        assert (result.status, result.attempt) == (TaskStatus.FAILED, attempts)
        assert result.error_type == "TransactionNotCommitted"
        assert "called finish() within a transaction" in result.error
    assert await effects(own) == []


async def test_an_exception_before_the_commit_is_an_attempt_like_any_other(
    own, backend, queue, effect
) -> None:
    task_id = await queue.enqueue(effect, 1, end="raise")
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.error_type) == (TaskStatus.FAILED, "ZeroDivisionError")
    assert await effects(own) == []


async def test_what_comes_after_the_commit_changes_nothing(own, backend, queue, effect) -> None:
    """An error; and a second transaction, which would do the work twice."""
    retry = Retry(attempts=3, delay=0)
    late = await queue.using(retry=retry).enqueue(effect, 1, error=ValueError("too late"))
    again = await queue.using(retry=retry).enqueue(effect, 2, again=True)
    await Worker(backend).drain()

    assert await queue.result(late, timeout=0) == "finished 1"
    assert await queue.result(again, timeout=0) == "finished 2"
    assert await effects(own) == [1, 2]


async def test_an_attempt_that_was_rescued_meanwhile_can_only_be_rolled_back(
    own, backend, queue, way, postgres_dsn
) -> None:
    """Even where the task swallows the error, and commits."""
    rescue = "UPDATE sitq.tasks SET token = token + 1"
    note = "INSERT INTO effects VALUES (%s)"

    def plain() -> None:
        with psycopg.connect(postgres_dsn) as connection, psycopg.connect(postgres_dsn) as other:
            connection.execute(note, (1,))
            other.execute(rescue)
            other.commit()
            try:
                current_task().finish(within=connection)
            except TaskLostError:
                other.execute(note, (99,))
            with contextlib.suppress(psycopg.errors.InFailedSqlTransaction):
                connection.execute(note, (2,))
            connection.commit()

    async def waits() -> None:
        connect = psycopg.AsyncConnection.connect
        async with await connect(postgres_dsn) as connection, await connect(postgres_dsn) as other:
            await connection.execute(note, (1,))
            await other.execute(rescue)
            await other.commit()
            try:
                await current_task().finish(within=connection)
            except TaskLostError:
                await other.execute(note, (99,))
            with contextlib.suppress(psycopg.errors.InFailedSqlTransaction):
                await connection.execute(note, (2,))
            await connection.commit()

    await queue.enqueue(waits if way[1] == "async" else plain)
    async with Worker(backend):
        with anyio.fail_after(SOON):
            while await effects(own) != [99]:  # noqa: ASYNC110
                await anyio.sleep(0.01)
    assert await effects(own) == [99]
    assert await states(backend) == ["queued"]  # the worker has handed back what is still its own


async def test_a_stop_or_a_cancellation_after_the_commit_finds_it_done(
    own, backend, queue, way, postgres_dsn
) -> None:
    def plain() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            current_task().finish("done", within=connection)
        anyio.from_thread.run(anyio.sleep, NEVER)

    async def waits() -> None:
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
            await current_task().finish("done", within=connection)
        await anyio.sleep(NEVER)

    task_id = await queue.enqueue(waits if way[1] == "async" else plain)
    async with anyio.create_task_group() as group:
        worker = Worker(backend)
        group.start_soon(worker.start)
        assert await queue.result(task_id, timeout=SOON) == "done"  # the task itself still runs
        assert await queue.cancel(task_id) is False
        await worker.stop(grace=0)
    assert await states(backend) == ["success"]


async def test_whoever_waits_hears_of_the_end_at_the_commit(
    own, backend, queue, effect, monkeypatch
) -> None:
    """Also where the verdict that the worker has for the attempt is to try it again."""
    monkeypatch.setattr(waiter, "QUICKEST", NEVER)
    monkeypatch.setattr(waiter, "SLOWEST", NEVER)
    async with Worker(backend):
        retry = Retry(attempts=5, delay=NEVER)
        task_id = await queue.using(retry=retry, delay=0.3).enqueue(effect, 1)
        assert await queue.result(task_id, timeout=SOON) == "finished 1"


async def test_a_finish_that_is_not_awaited_is_an_error(own, backend, queue, way) -> None:
    if way[1] == "sync":
        return

    async def forgets(dsn) -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            current_task().finish(within=connection).close()

    task_id = await queue.enqueue(forgets, own.connection.info.dsn)
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert result.error_type in {"TransactionNotCommitted", "OperationalError"}


async def test_who_is_refused_a_finish_for_want_of_a_transaction_may_return_instead(
    backend, queue, way, postgres_dsn
) -> None:
    def plain() -> str:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            with contextlib.suppress(ValidationError):
                current_task().finish("not this", within=connection)
            return "this"

    async def waits() -> str:
        connect = psycopg.AsyncConnection.connect
        async with await connect(postgres_dsn, autocommit=True) as connection:
            with contextlib.suppress(ValidationError):
                await current_task().finish("not this", within=connection)
            return "this"

    task_id = await queue.enqueue(waits if way[1] == "async" else plain)
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == "this"


async def test_a_result_that_cannot_be_stored_is_refused_before_anything_is(
    own, backend, queue, postgres_dsn
) -> None:
    def plain() -> list[str]:
        said = []
        with psycopg.connect(postgres_dsn) as connection:
            for odd in (threading.Lock(), "x" * 17 * 2**20):
                try:
                    current_task().finish(odd, within=connection)
                except SerializationError as error:
                    said.append(str(error))
        return said

    task_id = await queue.enqueue(plain)
    await Worker(backend).drain()
    lock, big = await queue.result(task_id)
    assert "cannot be serialised" in lock
    assert "once serialised" in big


async def test_a_task_knows_itself_and_nobody_else_is_one(own, backend, queue) -> None:
    def about() -> list[object]:
        task = current_task()
        return [task.id, task.name.rpartition(".")[2], task.attempt]

    task_id = await queue.enqueue(about)
    await Worker(backend).drain()
    assert await queue.result(task_id) == [task_id, "about", 1]
    with pytest.raises(WorkerError, match="here is none"):
        current_task()
