"""`crash_everywhere`: good tasks pass, and planted mistakes are found and named by their line."""

import asyncio
import inspect
import logging
import random

import anyio
import pytest

from sitq import CheckFailed, Retry, Task, TaskQueue, ValidationError, testing
from sitq.backends.memory import MemoryBackend
from sitq.testing import CrashBroken, Effects, crash_everywhere

effects = Effects()


class Bank:
    """Takes each payment once, if it is given a key."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    async def charge(self, order: int, key: str | None = None) -> None:
        await anyio.sleep(1)
        if key is None or key not in self.keys:
            self.keys.add(key or "")
            effects.add("charged", order)
        await anyio.sleep(1)


bank = Bank()


async def charge(order: int) -> None:
    await bank.charge(order)


async def charge_once(order: int) -> None:
    await bank.charge(order, key=f"order-{order}")


def charge_at_once(order: int) -> None:
    effects.add("charged", order)


@pytest.fixture
def crash(loop):
    bank.keys.clear()

    def crash(function, *args, **options):
        options = {"effects": effects, "reset": bank.keys.clear, "backend": loop} | options
        return crash_everywhere(function, *args, **options)

    return crash


def line_of(function, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return next(first + n for n, line in enumerate(lines) if text in line)


# -- what is found ---------------------------------------------------------------------


def test_a_charge_with_a_key_survives_every_crash(crash) -> None:
    report = crash(charge_once, 7)

    assert report.broken == ()
    assert [str(crash.point).split(" in ")[0] for crash in report.crashes] == [
        "after the await",
        "after charged 7",
        "after the await",
        "after its last line, before its end was stored",
    ]
    assert report.undisturbed == "charged 7"


def test_a_charge_without_a_key_is_found_and_named_by_its_line(crash) -> None:
    with pytest.raises(AssertionError) as raised:
        crash(charge, 7)

    first, last = (line_of(Bank.charge, text) for text in ("effects.add", "sleep(1)"))
    report = raised.value.report
    assert [crash.point.line for crash in report.broken[:1]] == [first]
    assert report.crashes[0].point.line == last
    assert str(raised.value).splitlines()[:6] == [
        "3 of 4 crashes broke a promise",
        f"{__name__}.charge(7), killed at 4 points and run again from the beginning",
        "undisturbed: charged 7",
        f"  ok      after the await in Bank.charge(), {report.crashes[0].point.file} line {last},"
        f" from charge() line {line_of(charge, 'await')}",
        f"  BROKEN  after charged 7 in Bank.charge(), {report.crashes[0].point.file} line {first}",
        "          charged 7: twice instead of once",
    ]


def test_a_plain_function_is_killed_after_each_effect_and_at_its_end(crash) -> None:
    with pytest.raises(CrashBroken) as raised:
        crash(charge_at_once, 7)

    assert [crash.point.what for crash in raised.value.report.broken] == [
        "charged 7",
        "after its last line, before its end was stored",
    ]


def test_an_effect_that_a_second_run_leaves_out_is_found(crash) -> None:
    began: list = []

    async def ship(order: int) -> None:
        if began:
            return
        began.append(order)
        await anyio.sleep(1)
        effects.add("shipped", order)

    with pytest.raises(CrashBroken, match="shipped 7: never instead of once"):
        crash(ship, 7, reset=began.clear)


def test_a_second_run_that_fails_is_found(crash) -> None:
    async def open_account(name: str) -> None:
        await anyio.sleep(1)
        if name in bank.keys:
            raise ValueError(f"{name} has an account")
        bank.keys.add(name)
        effects.add("opened", name)

    with pytest.raises(CrashBroken, match="run again, it ended as failed: ann has an account"):
        crash(open_account, "ann")


def test_what_the_world_looks_like_may_be_told_by_a_function(crash) -> None:
    stock = {"apples": 5}

    async def take_one() -> None:
        left = stock["apples"] - 1
        await anyio.sleep(1)
        stock["apples"] = left
        await anyio.sleep(1)

    async def write_what_is(left: int) -> None:
        await anyio.sleep(1)
        stock["apples"] = left

    def fill() -> None:
        stock["apples"] = 5

    crash(write_what_is, 4, effects=lambda: stock, reset=fill)
    with pytest.raises(CrashBroken, match=r"\{'apples': 3\} instead of \{'apples': 4\}"):
        crash(take_one, effects=lambda: stock, reset=fill)


# -- what dead means -------------------------------------------------------------------


def test_no_finally_of_a_killed_task_has_an_effect(crash) -> None:
    world: list = []

    async def careful() -> None:
        try:
            await anyio.sleep(1)
        finally:
            effects.add("tidied")
            world.append("tidied")

    with pytest.raises(CrashBroken) as raised:
        crash(careful, reset=world.clear)
    report = raised.value.report
    assert not report.crashes[0].broken, "killed in the try, so its finally has not run"

    with pytest.raises(CrashBroken) as raised:
        crash(careful, effects=lambda: world, reset=world.clear)
    assert not raised.value.report.crashes[0].broken


def test_what_a_task_has_started_dies_with_it(crash) -> None:
    world: list = []

    async def write(text: str, after: float) -> None:
        await anyio.sleep(after)
        world.append(text)
        await anyio.sleep(after)

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(write, "a", 1)
            group.start_soon(write, "b", 10)

    with pytest.raises(CrashBroken) as raised:
        crash(both, effects=lambda: world, reset=world.clear)

    crashes = raised.value.report.crashes
    # a waits, writes, waits; then b does; then both() goes on.
    assert [crash.broken for crash in crashes[:4]] == [
        (),
        ("a: twice instead of once",),
        ("a: twice instead of once",),
        ("a: twice instead of once", "b: twice instead of once"),
    ]


def test_a_task_may_shield_itself_and_have_timeouts(crash) -> None:
    async def slow_and_careful(order: int) -> None:
        with anyio.move_on_after(5):
            await anyio.sleep_forever()
        with anyio.CancelScope(shield=True):
            await bank.charge(order, key="once")
        with anyio.fail_after(1):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0.5)

    assert not crash(slow_and_careful, 7).broken


def test_a_task_may_use_what_only_asyncio_has() -> None:
    async def native(order: int) -> None:
        async with asyncio.timeout(100):
            await asyncio.gather(bank.charge(order, key="once"), asyncio.sleep(200))

    async def within(order: int) -> None:
        async with asyncio.timeout(1000):
            await asyncio.gather(bank.charge(order, key="once"), asyncio.sleep(200))

    reset = bank.keys.clear
    assert not crash_everywhere(within, 7, effects=effects, reset=reset).broken
    with pytest.raises(CheckFailed, match="ends as failed even if nothing disturbs it"):
        crash_everywhere(native, 7, effects=effects, reset=reset)


def test_a_task_that_catches_everything_does_not_survive_its_death(crash) -> None:
    async def stubborn(order: int) -> None:
        try:
            await bank.charge(order, key="once")
        except BaseException:
            effects.add("survived", order)
            raise

    assert not crash(stubborn, 7).broken


def test_the_second_worker_runs_the_task_after_the_lease_of_the_first(crash) -> None:
    times: list = []

    async def note_the_time() -> None:
        times.append(testing.now())
        await anyio.sleep(1)

    crash(note_the_time, effects=lambda: None, reset=times.clear)

    one, two = times
    assert 30 <= (two - one).total_seconds() <= 45


# -- what goes in ----------------------------------------------------------------------


def test_a_task_with_options_may_be_given(crash) -> None:
    attempts: list = []

    async def fail_first(order: int, *, key: str) -> None:
        attempts.append(order)
        await bank.charge(order, key=key)
        if len(attempts) == 1:
            raise ConnectionError("no answer")

    def reset() -> None:
        attempts.clear()
        bank.keys.clear()

    task = Task(fail_first, 7, key="k").using(retry=Retry(attempts=2, delay=3600), queue="bank")

    assert crash(task, reset=reset).call.endswith("fail_first(7, key='k')")
    with pytest.raises(ValidationError, match="has its arguments already"):
        crash(task, 8)


def test_arguments_are_as_fresh_as_those_of_any_task(crash) -> None:
    async def eat(plate: list) -> None:
        while plate:
            await anyio.sleep(1)
            plate.pop()
        effects.add("eaten")

    with pytest.raises(CrashBroken) as raised:
        crash(eat, ["bread", "cheese"])
    assert [str(crash.point)[:14] for crash in raised.value.report.broken] == [
        "after eaten in",
        "after its last",
    ]


def test_effects_are_the_same_ones_wherever_they_are_carried_to(crash) -> None:
    async def note(where: Effects) -> None:
        await anyio.sleep(1)
        where.add("noted")

    with pytest.raises(CrashBroken, match="noted: twice"):
        crash(note, effects)


def test_a_plain_function_that_returns_a_coroutine_is_awaited(crash) -> None:
    def later(order: int):
        return bank.charge(order, key="once")

    assert len(crash(later, 7).crashes) == 4


def test_a_task_that_leaves_something_behind_is_told_to_put_it_back(crash) -> None:
    with pytest.raises(CheckFailed, match="not the same twice"):
        crash(charge_once, 7, reset=None)
    with pytest.raises(CheckFailed, match="no effects"):
        crash(charge_once, 7, reset=None)


def test_a_task_that_rolls_dice_is_told_so(crash) -> None:
    async def dice() -> None:
        effects.add("rolled")
        for _ in range(random.randint(1, 10**6) % 97):
            await anyio.sleep(1)

    with pytest.raises(CheckFailed, match=r"the same twice|the same points"):
        crash(dice)


def test_effects_must_be_some(crash) -> None:
    with pytest.raises(ValidationError, match="effects must be"):
        crash(charge, 7, effects=[])


def test_the_deaths_are_not_reported_as_if_they_were_real(crash, caplog) -> None:
    with caplog.at_level(logging.DEBUG):
        crash(charge_once, 7)

    assert [record for record in caplog.records if record.name.startswith("sitq")] == []
    assert not logging.getLogger("sitq.lease").disabled


# -- the recorder by itself ------------------------------------------------------------


@pytest.mark.anyio
async def test_effects_can_be_recorded_anywhere(sitq_queue) -> None:
    record = Effects()

    async def work(n: int) -> None:
        record.add("worked", n)

    sitq_queue.enqueue(work, 1)
    await sitq_queue.drain()

    assert list(record) == [("worked", 1)]
    assert repr(record) == "<Effects: worked 1>"
    record.clear()
    assert len(record) == 0


def test_the_real_queue_of_the_app_is_not_touched(crash) -> None:
    queue = TaskQueue(MemoryBackend())

    async def enqueues(order: int) -> None:
        await queue.using(task_id=f"mail-{order}").enqueue(charge_once, order)
        effects.add("asked for a mail")

    with pytest.raises(CrashBroken, match="asked for a mail: twice"):
        crash(enqueues, 7)
