"""What is committed by one process is heard by another at once, by way of the server."""

import gc
import threading
from functools import partial

import anyio
import anyio.to_thread
import psycopg
import pytest

from sitq import PostgresBackend, SyncTaskQueue, TaskQueue, Worker
from sitq.adapters.bells import Want
from sitq.adapters.current import current_loop
from sitq.adapters.postgres_news import LONGEST_PAYLOAD, _payloads
from sitq.protocol import waiter
from sitq.protocol.ops import Cancel, Count, Enqueue
from sitq.testing.conformance.asked import new_task

pytestmark = pytest.mark.anyio

NEVER = 3600.0
"""Seconds between two looks: what is found before that was told."""
SOON = 20.0


@pytest.fixture(autouse=True)
def without_looking(monkeypatch):
    monkeypatch.setattr(waiter, "QUICKEST", NEVER)
    monkeypatch.setattr(waiter, "SLOWEST", NEVER)


async def idle_worker(backend, group) -> Worker:
    """A worker that has looked once, found nothing, and will not look again."""
    worker = Worker(backend, poll_interval=NEVER)
    group.start_soon(worker.start)
    done = await TaskQueue(backend).enqueue(len, "ab")
    with anyio.fail_after(SOON):
        assert await TaskQueue(backend).result(done) == 2
    return worker


async def listens(server, dsn, want: Want, at_least: int = 1) -> None:
    """Wait until somebody is known to listen."""
    database = dsn.partition("@/")[2].partition("?")[0]
    sent = f"SELECT 1 FROM pg_stat_activity WHERE query LIKE '%sitq_{want}%' AND datname = '{database}'"
    if want is Want.ENDS:
        sent = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
    with anyio.fail_after(SOON):
        while len(await anyio.to_thread.run_sync(server.sql, sent, database)) < at_least:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def test_a_worker_hears_of_work_and_a_caller_of_its_end(
    postgres_dsn, postgres_server
) -> None:
    async with (
        PostgresBackend(postgres_dsn) as one,
        PostgresBackend(postgres_dsn) as other,
        anyio.create_task_group() as group,
    ):
        worker = await idle_worker(one, group)
        await listens(postgres_server, postgres_dsn, Want.WORK)
        queue = TaskQueue(other)
        with anyio.fail_after(SOON):
            for text in ("a", "abc"):
                assert await queue.result(await queue.enqueue(len, text)) == len(text)
        await worker.stop()


async def test_a_worker_hears_of_a_queue_without_a_loop(postgres_dsn, postgres_server) -> None:
    async with PostgresBackend(postgres_dsn) as backend, anyio.create_task_group() as group:
        worker = await idle_worker(backend, group)
        await listens(postgres_server, postgres_dsn, Want.WORK)
        with SyncTaskQueue(PostgresBackend(postgres_dsn)) as queue:
            enqueue = partial(queue.enqueue, len, "abc")
            task_id = await anyio.to_thread.run_sync(enqueue)
        with anyio.fail_after(SOON):
            assert await TaskQueue(backend).result(task_id) == 3
        await worker.stop()


async def test_whoever_was_cut_off_hears_again(postgres_dsn, postgres_server) -> None:
    database = postgres_dsn.partition("@/")[2].partition("?")[0]
    async with (
        PostgresBackend(postgres_dsn) as one,
        PostgresBackend(postgres_dsn) as other,
        anyio.create_task_group() as group,
    ):
        worker = await idle_worker(one, group)
        for text in ("a", "abc"):
            await anyio.to_thread.run_sync(postgres_server.terminate_connections, database)
            task_id = await TaskQueue(other).enqueue(len, text)
            with anyio.fail_after(SOON):
                assert await TaskQueue(other).result(task_id) == len(text)
        await worker.stop()


async def test_without_listen_nobody_listens_and_nobody_rings(postgres_dsn) -> None:
    before = set(threading.enumerate())
    async with PostgresBackend(postgres_dsn, listen=False) as backend:
        session = await backend.session()
        with session.hints.of_work(lambda: None):
            await session.writer.submit(Enqueue((new_task(),)))
            new = {thread.name for thread in set(threading.enumerate()) - before}
        assert "sitq bell" not in new
        assert not session._drivers[0]._talk.news.due_in


async def test_ends_are_told_once_somebody_wants_to_hear_of_them(
    postgres_dsn, postgres_server, monkeypatch
) -> None:
    ids = [f"t{n}" for n in range(300)]
    heard: set[str] = set()
    named: set[str] = set()
    async with PostgresBackend(postgres_dsn) as one, PostgresBackend(postgres_dsn) as other:
        writer, session = (await one.session()).writer, await other.session()
        told = session.hints.told

        def told_by_name(want, ids) -> None:
            named.update(ids)
            told(want, ids)

        monkeypatch.setattr(session.hints, "told", told_by_name)
        await writer.submit(Enqueue(tuple(map(new_task, ids))))
        with anyio.fail_after(SOON), _all_of(session.hints, ids, heard):
            await listens(postgres_server, postgres_dsn, Want.ENDS)
            for id_ in ids:
                await writer.submit(Cancel(id_))
            # It is also told to look at all of them, when it begins to listen: that is not meant.
            while named != set(ids):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert heard == set(ids)


class _all_of:  # noqa: N801
    """Listen for the end of many tasks."""

    def __init__(self, hints, ids, heard) -> None:
        self.each = [hints.of_end(id_, partial(heard.add, id_)) for id_ in ids]

    def __enter__(self) -> None:
        for one in self.each:
            one.__enter__()

    def __exit__(self, *_: object) -> None:
        for one in self.each:
            one.__exit__(None, None, None)


def test_ids_of_any_length_fit_into_notifications() -> None:
    ids = ["ä" * 255, *(f"{n}" * 10 for n in range(2000))]

    payloads = _payloads("me", ids)
    assert [id_ for payload in payloads for id_ in payload.split("\n")[1:]] == ids
    assert all(payload.split("\n")[0] == "me" for payload in payloads)
    assert max(len(payload.encode()) for payload in payloads) < LONGEST_PAYLOAD + 100


async def test_a_batch_that_waits_until_others_were_told_may_be_left_with_its_loop() -> None:
    driver = PostgresBackend("host=nowhere").make_driver(current_loop())
    driver._rings = True
    driver.begin([Count()], pytest.fail)
    driver.abandon()
    del driver
    gc.collect()  # a coroutine that was never awaited would say so here


def test_each_enqueue_of_a_thread_is_told_however_soon_it_follows(postgres_dsn) -> None:
    """Nobody comes by later, to tell of what was held back."""
    with (
        SyncTaskQueue(PostgresBackend(postgres_dsn)) as queue,
        psycopg.connect(postgres_dsn, autocommit=True) as own,
    ):
        queue.enqueue(print)
        own.execute("LISTEN sitq_work")
        for _ in range(3):
            queue.enqueue(print)
        assert len(list(own.notifies(timeout=SOON, stop_after=3))) == 3
