"""A server that goes away, comes back, hangs or refuses: callers are told the truth."""

import contextlib
import os
import signal
import threading
import time

import anyio
import anyio.to_thread
import psycopg
import pytest

from sitq import (
    BackendInUseError,
    CommitUnknownError,
    NewerSchemaError,
    PostgresBackend,
    Retry,
    StoreError,
    StoreUnreachableError,
    SyncTaskQueue,
    TaskQueue,
    Worker,
    current_task,
)
from sitq.adapters.base import BatchError
from sitq.protocol.commit import Blame
from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Cancel,
    Cancelled,
    Completed,
    Count,
    Enqueue,
    Enqueued,
    Fetch,
    Prune,
    Settle,
    Settled,
    TaskKey,
)
from sitq.testing.conformance.asked import new_task
from tests.private_postgres import running_server
from torture.server import start_server


@pytest.fixture(scope="module")
def postgres_server():
    """One of its own: it is restarted, and others keep connections to theirs."""
    with running_server() as server:
        yield server


@pytest.fixture
async def backend(postgres_dsn):
    async with PostgresBackend(postgres_dsn, timeout=20.0) as backend:
        yield backend


@pytest.fixture
async def hasty(postgres_dsn):
    """A backend that waits for half a second only."""
    async with PostgresBackend(postgres_dsn, timeout=0.5) as backend:
        yield backend


@pytest.fixture
def database(postgres_dsn):
    return postgres_dsn.partition("@/")[2].partition("?")[0]


@pytest.fixture
def open_store(postgres_dsn):
    stores = []

    def open_(**options):
        stores.append(PostgresBackend(postgres_dsn, **options).open_store())
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def enqueue(*ids) -> Enqueue:
    return Enqueue(tuple(map(new_task, ids)), may_exist=True)


async def stored(session, *ids) -> list[str]:
    (fetched,) = await session.reader.submit(Fetch(ids))
    return sorted(fetched.rows)


# -- connections that end --------------------------------------------------------------------


@pytest.mark.anyio
async def test_connections_that_were_ended_while_nothing_was_asked_are_made_anew(
    backend, postgres_server, database
) -> None:
    session = await backend.session()
    for n in range(3):
        await session.writer.submit(enqueue(f"t{n}"))
        assert await stored(session, f"t{n}") == [f"t{n}"]
        await anyio.to_thread.run_sync(postgres_server.terminate_connections, database)
    assert await session.writer.submit(enqueue("last")) == (Enqueued(),)


@pytest.mark.anyio
async def test_whatever_ends_while_many_ask_each_caller_is_told_what_holds(
    backend, postgres_server, database
) -> None:
    session = await backend.session()
    said: dict[str, bool | None] = {}
    over = False

    async def call(caller: int) -> None:
        n = 0
        while not over:
            id_ = f"{caller}-{n}"
            n += 1
            try:
                await session.writer.submit(enqueue(id_))
                said[id_] = True
            except CommitUnknownError:
                said[id_] = None
            except StoreError:
                said[id_] = False

    async with anyio.create_task_group() as callers:
        for caller in range(5):
            callers.start_soon(call, caller)
        for _ in range(10):
            await anyio.to_thread.run_sync(postgres_server.terminate_connections, database)
        over = True

    found = set(await stored(session, *said))
    assert [id_ for id_, told in said.items() if told and id_ not in found] == []
    assert [id_ for id_, told in said.items() if told is False and id_ in found] == []
    assert len(found) > 10


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_server_that_is_restarted_is_waited_for(backend, postgres_server, mode) -> None:
    session = await backend.session()
    await session.writer.submit(enqueue("before"))

    async def call(id_: str) -> None:
        answered = 0
        while answered < 2:
            with contextlib.suppress(CommitUnknownError):  # it may strike inside COMMIT
                await session.writer.submit(enqueue(id_))
                answered += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, postgres_server.restart, mode)
        for n in range(20):
            tasks.start_soon(call, f"t{n}")

    assert await stored(session, "before", "t0", "t19") == ["before", "t0", "t19"]


@pytest.mark.anyio
async def test_a_server_that_is_away_is_waited_for_by_who_opens_as_well(
    postgres_server, postgres_dsn
) -> None:
    await anyio.to_thread.run_sync(postgres_server.stop)
    backend = PostgresBackend(postgres_dsn, timeout=30.0)
    queue = SyncTaskQueue(PostgresBackend(postgres_dsn, timeout=30.0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backend.connect)
        tasks.start_soon(anyio.to_thread.run_sync, queue.enqueue, print)
        await anyio.to_thread.run_sync(postgres_server.start)
    session = await backend.session()
    (counted,) = await session.reader.submit(Count())
    assert counted.rows == (("default", S.QUEUED, 1),)
    await backend.close()
    queue.close()


@pytest.mark.anyio
async def test_a_server_that_does_not_come_back_in_time_is_said_to_be_gone(
    hasty, postgres_server
) -> None:
    session = await hasty.session()
    await anyio.to_thread.run_sync(postgres_server.stop)
    try:
        with pytest.raises(StoreError, match=r"cannot connect to host=.* schema=sitq") as caught:
            await session.writer.submit(enqueue("t"))
        assert postgres_server.password not in str(caught.value)
    finally:
        await anyio.to_thread.run_sync(postgres_server.start)
    assert await session.writer.submit(enqueue("t")) == (Enqueued(),)


def test_a_store_of_a_thread_connects_anew(open_store, postgres_server, database) -> None:
    store = open_store()
    store.apply([enqueue("a")])
    postgres_server.terminate_connections(database)

    assert store.apply([enqueue("b")]) == (Enqueued(),)


# -- a COMMIT whose answer is lost -------------------------------------------------------------


@pytest.fixture
def commits_hang(postgres_server):
    """Every COMMIT waits for a standby that there is not."""
    postgres_server.configure(synchronous_standby_names="nobody")
    yield
    postgres_server.sql("ALTER SYSTEM RESET synchronous_standby_names")
    postgres_server.sql("SELECT pg_reload_conf()")


WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = '{}'"


@pytest.fixture
def cut_off_inside_commit(commits_hang, postgres_server, database):
    """What ends all connections as soon as one of them waits inside a COMMIT."""

    def cut_off() -> None:
        while not postgres_server.sql(WAITS.format(database)):
            time.sleep(0.01)
        postgres_server.terminate_connections(database)

    return cut_off


@pytest.mark.anyio
async def test_what_is_cut_off_inside_commit_is_in_doubt_and_can_be_asked_again(
    backend, postgres_server, request
) -> None:
    session = await backend.session()
    cut_off = request.getfixturevalue("cut_off_inside_commit")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, cut_off)
        with pytest.raises(CommitUnknownError, match="cut off inside COMMIT"):
            await session.writer.submit(enqueue("t"), Cancel("t"))
    postgres_server.configure(synchronous_standby_names="")

    (_, cancelled) = await session.writer.submit(enqueue("t"), Cancel("t"))
    assert cancelled == Cancelled(S.CANCELLED)
    (counted,) = await session.reader.submit(Count())
    assert counted.rows == (("default", S.CANCELLED, 1),)


@pytest.mark.anyio
@pytest.mark.parametrize("chosen", [True, False], ids=["chosen", "made"])
async def test_new_tasks_that_are_cut_off_inside_commit_are_asked_again_and_stored_once(
    backend, postgres_server, request, chosen
) -> None:
    """Under the same ids, whoever made them: nobody is left in doubt by a server that comes back."""
    session = await backend.session()
    cut_off = request.getfixturevalue("cut_off_inside_commit")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, cut_off)
        op = enqueue("a", "b")._replace(may_exist=chosen)
        assert await session.writer.submit(op) == (Enqueued(),)
    postgres_server.configure(synchronous_standby_names="")
    (counted,) = await session.reader.submit(Count())
    assert counted.rows == (("default", S.QUEUED, 2),)


@pytest.mark.anyio
async def test_a_task_whose_own_commit_is_cut_off_is_what_its_row_says(
    backend, postgres_server, postgres_dsn, database, request
) -> None:
    """Here the commit takes place; nobody tells the task, nor its worker."""

    def effect() -> None:
        with psycopg.connect(postgres_dsn, application_name="effect") as connection:
            while connection.execute("SHOW synchronous_standby_names").fetchone() != ("nobody",):
                time.sleep(0.01)
            connection.execute("INSERT INTO effects VALUES (1)")
            current_task().finish("done", within=connection)

    postgres_server.sql("CREATE TABLE effects (number int)", database)
    queue = TaskQueue(backend)
    retry = Retry(attempts=3, delay=0)
    task_id = await queue.using(retry=retry).enqueue(effect)
    async with Worker(backend):
        running = "SELECT 1 FROM sitq.tasks WHERE state = 'running'"
        while not await anyio.to_thread.run_sync(postgres_server.sql, running, database):
            pass  # until it does: the commits of the worker itself would hang as well
        request.getfixturevalue("commits_hang")

        def cut_off() -> None:
            ours = " AND application_name = 'effect'"
            while not postgres_server.sql(WAITS.format(database) + ours):
                time.sleep(0.01)
            postgres_server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE true" + ours
            )

        await anyio.to_thread.run_sync(cut_off)
        postgres_server.configure(synchronous_standby_names="")
        assert await queue.result(task_id, timeout=30.0) == "done"
    assert postgres_server.sql("SELECT * FROM effects", database) == [["1"]]


@pytest.mark.anyio
async def test_a_commit_that_is_not_answered_in_time_is_in_doubt(hasty, request) -> None:
    session = await hasty.session()
    request.getfixturevalue("commits_hang")

    with pytest.raises(CommitUnknownError, match=r"not a word for 0\.5 s"):
        await session.writer.submit(enqueue("t"))


def test_so_it_is_for_a_thread(open_store, request) -> None:
    store = open_store(timeout=0.5)
    request.getfixturevalue("commits_hang")

    with pytest.raises(BatchError) as caught:
        store.apply([enqueue("t")])
    assert caught.value.blame is Blame.UNKNOWN


# -- a server that is slow, or refuses -----------------------------------------------------------


@pytest.mark.anyio
async def test_a_server_that_hangs_is_left_and_nothing_was_stored(
    hasty, postgres_server, database
) -> None:
    session = await hasty.session()
    pids = [
        int(pid)
        for (pid,) in postgres_server.sql(
            f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"
        )
    ]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="has not answered in time"):
            await session.writer.submit(enqueue("t"))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert await session.writer.submit(enqueue("t")) == (Enqueued(),)


@pytest.mark.anyio
async def test_a_table_that_is_locked_for_long_is_busy(hasty, postgres_server, database) -> None:
    session = await hasty.session()
    await session.writer.submit(enqueue("t"))
    done = threading.Event()

    def lock() -> None:
        postgres_server.sql("BEGIN; LOCK TABLE sitq.tasks; SELECT pg_sleep(1.5); COMMIT", database)
        done.set()

    thread = threading.Thread(target=lock)
    thread.start()
    held = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
    while not await anyio.to_thread.run_sync(postgres_server.sql, held, database):
        pass
    with pytest.raises(StoreError):
        await session.writer.submit(enqueue("u"))
    await anyio.to_thread.run_sync(thread.join)
    assert await session.writer.submit(enqueue("u")) == (Enqueued(),)


def test_two_batches_that_wait_for_each_other_are_both_stored(open_store) -> None:
    """One of them is rolled back by the server, and asked again."""
    stores = [open_store(timeout=30.0) for _ in range(2)]
    ids = [f"t{n}" for n in range(40)]
    stores[0].apply([enqueue(*ids)])
    failures: list[BaseException] = []

    def prune_and_enqueue(store, order) -> None:
        try:
            for _ in range(20):
                store.apply([Prune(0.0, 100), *(enqueue(id_) for id_ in order)])
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=prune_and_enqueue, args=(store, ids[::step]))
        for store, step in zip(stores, (1, -1), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


@pytest.mark.anyio
async def test_a_server_that_only_reads_stores_nothing_and_says_so(hasty, postgres_server) -> None:
    session = await hasty.session()
    await anyio.to_thread.run_sync(postgres_server.read_only, True)
    try:
        with pytest.raises(StoreError):
            await session.writer.submit(enqueue("t"))
    finally:
        await anyio.to_thread.run_sync(postgres_server.read_only, False)
    assert await session.writer.submit(enqueue("t")) == (Enqueued(),)


@pytest.mark.anyio
async def test_what_one_op_has_wrong_does_not_keep_the_others_from_being_stored(backend) -> None:
    session = await backend.session()
    told: dict[str, str] = {}

    async def call(id_: str, queue: str) -> None:
        try:
            await session.writer.submit(Enqueue((new_task(id_, queue=queue),)))
            told[id_] = "stored"
        except StoreError as error:
            told[id_] = str(error)

    async with anyio.create_task_group() as tasks:
        for n in range(10):
            tasks.start_soon(call, f"t{n}", "a\0b" if n == 7 else "default")

    assert "nothing was stored" in told.pop("t7")
    assert set(told.values()) == {"stored"}


TALKS = """
    CREATE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE NOTICE 'one'; PERFORM pg_sleep(0.1); RAISE NOTICE 'two';
       PERFORM pg_sleep(0.1); RETURN NULL; END $$;
    CREATE TRIGGER talk BEFORE UPDATE ON sitq.tasks FOR EACH STATEMENT EXECUTE FUNCTION talk()
"""


@pytest.mark.anyio
async def test_a_server_that_speaks_before_it_has_read_all_of_a_batch_is_listened_to(
    backend, postgres_server, database
) -> None:
    session = await backend.session()
    await anyio.to_thread.run_sync(postgres_server.sql, TALKS, database)

    late = Settle(TaskKey(1, 1), "nobody", "w", Completed(b""))
    much = Enqueue((new_task("t", payload=bytes(8 * 2**20)),))
    assert await session.writer.submit(late, much) == (Settled(False), Enqueued())


@pytest.mark.anyio
async def test_a_schema_that_is_newer_by_now_is_not_written_to(
    backend, postgres_server, database
) -> None:
    session = await backend.session()
    postgres_server.sql("UPDATE sitq.schema_version SET version = 99", database)

    with pytest.raises(NewerSchemaError, match="'sitq' has version 99"):
        await session.writer.submit(enqueue("t"))


# -- what is said before anything is stored -------------------------------------------------------


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_named_and_the_password_is_not() -> None:
    backend = PostgresBackend("postgresql://me:secret@127.0.0.1:1/nowhere", timeout=0.1)
    with pytest.raises(
        StoreUnreachableError, match=r"cannot connect to host=127\.0\.0\.1 port=1"
    ) as caught:
        await backend.connect()
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(backend)


def test_a_wrong_password_is_said_to_be_one() -> None:
    with start_server() as server:
        queue = SyncTaskQueue(PostgresBackend(server.dsn(password="wrong")))
        with pytest.raises(StoreError, match="password authentication failed") as caught:
            queue.enqueue(print)
        assert not isinstance(caught.value, StoreUnreachableError)
        assert "wrong" not in str(caught.value)


# -- poolers, forks ----------------------------------------------------------------------------


@pytest.mark.parametrize(("prepare", "kept"), [(True, True), (False, False)])
def test_without_prepare_a_connection_keeps_nothing(open_store, prepare, kept) -> None:
    store = open_store(prepare=prepare)
    for n in range(6):
        store.apply([enqueue(f"t{n}")])
    talk = store._talk

    from sitq.adapters.postgres import block

    (left,) = block(
        talk.connection.ask("SELECT count(*) FROM pg_prepared_statements"), talk.settings
    )
    (timeout,) = block(talk.connection.ask("SHOW lock_timeout"), talk.settings)
    assert (left[0] > 0) is kept
    assert timeout == ("0",), "settings are those of a transaction"


def test_a_connection_that_was_carried_across_a_fork_is_not_used(open_store, monkeypatch) -> None:
    store = open_store()
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)

    with pytest.raises(BatchError) as caught:
        store.apply([Count()])
    assert isinstance(caught.value.error, BackendInUseError)
    store.close()
    monkeypatch.undo()
    assert store.apply([enqueue("t")]) == (Enqueued(),), "the parent's goes on"


def test_a_look_that_comes_first_on_a_new_connection_leaves_no_transaction_open(
    open_store, postgres_server, database
) -> None:
    store = open_store()
    assert postgres_server.terminate_connections(database) == 1
    store.apply([Fetch(("nobody",))])
    ((state,),) = postgres_server.sql(
        f"SELECT state FROM pg_stat_activity WHERE datname = '{database}'"
    )
    assert state == "idle"
    assert store.apply([enqueue("t")]) == (Enqueued(),)
