"""Group commit on a real event loop: who is answered, with what, and that everybody is."""

import asyncio

import anyio
import pytest

from sitq import (
    BackendClosedError,
    CommitUnknownError,
    MemoryBackend,
    SitqError,
    StoreBusyError,
    StoreError,
)
from sitq.adapters import clocks
from sitq.adapters.committer import Committer
from sitq.adapters.current import current_loop
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Count
from tests.adapters.asked import count_in, enqueue
from tests.adapters.fakes import LOOK, FakeDriver

pytestmark = pytest.mark.anyio


async def settle_down() -> None:
    """Let everything happen that is due on this loop: tasks, and what they ask of later turns."""
    for _ in range(2):
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(0.002)


@pytest.fixture
def driver():
    return FakeDriver()


@pytest.fixture
async def heard():
    return []


@pytest.fixture
async def committer(driver, heard):
    return Committer(current_loop(), driver, lambda ops, outcomes: heard.append((ops, outcomes)))


class Callers:
    """Callers that wait; and what each was told."""

    def __init__(self, committer, tasks) -> None:
        self._committer = committer
        self._tasks = tasks
        self.told = {}

    async def ask(self, **ops) -> None:
        """Have each op submitted by a caller of its own, and wait until all of them wait."""
        for name, op in ops.items():
            self._tasks.start_soon(self._call, name, op)
        await settle_down()

    async def _call(self, name, op) -> None:
        try:
            self.told[name] = await self._committer.submit(op)
        except SitqError as error:
            self.told[name] = error


@pytest.fixture
async def callers(committer):
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(5):
            yield Callers(committer, tasks)
        tasks.cancel_scope.cancel()


@pytest.fixture
async def crowd(callers, driver):
    """The callers of a committer whose last batch had held what several had asked."""
    await callers.ask(x=LOOK, y=LOOK, z=LOOK)
    while driver.begun:
        driver.commit()
        await settle_down()
    callers.told.clear()
    driver.batches.clear()
    return callers


async def test_a_lone_caller_does_not_wait_for_company(committer, driver) -> None:
    answers = []
    for n in range(1, 4):
        committer.submit_nowait((LOOK,), answers.append)
        assert len(driver.batches) == n, "in the very turn"
        driver.commit()
        assert len(answers) == n


async def test_what_comes_while_one_is_alone_leaves_together(callers, driver) -> None:
    await callers.ask(a=LOOK, b=LOOK, c=LOOK)
    assert [len(batch) for batch in driver.batches] == [1]
    driver.commit()
    assert [len(batch) for batch in driver.batches] == [1, 2]


async def test_callers_who_ask_again_and_again_come_to_leave_together(
    committer, callers, driver
) -> None:
    async def ask_again_and_again() -> None:
        while True:
            await committer.submit(LOOK)

    for _ in range(5):
        callers._tasks.start_soon(ask_again_and_again)
    await settle_down()
    for _ in range(60):  # on trio it is by chance who comes first, and may take some
        driver.commit()
        await settle_down()
    sizes = [len(batch) for batch in driver.batches]
    assert sizes[:2] == [1, 4]
    # On trio they may come to leave by two and three: as many wait as are under way, about.
    assert sizes[-2:] == [5, 5] or sorted(sizes[-2:]) == [2, 3]


async def test_many_who_wait_do_not_wait_for_the_few_who_are_answered(crowd, driver) -> None:
    await crowd.ask(a=LOOK, b=LOOK, c=LOOK)
    await crowd.ask(d=LOOK, e=LOOK)
    driver.commit()
    assert [len(batch) for batch in driver.batches] == [3, 2], "in the very turn"


async def test_a_few_who_wait_leave_also_if_nobody_asks_again(crowd, driver) -> None:
    await crowd.ask(a=LOOK, b=LOOK, c=LOOK)
    await crowd.ask(d=LOOK)
    driver.commit()
    await settle_down()
    assert [len(batch) for batch in driver.batches] == [3, 1]
    driver.commit()
    await settle_down()
    assert sorted(crowd.told) == ["a", "b", "c", "d"]


async def test_what_a_crowd_asks_in_one_turn_of_the_loop_leaves_in_one_transaction(
    crowd, driver
) -> None:
    await crowd.ask(a=LOOK, b=LOOK, c=LOOK)
    assert [len(batch) for batch in driver.batches] == [3]

    await crowd.ask(d=LOOK, e=LOOK)
    assert len(driver.batches) == 1, "one at a time"
    driver.commit()
    await settle_down()
    assert [len(batch) for batch in driver.batches] == [3, 2]
    assert sorted(crowd.told) == ["a", "b", "c"]
    driver.commit()
    await settle_down()
    assert sorted(crowd.told) == ["a", "b", "c", "d", "e"]


async def test_news_is_passed_on_before_the_callers_are_answered(callers, driver, heard) -> None:
    await callers.ask(a=LOOK)
    assert heard == []
    driver.commit()
    assert [ops for ops, _ in heard] == [(LOOK,)]
    assert callers.told == {}


async def test_a_failure_of_the_store_is_told_to_all_and_stored_nothing(crowd, driver) -> None:
    await crowd.ask(a=LOOK, b=LOOK)
    driver.fail(StoreBusyError("locked"), Blame.STORE)
    await settle_down()

    assert [type(error) for error in crowd.told.values()] == [StoreBusyError, StoreBusyError]
    await crowd.ask(c=LOOK)
    driver.commit()
    await settle_down()
    assert isinstance(crowd.told["c"], tuple)


async def test_an_error_that_is_not_ours_is_told_as_ours_with_its_cause(callers, driver) -> None:
    cause = OSError("pulled the plug")
    await callers.ask(a=LOOK)
    driver.fail(cause, Blame.STORE)
    await settle_down()

    error = callers.told["a"]
    assert type(error) is StoreError
    assert error.__cause__ is cause
    assert "nothing was stored" in str(error)
    assert "pulled the plug" in str(error)


async def test_of_many_only_the_one_at_fault_is_refused(callers, driver) -> None:
    ops = {f"c{n}": enqueue(f"t{n}") for n in range(16)}
    await callers.ask(**ops)
    while driver.begun:
        batch, _ = driver.begun[0]
        if ops["c11"] in batch:
            driver.fail(ValueError("c11"), Blame.OP)
        else:
            driver.commit()
        await settle_down()

    refused = [name for name, told in callers.told.items() if isinstance(told, Exception)]
    assert len(callers.told) == 16
    assert refused == ["c11"]


async def test_a_commit_that_was_cut_off_leaves_every_caller_in_doubt(crowd, driver) -> None:
    await crowd.ask(a=LOOK, b=LOOK)
    driver.fail(OSError("disk I/O error"), Blame.UNKNOWN)
    await settle_down()

    assert [type(error) for error in crowd.told.values()] == [CommitUnknownError] * 2


async def test_what_is_asked_because_of_another_goes_along_in_one_transaction(
    driver, heard
) -> None:
    seen, answers = [], []

    def offer(ops) -> None:
        seen.append(tuple(ops))
        committer.submit_nowait((LOOK,), lambda answer: answers.append("along"))

    committer = Committer(current_loop(), driver, lambda *_: None, offer=offer)
    for n in range(1, 3):
        committer.submit_nowait((enqueue(f"t{n}"),), lambda answer: answers.append("caller"))
        assert driver.batches[n - 1 :] == [(enqueue(f"t{n}"), LOOK)], "in the very turn"
        assert seen[n - 1 :] == [(enqueue(f"t{n}"),)]
        driver.commit()
    assert answers == ["caller", "along"] * 2


async def test_closing_answers_everybody_first(committer, callers, driver) -> None:
    await callers.ask(a=LOOK)
    closed = anyio.Event()
    committer.begin_close(closed.set)
    await callers.ask(late=LOOK)
    assert isinstance(callers.told["late"], BackendClosedError)
    assert not driver.closed
    driver.commit()
    assert driver.closed
    assert closed.is_set()
    await settle_down()
    assert isinstance(callers.told["a"], tuple)


async def test_what_was_asked_in_the_turn_of_the_closing_is_stored(
    committer, driver, heard
) -> None:
    answers = []
    committer.submit_nowait((LOOK,), answers.append)
    committer.begin_close(lambda: None)
    await settle_down()
    driver.commit()
    assert len(heard) == len(answers) == 1


class Bug(Exception):
    """What nobody has thought of."""


@pytest.fixture
async def quiet(anyio_backend) -> None:
    """What a loop prints of an error in a callback is not the concern of these tests."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)


# An error in a callback ends a trio program: there nobody is left to wait.
on_asyncio = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)


@on_asyncio
@pytest.mark.usefixtures("quiet")
async def test_a_bug_in_the_machine_is_told_to_all_who_wait(
    committer, callers, driver, monkeypatch
) -> None:
    await callers.ask(a=LOOK, b=LOOK)
    monkeypatch.setattr(committer._machine, "receive", lambda *_: (_ for _ in ()).throw(Bug()))
    await callers.ask(c=LOOK)
    with pytest.raises(Bug):
        driver.commit()
    await settle_down()

    assert {name: type(told) for name, told in callers.told.items()} == dict.fromkeys(
        "abc", StoreError
    )


@on_asyncio
@pytest.mark.usefixtures("quiet")
async def test_who_comes_after_a_bug_does_not_wait_for_ever(committer, callers, driver) -> None:
    """A driver that failed where it must not has left a batch that nobody will ever answer."""
    begin = driver.begin

    def fail(ops, done) -> None:
        raise Bug

    driver.begin = fail
    await callers.ask(a=LOOK)
    assert type(callers.told["a"]) is StoreError
    driver.begin = begin

    await callers.ask(b=LOOK)
    if driver.begun:  # it goes on as if nothing had been; or it refuses: both are answers
        driver.commit()
    await settle_down()
    assert "b" in callers.told


@on_asyncio
@pytest.mark.usefixtures("quiet")
async def test_a_memory_backend_whose_clock_failed_once_works_on_and_can_be_closed(
    anyio_backend,
) -> None:
    failures = [Bug()]

    def moment():
        if failures:
            raise failures.pop()
        return clocks.moment()

    backend = MemoryBackend(moment=moment)
    session = await backend.session()
    with anyio.fail_after(1), pytest.raises(SitqError):
        await session.writer.submit(enqueue("a"))
    with anyio.move_on_after(0.5) as waiting:
        await session.writer.submit(enqueue("b"))
    assert not waiting.cancelled_caught, "nobody waits for ever"
    assert await count_in(session) == 1
    with anyio.fail_after(1):
        await backend.close()


async def test_an_op_that_cannot_be_stored_does_not_take_its_neighbours_with_it(
    make_backend,
) -> None:
    """A lone surrogate is no text for a file; in memory it may well be."""
    async with make_backend() as backend:
        session = await backend.session()
        told = {}

        async def call(id_: str) -> None:
            try:
                (told[id_],) = await session.writer.submit(enqueue(id_))
            except StoreError as error:
                told[id_] = error

        ids = [f"t{n}" for n in range(20)]
        ids[7] = "\ud800"
        async with anyio.create_task_group() as tasks:
            for id_ in ids:
                tasks.start_soon(call, id_)

        refused = [id_ for id_, answer in told.items() if isinstance(answer, Exception)]
        assert refused == (["\ud800"] if make_backend.kind == "sqlite" else [])
        (counted,) = await session.reader.submit(Count())
        assert sum(n for _, _, n in counted.rows) == 20 - len(refused)
