"""asyncio's own ways to give up a wait leave the op whole and the backend usable."""

import asyncio
import contextlib

import pytest

from sitq.protocol.ops import Count, Enqueue
from tests.conformance.asked import new_task

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}  # trio cancels by scopes only


async def by_wait_for(awaitable, seconds: float) -> None:
    await asyncio.wait_for(awaitable, seconds)


async def by_timeout(awaitable, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await awaitable


@pytest.mark.parametrize("give_up", [by_wait_for, by_timeout])
async def test_a_wait_that_was_given_up_leaves_the_op_whole(backend, give_up) -> None:
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


async def test_a_reader_that_gave_up_disturbs_no_other(backend) -> None:
    session = await backend.session()
    await session.writer.submit(Enqueue((new_task(),)))
    for n in range(50):
        reading = asyncio.ensure_future(session.fetch("t"))
        for _ in range(n % 5):
            await asyncio.sleep(0)
        reading.cancel()
        row, _ = await asyncio.gather(session.fetch("t"), reading, return_exceptions=True)
        assert row.id == "t"


async def test_a_caller_that_is_cancelled_twice_is_as_one_that_is_cancelled_once(backend) -> None:
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


async def test_many_of_whom_some_give_up(backend) -> None:
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
