"""A connection that was carried across a fork is not used, and not closed either.

Each test is a program of its own: pytest's process has threads, and threads and forks do not
mix.
"""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform with fork")

BEGIN = """
    import asyncio, gc, os, signal, sqlite3, sys, threading
    import anyio
    from contextlib import closing
    from sitq import *
    from sitq.adapters.base import BatchError
    from sitq.protocol.ops import Count, Enqueue, NewTask

    path = sys.argv[1]
    signal.alarm(15)  # whoever hangs is ended

    def enqueue(id_):
        return Enqueue((NewTask(id=id_, payload=b"p", name="f"),))

    def count(store):
        (counted,) = store.apply([Count()])
        return sum(n for _, _, n in counted.rows)

    def in_child(function):
        '''Run function in a forked child; fail if it fails.'''
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)
            try:
                function()
                gc.collect()
            except BaseException:
                import traceback
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "the child failed, or did not end"

    def integrity():
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
"""


@pytest.fixture
def forks(run_program, sqlite_path):
    """Run a program that forks; return what it printed."""
    from textwrap import dedent

    return lambda source: run_program(dedent(BEGIN) + dedent(source), sqlite_path)


def test_a_store_is_refused_in_the_child_and_goes_on_in_the_parent(forks) -> None:
    assert forks(
        """
        store = SQLiteBackend(path).open_store()
        store.apply([enqueue("before")])

        def child():
            for _ in range(2):
                try:
                    store.apply([enqueue("child")])
                except BatchError as error:
                    assert type(error.error) is BackendInUseError, error.error
                    assert path in str(error.error) and "fork" in str(error.error)
                else:
                    raise AssertionError("it was used")
            store.close()

        in_child(child)
        store.apply([enqueue("after")])
        integrity()
        print(count(store))
        """
    ) == ["2"]


def test_a_child_does_not_take_the_parents_locks_with_it(forks) -> None:
    """Closing a file anywhere in a process drops all its locks: a child must not even do that."""
    assert forks(
        """
        store = SQLiteBackend(path).open_store()
        store._db.execute("BEGIN IMMEDIATE")

        def child():
            global store
            del store
            gc.collect()

        in_child(child)
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                print(error)
        store._db.execute("COMMIT")
        """
    ) == ["database is locked"]


def test_a_sync_queue_connects_anew_in_the_child(forks) -> None:
    assert forks(
        """
        queue = SyncTaskQueue(SQLiteBackend(path))
        queue.enqueue(len, "parent")

        def child():
            queue.enqueue(len, "child")
            in_child(lambda: queue.enqueue(len, "grandchild"))
            queue.enqueue(len, "child again")
            queue.close()

        in_child(child)
        queue.enqueue(len, "parent again")
        integrity()
        with closing(queue.backend.open_store()) as store:
            print(count(store))
        """
    ) == ["5"]


def test_a_sync_queue_in_use_by_another_thread_at_the_fork_does_not_hang_the_child(forks) -> None:
    assert forks(
        """
        queue = SyncTaskQueue(SQLiteBackend(path))
        queue.enqueue(len, "parent")
        store = queue._open()
        apply, inside, go_on = store.apply, threading.Event(), threading.Event()

        def slow(ops):
            inside.set()
            go_on.wait()
            return apply(ops)

        def child():
            queue.enqueue(len, "child")
            queue.close()

        def child_that_only_closes():
            queue.close()

        store.apply = slow
        thread = threading.Thread(target=queue.enqueue, args=(len, "thread"))
        thread.start()
        inside.wait()
        try:
            in_child(child)
            in_child(child_that_only_closes)
        finally:
            go_on.set()
            thread.join()
        print(count(store))
        """
    ) == ["3"]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_backend_connects_anew_in_the_child(forks, loop) -> None:
    assert forks(
        f"""
        backend = SQLiteBackend(path)

        async def use(id_):
            session = await backend.session()
            await session.writer.submit(enqueue(id_))
            (counted,) = await session.reader.submit(Count())
            return sum(n for _, _, n in counted.rows)

        assert anyio.run(use, "before", backend={loop!r}) == 1

        def child():
            assert anyio.run(use, "child", backend={loop!r}) == 2

        in_child(child)
        print(anyio.run(use, "after", backend={loop!r}))
        integrity()
        """
    ) == ["3"]


def test_a_child_forked_inside_of_the_loop_has_a_loop_and_a_connection_of_its_own(forks) -> None:
    assert forks(
        """
        backend = SQLiteBackend(path)

        async def use(id_):
            session = await backend.session()
            await session.writer.submit(enqueue(id_))

        async def main():
            await use("before")
            in_child(lambda: asyncio.run(use("child")))
            await use("after")
            session = await backend.session()
            (counted,) = await session.reader.submit(Count())
            print(sum(n for _, _, n in counted.rows))
            await backend.close()

        asyncio.run(main())
        integrity()
        """
    ) == ["3"]
