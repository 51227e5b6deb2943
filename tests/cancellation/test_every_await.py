"""Whoever cancels a call, at whatever await, once or twice: nothing is left half done.

Every public coroutine is called again and again, and cancelled at its first suspension, at its
second, and so on, until it ends before its turn comes. See `table.py` for what must hold.
"""

import inspect
from functools import partial

import anyio
import pytest

from sitq import TaskQueue, Worker
from sitq.backends.base import Backend
from sitq.queue import Enqueuer, QueuedFunction
from sitq.testing import run
from tests.cancellation.place import Place
from tests.cancellation.stepping import NATIVE, SCOPE, Seen, call, every_point
from tests.cancellation.table import CASES, Case

FACES = (TaskQueue, Enqueuer, QueuedFunction, Backend, Worker)


async def cancel_everywhere(case: Case, path: str | None, ways: tuple[str, ...]) -> list[Seen]:
    """Cancel its call at each of its awaits; return what was seen."""
    place = Place(path)
    await place.backend.connect()

    async def attempt(point) -> Seen:
        place.memo.clear()
        if case.new:
            await place.backend.close()
            place.renew()
        if case.prepare is not None:
            await case.prepare(place)
        beside = case.meanwhile and partial(case.meanwhile, place)
        seen = await call(lambda: case.call(place), point, beside)
        try:
            await case.check(place, seen)
        except BaseException as error:
            error.add_note(f"{seen}")
            raise
        return seen

    seen = []
    async with anyio.create_task_group() as place.group:
        for way in ways:
            seen += await every_point(way, attempt, case.most)
    await place.backend.close()
    await place.is_left()
    return seen


def check_how_many(name: str, seen: list[Seen], ways: tuple[str, ...]) -> None:
    """Tell how many points there were, and check that there were some at all."""
    for way in ways:
        struck = [one for one in seen if one.asked and one.point.way == way]
        awaits = len({one.point.at for one in struck})
        twice = sum(one.asked > 1 for one in struck)
        print(f"{name}: {len(struck)} times by {way} at {awaits} awaits, {twice} of them twice")
        assert awaits >= CASES[name].least


@pytest.mark.anyio
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_call_may_be_cancelled_at_every_await(
    anyio_backend, name, kind, sqlite_path
) -> None:
    ways = (SCOPE,) if anyio_backend[0] == "trio" else (NATIVE, SCOPE)
    path = sqlite_path if kind == "sqlite" else None
    check_how_many(name, await cancel_everywhere(CASES[name], path, ways), ways)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_so_it_may_in_virtual_time(loop, name, kind, sqlite_path) -> None:
    ways = (SCOPE,) if loop == "trio" else (NATIVE, SCOPE)
    path = sqlite_path if kind == "sqlite" else None
    check_how_many(name, run(cancel_everywhere, CASES[name], path, ways, backend=loop), ways)


def test_no_public_coroutine_is_left_out() -> None:
    there = {f"{face.__name__}.{name}" for face in FACES for name in _coroutines(face)}
    assert there | {"Worker.start", "Worker.drain"} == {
        name for case in CASES.values() for name in case.covers
    }


def _coroutines(face: type) -> list[str]:
    return [
        name
        for name, member in vars(face).items()
        if inspect.iscoroutinefunction(member) and (name[0] != "_" or name.startswith("__a"))
    ]
