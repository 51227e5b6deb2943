"""What a loop does for whoever asks: one function to be called, once, and the wait for that."""

import anyio
import anyio.lowlevel
import pytest

from sitq.adapters.current import current_loop

pytestmark = pytest.mark.anyio


async def test_whoever_asks_is_given_the_answer_that_comes_later() -> None:
    loop = current_loop()
    assert await loop.answer(lambda give: loop.soon(lambda: give("later"))) == "later"


async def test_an_answer_may_be_there_before_anybody_waits() -> None:
    assert await current_loop().answer(lambda give: give("at once")) == "at once"


async def test_an_answer_to_whoever_was_cancelled_goes_nowhere() -> None:
    loop, asked = current_loop(), []
    with anyio.CancelScope() as scope:
        loop.soon(scope.cancel)
        await loop.answer(asked.append)
    assert scope.cancelled_caught

    (give,) = asked
    give("too late")
    assert await loop.answer(lambda give: loop.soon(lambda: give("the next"))) == "the next"


async def test_each_is_given_its_own() -> None:
    loop, asked, given = current_loop(), {}, {}

    async def ask(n: int) -> None:
        given[n] = await loop.answer(lambda give: asked.setdefault(n, give))

    async with anyio.create_task_group() as group:
        for n in range(5):
            group.start_soon(ask, n)
        while len(asked) < 5:
            await anyio.lowlevel.checkpoint()
        for n, give in reversed(asked.items()):
            give(n * n)
    assert given == {n: n * n for n in range(5)}
