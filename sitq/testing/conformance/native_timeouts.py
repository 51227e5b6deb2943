"""asyncio's own ways to give up a wait leave the op whole and the backend usable."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

import pytest

from sitq.protocol.ops import Count, Enqueue
from sitq.testing.conformance.asked import new_task
from sitq.testing.conformance.loops import ON_ASYNCIO


async def by_wait_for(awaitable: Awaitable[Any], seconds: float) -> None:
    await asyncio.wait_for(awaitable, seconds)


async def by_timeout(awaitable: Awaitable[Any], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await awaitable


@pytest.mark.anyio
class NativeTimeouts:
    @ON_ASYNCIO
    @pytest.mark.parametrize("give_up", [by_wait_for, by_timeout])
    async def test_a_wait_that_was_given_up_leaves_the_op_whole(
        self, backend: Any, give_up: Any
    ) -> None:
        session = await backend.session()
        for n in range(50):
            op = Enqueue((new_task(f"a{n}"), new_task(f"b{n}")))
            with contextlib.suppress(TimeoutError):
                await give_up(session.writer.submit(op), n / 25_000)  # none at all, to 2 ms

        await session.writer.submit(Enqueue((new_task("last"),)))
        stored = [n for n in range(50) if await session.fetch(f"a{n}")]
        assert stored == [n for n in range(50) if await session.fetch(f"b{n}")]
        (counted,) = await session.reader.submit(Count())
        assert sum(n for _, _, n in counted.rows) == 2 * len(stored) + 1

    @ON_ASYNCIO
    async def test_a_reader_that_gave_up_disturbs_no_other(self, backend: Any) -> None:
        session = await backend.session()
        await session.writer.submit(Enqueue((new_task(),)))
        for n in range(50):
            reading = asyncio.ensure_future(session.fetch("t"))
            for _ in range(n % 5):
                await asyncio.sleep(0)
            reading.cancel()
            answers: Any = await asyncio.gather(session.fetch("t"), reading, return_exceptions=True)
            assert answers[0].id == "t"

    @ON_ASYNCIO
    async def test_a_caller_that_is_cancelled_twice_is_as_one_that_is_cancelled_once(
        self, backend: Any
    ) -> None:
        session = await backend.session()
        for n in range(20):
            calling = asyncio.ensure_future(session.writer.submit(Enqueue((new_task(str(n)),))))
            await asyncio.sleep(0)
            calling.cancel()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
        await session.writer.submit(Enqueue((new_task("last"),)))
        assert all([await session.fetch(str(n)) for n in range(20)])

    @ON_ASYNCIO
    async def test_many_of_whom_some_give_up(self, backend: Any) -> None:
        session = await backend.session()
        calls = [
            asyncio.ensure_future(session.writer.submit(Enqueue((new_task(str(n)),))))
            for n in range(100)
        ]
        await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)

        for n, answer in enumerate(answers):
            assert isinstance(answer, asyncio.CancelledError) == (n % 3 == 0)
        assert all([await session.fetch(str(n)) for n in range(100)])

    @ON_ASYNCIO
    async def test_a_native_cancellation_changes_nothing_about_that(self, backend: Any) -> None:
        session = await backend.session()
        for n in range(50):
            calling = asyncio.ensure_future(session.writer.submit(Enqueue((new_task(str(n)),))))
            for _ in range(n % 4):
                await asyncio.sleep(0)
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await calling

        await session.writer.submit(Enqueue((new_task("last"),)))
        # What had been handed over was stored; what was cancelled before it began was not.
        assert await session.fetch("last")
        stored = [n for n in range(50) if await session.fetch(str(n))]
        assert stored == [n for n in range(50) if n % 4]
