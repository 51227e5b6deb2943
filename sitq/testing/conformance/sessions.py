"""What every backend must do for its callers, on every event loop.

Here it is the way to the store and back; what the ops mean is the subject of the other files.
"""

from typing import Any

import anyio
import anyio.to_thread
import pytest

from sitq import BackendClosedError, BackendInUseError
from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import (
    Cancel,
    Cancelled,
    Completed,
    Conflict,
    Count,
    Counted,
    Enqueue,
    Enqueued,
    Outcome,
    Registered,
    Rescue,
    Rescued,
    Reserve,
    Reserved,
    Settle,
    Settled,
    Unregistered,
)
from sitq.testing.conformance.asked import new_task, register


async def count(session: Any) -> int:
    (counted,) = await session.reader.submit(Count())
    return sum(n for _, _, n in counted.rows)


@pytest.mark.anyio
class Sessions:
    async def test_a_task_goes_all_the_way(self, backend: Any) -> None:
        writer = (await backend.session()).writer

        assert await writer.submit(Enqueue((new_task(),)), register()) == (Enqueued(), Registered())
        (reserved,) = await writer.submit(Reserve("w", ("default",), 1))
        (task,) = reserved.tasks
        assert (task.id, task.payload, task.attempt) == ("t", b"p", 1)
        done = Settle(task.key, "t", "w", Completed(b"v"))
        assert await writer.submit(done) == (Settled(True),)
        row = await (await backend.session()).fetch("t")
        assert (row.state, row.value) == (TaskState.SUCCESS, b"v")

    async def test_the_writer_and_the_reader_see_the_same_tasks(self, backend: Any) -> None:
        session = await backend.session()

        await session.writer.submit(Enqueue((new_task("a"), new_task("b"))))
        assert await session.reader.submit(Count()) == (
            Counted((("default", TaskState.QUEUED, 2),)),
        )
        assert await session.fetch("unknown") is None

    async def test_refusals_are_answers_and_not_errors(self, backend: Any) -> None:
        writer = (await backend.session()).writer
        await writer.submit(Enqueue((new_task(),)))

        assert await writer.submit(
            Enqueue((new_task("t", b"other"),), may_exist=True),
            Reserve("nobody", ("default",), 1),
            Cancel("unknown"),
            Rescue(("nobody",)),
        ) == (
            Conflict("t", TaskState.QUEUED),
            Unregistered(),
            Cancelled(None),
            Rescued((), 0),
        )

    async def test_bytes_come_out_as_they_went_in(self, backend: Any) -> None:
        session = await backend.session()
        payloads = [b"", b"\0", bytes(range(256)), b"x" * 2**20]
        await session.writer.submit(
            register(), Enqueue(tuple(new_task(str(n), p) for n, p in enumerate(payloads)))
        )

        (reserved,) = await session.writer.submit(Reserve("w", ("default",), 9))
        assert [task.payload for task in reserved.tasks] == payloads
        await session.writer.submit(
            *(Settle(t.key, t.id, "w", Completed(t.payload)) for t in reserved.tasks)
        )
        rows = [await session.fetch(str(n)) for n in range(len(payloads))]
        assert [row.value for row in rows] == payloads

    async def test_names_and_texts_come_out_as_they_went_in(self, backend: Any) -> None:
        session = await backend.session()
        ids = ["ä", "'; DROP TABLE sitq_tasks; --", '{"json": [1]}', "日本", "a b%_\\"]
        await session.writer.submit(Enqueue(tuple(new_task(id_, queue=id_) for id_ in ids)))

        for id_ in ids:
            row = await session.fetch(id_)
            assert (row.id, row.queue) == (id_, id_)

    async def test_two_hundred_callers_at_once_each_get_their_own_answer(
        self, backend: Any
    ) -> None:
        session = await backend.session()
        answers: dict[int, Outcome] = {}

        async def call(n: int) -> None:
            payload = b"p" if n % 2 else str(n).encode()
            op = Enqueue((new_task(f"t{n // 2}", payload),), may_exist=True)
            (answers[n],) = await session.writer.submit(op)

        async with anyio.create_task_group() as tasks:
            for n in range(200):
                tasks.start_soon(call, n)

        assert len(answers) == 200
        for pair in range(100):
            both = answers[2 * pair], answers[2 * pair + 1]
            assert sorted(type(answer).__name__ for answer in both) == ["Conflict", "Enqueued"]
        assert await count(session) == 100

    async def test_a_group_is_never_split(self, backend: Any) -> None:
        """Settle and reserve, asked together, are seen together, whoever else is asking."""
        session = await backend.session()
        tasks = tuple(new_task(str(n)) for n in range(60))
        await session.writer.submit(Enqueue(tasks), *(register(f"w{n}") for n in range(3)))

        async def work(worker_id: str) -> None:
            settle: tuple[Settle, ...] = ()
            while True:
                *_, reserved = await session.writer.submit(
                    *settle, Reserve(worker_id, ("default",), 1)
                )
                assert isinstance(reserved, Reserved)
                if not reserved.tasks:
                    return
                (task,) = reserved.tasks
                settle = (Settle(task.key, task.id, worker_id, Completed(task.id.encode())),)

        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(work, f"w{n}")
        assert await session.reader.submit(Count()) == (
            Counted((("default", TaskState.SUCCESS, 60),)),
        )

    async def test_a_caller_that_is_cancelled_gives_up_the_wait_and_never_half_of_the_write(
        self, backend: Any
    ) -> None:
        session = await backend.session()
        for n in range(50):
            with anyio.move_on_after(0 if n % 2 else 0.0005):
                await session.writer.submit(Enqueue((new_task(f"a{n}"), new_task(f"b{n}"))))

        await session.writer.submit(Enqueue((new_task("last"),)))
        stored = [n for n in range(50) if await session.fetch(f"a{n}")]
        assert stored == [n for n in range(50) if await session.fetch(f"b{n}")]
        assert await count(session) == 2 * len(stored) + 1

    async def test_closing_stores_what_was_asked_and_refuses_what_comes_later(
        self, make_backend: Any
    ) -> None:
        backend = make_backend()
        session = await backend.session()
        async with anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(session.writer.submit, Enqueue((new_task(str(n)),)))
            await anyio.wait_all_tasks_blocked()
            await backend.close()

        with pytest.raises(BackendClosedError, match=r"await its connect\(\)"):
            await backend.session()
        with pytest.raises(BackendClosedError):
            await session.writer.submit(Count())
        await backend.close()  # it is closed already

        async with backend:  # connects again
            assert await count(await backend.session()) == 20

    async def test_the_first_callers_share_one_connection(self, backend: Any) -> None:
        sessions: list[Any] = []

        async def connect() -> None:
            sessions.append(await backend.session())

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(connect)
        assert len(sessions) == 20
        assert len(set(map(id, sessions))) == 1

    async def test_a_first_caller_that_is_cancelled_does_not_take_the_others_with_it(
        self, backend: Any
    ) -> None:
        async with anyio.create_task_group() as tasks:
            for n in range(5):
                tasks.start_soon(backend.session)
                if n == 0:
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        await backend.session()
        session = await backend.session()
        assert await session.writer.submit(Enqueue((new_task(),))) == (Enqueued(),)

    async def test_a_store_in_a_thread_sees_what_the_session_has_stored(self, backend: Any) -> None:
        session = await backend.session()
        await session.writer.submit(Enqueue((new_task(),)))

        def look() -> Any:
            store = backend.open_store()
            try:
                return store.apply([Count()])
            finally:
                store.tidy()
                store.close()

        counted = await anyio.to_thread.run_sync(look)
        assert counted == (Counted((("default", TaskState.QUEUED, 1),)),)

    async def test_another_event_loop_is_refused_while_this_one_runs(self, backend: Any) -> None:
        await backend.connect()

        def elsewhere() -> None:
            with pytest.raises(BackendInUseError, match="another event loop that still runs"):
                anyio.run(backend.session)

        await anyio.to_thread.run_sync(elsewhere)
        assert await count(await backend.session()) == 0
