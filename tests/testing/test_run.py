"""What `run` promises of any program: time that jumps, results, errors, ends."""

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from textwrap import dedent

import anyio
import pytest

import sitq.testing
from sitq import DeadlockError, ValidationError, VirtualTimeError, testing

HOUR = 3600
START = datetime(2030, 1, 1, tzinfo=UTC)


# -- time ------------------------------------------------------------------------------


def test_an_hour_of_sleeps_takes_no_time_worth_mentioning(run) -> None:
    async def main() -> float:
        for _ in range(60):
            await anyio.sleep(60)
        return anyio.current_time()

    began = time.monotonic()

    assert run(main) == HOUR
    assert time.monotonic() - began < 2


def test_those_who_sleep_at_once_share_the_time(run) -> None:
    async def main() -> datetime:
        async with anyio.create_task_group() as sleepers:
            for _ in range(100):
                sleepers.start_soon(anyio.sleep, HOUR)
        return testing.now()

    assert run(main) == START + timedelta(hours=1)


def test_the_wall_clock_begins_where_it_is_told_to(run) -> None:
    start = datetime(2031, 5, 1, 9, 30, tzinfo=UTC)

    async def main() -> datetime:
        await anyio.sleep(0.25)
        return testing.now()

    assert run(main, start=start) == start + timedelta(milliseconds=250)


def test_a_timeout_strikes_at_its_second(run) -> None:
    async def main() -> float:
        with anyio.move_on_after(90):
            await anyio.sleep_forever()
        return anyio.current_time()

    assert run(main) == 90


def test_a_clock_of_days_misses_no_instant(run) -> None:
    async def main() -> list[datetime]:
        times = []
        for day in range(1, 31):
            await anyio.sleep(day * 86400 - anyio.current_time())
            times.append(testing.now())
        return times

    assert run(main) == [START + timedelta(days=day) for day in range(1, 31)]


def test_the_virtual_time_is_known_nowhere_else() -> None:
    with pytest.raises(VirtualTimeError, match="there is none here"):
        testing.now()


# -- results and errors ----------------------------------------------------------------


def test_main_gets_its_arguments_and_its_value_is_returned(run) -> None:
    async def main(a: int, b: int) -> int:
        return a + b

    assert run(main, 2, 3) == 5


def test_what_main_raises_comes_out_as_it_is(run) -> None:
    error = KeyError("x")

    async def main() -> None:
        raise error

    with pytest.raises(KeyError) as raised:
        run(main)
    assert raised.value is error


def test_one_run_follows_another(run) -> None:
    async def main() -> datetime:
        await anyio.sleep(1)
        return testing.now()

    assert run(main) == run(main)


def test_tasks_that_main_leaves_behind_on_asyncio_are_cancelled() -> None:
    import asyncio

    ends = []

    async def forgotten() -> None:
        try:
            await asyncio.sleep(HOUR)
        finally:
            ends.append(testing.now())

    async def main() -> None:
        main.task = asyncio.create_task(forgotten())
        await asyncio.sleep(1)

    testing.run(main)

    assert ends == [START + timedelta(seconds=1)]


def test_what_runs_in_an_executor_on_asyncio_takes_no_time_and_no_thread() -> None:
    import asyncio

    async def main() -> tuple:
        here = await asyncio.to_thread(threading.current_thread)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return here, testing.now()

    assert testing.run(main) == (threading.current_thread(), START)


def test_a_socket_within_the_program_is_heard(run) -> None:
    import socket

    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(b"x")
            with anyio.fail_after(HOUR):
                await anyio.wait_readable(ours)
            assert anyio.current_time() == 0
            return ours.recv(1)

    assert run(main) == b"x"


def test_a_socket_that_stays_silent_is_not_waited_for(run) -> None:
    import socket

    async def main() -> float:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            with anyio.move_on_after(HOUR):
                await anyio.wait_readable(ours)
            return anyio.current_time()

    assert run(main) == HOUR


# -- what ends a run -------------------------------------------------------------------


def test_a_deadlock_is_an_error_that_shows_where_main_stood(run) -> None:
    async def wait_for_nobody() -> None:
        await anyio.Event().wait()

    with pytest.raises(DeadlockError, match="nothing can ever happen again") as raised:
        run(wait_for_nobody)

    frames = []
    traceback = raised.value.__cause__.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "wait_for_nobody" in frames


def test_main_may_tidy_up_before_a_deadlock_is_raised(run) -> None:
    ends = []

    async def main() -> None:
        try:
            await anyio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                began = anyio.current_time()
                await anyio.sleep(60)
                ends.append(anyio.current_time() - began)

    with pytest.raises(DeadlockError):
        run(main)
    assert ends == [60]


def test_who_swallows_the_deadlock_hears_of_it_all_the_same(run) -> None:
    async def main() -> int:
        with anyio.CancelScope():
            try:
                await anyio.Event().wait()
            except anyio.get_cancelled_exc_class():
                return 1
        return 2

    with pytest.raises(DeadlockError):
        run(main)


def test_a_run_does_not_go_beyond_its_limit(run) -> None:
    async def main() -> None:
        for _ in range(1000):
            await anyio.sleep(HOUR)

    with pytest.raises(VirtualTimeError, match="its limit of 10 days, 0:00:00 of"):
        run(main, limit=timedelta(days=10))


def test_main_that_cannot_be_cancelled_is_given_up(loop) -> None:
    program = f"""
        import anyio
        from sitq import DeadlockError, testing

        async def main():
            with anyio.CancelScope(shield=True):
                await anyio.Event().wait()

        try:
            testing.run(main, backend={loop!r})
        except DeadlockError:
            print("given up")
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=30
    )

    assert done.stdout == "given up\n"


def test_a_run_within_a_run_is_refused(run) -> None:
    async def main() -> None:
        testing.run(anyio.sleep, 1)

    with pytest.raises(VirtualTimeError, match="an event loop runs here already"):
        run(main)


@pytest.mark.anyio
async def test_a_run_within_a_real_event_loop_is_refused(anyio_backend) -> None:
    with pytest.raises(VirtualTimeError, match="or await main"):
        testing.run(anyio.sleep, 1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("seed", "x"),
        ("seed", 1.5),
        ("backend", "curio"),
        ("start", datetime(2030, 1, 1)),  # noqa: DTZ001
        ("start", datetime(1969, 1, 1, tzinfo=UTC)),
        ("start", "2030-01-01"),
        ("limit", 0),
        ("limit", float("inf")),
    ],
)
def test_an_argument_that_is_wrong_is_refused_by_name(argument, value) -> None:
    with pytest.raises(ValidationError, match=argument):
        testing.run(anyio.sleep, 1, **{argument: value})


# -- what is left, and what is loaded --------------------------------------------------


def test_trio_is_left_as_it_was() -> None:
    from trio._core import _run

    before = _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING

    testing.run(anyio.sleep, 1, backend="trio")

    assert (_run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_outside_of_virtual_runs_anyio_makes_the_sets_it_always_made() -> None:
    testing.run(anyio.sleep, 1)
    from anyio._backends import _asyncio

    assert type(_asyncio.set()) is set
    assert _asyncio.set([1, 2]) == {1, 2}


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import sitq.testing", {"asyncio", "trio", "pytest"}),
        ("import anyio, sitq.testing as t; t.run(anyio.sleep, 1)", {"trio", "pytest"}),
    ],
)
def test_it_loads_no_more_than_it_needs(program, absent) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{program}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert not absent & set(done.stdout.split())


@pytest.mark.parametrize("name", sitq.testing.__all__)
def test_every_name_is_there_and_says_what_it_is(name) -> None:
    assert getattr(sitq.testing, name).__doc__
    assert name in dir(sitq.testing)


def test_a_name_that_does_not_exist_is_refused_like_any_other() -> None:
    with pytest.raises(AttributeError, match=r"'sitq\.testing' has no attribute 'rum'"):
        _ = sitq.testing.rum
