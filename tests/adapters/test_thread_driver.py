"""A store in a thread of its own: what it is asked, in order, and always answered."""

import threading

import anyio
import pytest

from sitq.adapters.base import BatchError
from sitq.adapters.current import current_loop
from sitq.adapters.thread import ThreadDriver
from sitq.exceptions import StoreBusyError
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Counted
from tests.adapters.asked import enqueue
from tests.adapters.fakes import LOOK, FakeStore

pytestmark = pytest.mark.anyio


async def opened(driver) -> Exception | None:
    """Open it; return the error that kept it from that."""
    done, errors = anyio.Event(), []
    driver.begin_open(lambda error: (errors.append(error), done.set()))
    await done.wait()
    (error,) = errors
    return error


async def asked(driver, *ops):
    """Have *ops* applied; return the answer."""
    done, answers = anyio.Event(), []
    driver.begin(ops, lambda answer: (answers.append(answer), done.set()))
    with anyio.fail_after(1):
        await done.wait()
    (answer,) = answers
    return answer


async def closed(driver) -> None:
    """Close it."""
    done = anyio.Event()
    driver.begin_close(done.set)
    with anyio.fail_after(5):
        await done.wait()


async def test_one_thread_opens_uses_and_closes_the_store() -> None:
    store = FakeStore()
    driver = ThreadDriver(current_loop(), store.open)
    assert await opened(driver) is None
    assert await asked(driver, LOOK, LOOK) == (Counted(()), Counted(()))
    await closed(driver)

    (thread,) = store.threads
    assert thread is not threading.current_thread()
    assert thread.name == "sitq store"
    assert thread.daemon, "a program that never closes can still end"
    thread.join(5)
    assert not thread.is_alive()
    assert store.events == ["open", "apply", "tidy", "close"]


async def test_a_store_that_cannot_be_opened_is_told_of_and_leaves_no_thread() -> None:
    threads = set(threading.enumerate())

    def fail():
        raise FileNotFoundError("gone")

    driver = ThreadDriver(current_loop(), fail)
    assert isinstance(await opened(driver), FileNotFoundError)
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads


async def test_batches_are_applied_in_the_order_of_their_coming_and_answered_in_the_loop() -> None:
    store = FakeStore()
    driver = ThreadDriver(current_loop(), store.open)
    await opened(driver)
    answered, all_done = [], anyio.Event()

    def done(n, answer) -> None:
        assert current_loop().is_current()
        answered.append(n)
        if n == 9:
            all_done.set()

    for n in range(10):
        driver.begin((enqueue(str(n)),), lambda answer, n=n: done(n, answer))
    await all_done.wait()
    await closed(driver)
    assert answered == list(range(10))
    assert [batch[0].tasks[0].id for batch in store.batches] == [str(n) for n in range(10)]


async def test_the_answer_is_out_before_the_store_tidies_up() -> None:
    may_tidy = threading.Event()
    store = FakeStore()
    store.tidy = may_tidy.wait
    driver = ThreadDriver(current_loop(), store.open)
    await opened(driver)

    assert await asked(driver, LOOK) == (Counted(()),)
    may_tidy.set()
    await closed(driver)


async def test_a_batch_that_fails_is_answered_with_its_error_and_the_next_goes_through() -> None:
    failure = BatchError(StoreBusyError("locked"), Blame.STORE)
    answers = iter([failure, (Counted(()),)])

    def answer(ops):
        following = next(answers)
        if isinstance(following, BatchError):
            raise following
        return following

    driver = ThreadDriver(current_loop(), FakeStore(answer).open)
    await opened(driver)
    assert await asked(driver, LOOK) is failure
    assert await asked(driver, LOOK) == (Counted(()),)
    await closed(driver)


async def test_a_store_that_raises_what_it_should_not_is_answered_for_and_lives_on() -> None:
    """A backend of somebody's own may let a plain error out: nobody waits for ever for that."""
    answers = iter([ValueError("a bug"), (Counted(()),)])

    def answer(ops):
        following = next(answers)
        if isinstance(following, Exception):
            raise following
        return following

    driver = ThreadDriver(current_loop(), FakeStore(answer).open)
    await opened(driver)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda args: None)  # it may be told of there, too
        failed = await asked(driver, LOOK)
        assert isinstance(failed, BatchError)
        assert isinstance(failed.error, ValueError)
        assert await asked(driver, LOOK) == (Counted(()),)
    await closed(driver)


async def test_a_store_that_cannot_tidy_up_goes_on_applying() -> None:
    store = FakeStore()

    def fail() -> None:
        raise OSError("no room")

    store.tidy = fail
    driver = ThreadDriver(current_loop(), store.open)
    await opened(driver)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda args: None)
        assert await asked(driver, LOOK) == (Counted(()),)
        assert await asked(driver, LOOK) == (Counted(()),)
    await closed(driver)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_answer_for_a_loop_that_is_over_is_dropped(loop) -> None:
    may_answer, closed = threading.Event(), threading.Event()

    def answer(ops):
        may_answer.wait(5)
        return (Counted(()),)

    store = FakeStore(answer)
    store.close = closed.set

    async def ask_and_go() -> ThreadDriver:
        driver = ThreadDriver(current_loop(), store.open)
        await opened(driver)
        driver.begin((LOOK,), lambda answer: pytest.fail("nobody is there to hear it"))
        return driver

    driver = anyio.run(ask_and_go, backend=loop)
    may_answer.set()
    driver._work.put(None)
    assert closed.wait(5)
    for thread in store.threads:
        thread.join(5)
        assert not thread.is_alive()
