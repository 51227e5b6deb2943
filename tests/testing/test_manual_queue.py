"""The fixture `sitq_queue`: plain tests and async ones, and what a failed assertion says."""

import subprocess
import sys
import threading
from datetime import timedelta

import anyio
import pytest

from sitq import (
    CheckFailed,
    ResultTimeout,
    Retry,
    TaskFailed,
    ValidationError,
    VirtualTimeError,
    Worker,
    testing,
)
from sitq.testing import ManualQueue

sent: list = []


def send(to: str) -> str:
    sent.append(to)
    return f"sent to {to}"


async def send_slowly(to: str) -> None:
    await anyio.sleep(3600)
    sent.append((to, testing.now()))


async def tell_the_time(to: str) -> None:
    await anyio.lowlevel.checkpoint()
    sent.append((to, testing.now()))


@pytest.fixture(autouse=True)
def _nothing_was_sent():
    sent.clear()


@pytest.fixture(autouse=True)
def _no_thread_is_started(monkeypatch):
    def refuse(thread) -> None:
        raise AssertionError(f"{thread} was started")

    monkeypatch.setattr(threading.Thread, "start", refuse)


# -- plain tests -----------------------------------------------------------------------


def test_a_reminder_goes_out_after_a_day(sitq_queue) -> None:
    q = sitq_queue
    q.using(delay=86400).enqueue(send, "ann")
    q.assert_enqueued(send, args=("ann",), eta=q.clock.now() + timedelta(days=1))

    q.clock.advance(hours=23)
    q.drain()
    assert sent == []

    q.clock.advance(hours=1)
    q.drain()
    assert sent == ["ann"]
    q.refute_enqueued(send)


def test_what_a_task_enqueues_runs_too_also_in_another_queue(sitq_queue) -> None:
    q = sitq_queue

    def hand_on(to: str) -> None:
        q.using(queue="mail").enqueue(send, to)

    q.enqueue(hand_on, "ann")
    q.drain()

    assert sent == ["ann"]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_sleep_of_a_task_takes_no_time_and_does_not_move_the_clock(loop) -> None:
    q = ManualQueue(loop=loop)
    start = q.clock.now()
    q.enqueue(send_slowly, "ann")
    q.drain()

    assert sent == [("ann", start + timedelta(hours=1))]
    assert q.clock.now() == start


def test_two_drains_of_the_same_instant_give_different_ids(sitq_queue) -> None:
    q = sitq_queue

    def hand_on(to: str) -> None:
        q.enqueue(send, to)

    for to in ("ann", "bob"):
        q.enqueue(hand_on, to)
        q.drain()

    assert sent == ["ann", "bob"]


def test_the_next_run_fails_as_it_was_told_to(sitq_queue) -> None:
    q = sitq_queue
    retry = Retry(attempts=3, delay=60, factor=1, jitter=0)
    task_id = q.using(retry=retry).enqueue(send, "ann")
    q.fail_next(send, ConnectionError("no answer"))
    q.fail_next(send, KeyError)

    q.drain()
    (waiting,) = q.enqueued()
    assert (waiting.state, waiting.error) == ("scheduled", "no answer")
    for _ in range(2):
        assert sent == []
        q.clock.advance(minutes=1)
        q.drain()

    assert q.result(task_id) == "sent to ann"
    assert q.get_result(task_id).attempt == 3


def test_only_the_task_that_was_named_fails(sitq_queue) -> None:
    q = sitq_queue
    q.fail_next(send_slowly, ConnectionError)
    task_id = q.enqueue(send, "ann")
    failing = q.enqueue(send_slowly, "ann")
    q.drain()

    assert q.result(task_id) == "sent to ann"
    with pytest.raises(TaskFailed, match="ConnectionError"):
        q.result(failing)


def test_a_decorated_task_is_known_by_its_function(sitq_queue) -> None:
    q = sitq_queue

    @q.task(queue="mail", priority=3)
    def post(to: str) -> None:
        sent.append(to)

    post.enqueue("ann")

    q.assert_enqueued(post, args=("ann",), queue="mail", priority=3)
    q.fail_next(post, ConnectionError)
    q.drain()
    q.refute_enqueued(post)


def test_a_result_that_is_not_there_is_not_waited_for(sitq_queue) -> None:
    task_id = sitq_queue.enqueue(send, "ann")

    assert sitq_queue.get_result(task_id, timeout=60) is None
    with pytest.raises(ResultTimeout, match=r"nothing runs here but in drain\(\)"):
        sitq_queue.result(task_id)


# -- async tests -----------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_drain_runs_on_the_loop_of_the_test(sitq_queue) -> None:
    q = sitq_queue
    here = threading.get_ident()

    def where() -> int:
        return threading.get_ident()

    task_id = await q.queue.enqueue(where)
    later = await q.queue.using(delay=3600).enqueue(tell_the_time, "ann")
    await q.drain()

    assert q.result(task_id) == await q.queue.result(task_id) == here
    assert sent == []

    q.clock.advance(hours=1)
    await q.drain()
    assert q.get_result(later).status == "success"
    ((_, at),) = sent
    assert q.clock.now() <= at < q.clock.now() + timedelta(seconds=5)


@pytest.mark.anyio
async def test_failing_works_there_as_well(sitq_queue) -> None:
    q = sitq_queue
    q.fail_next(tell_the_time, ConnectionError("no answer"))
    task_id = q.enqueue(tell_the_time, "ann")
    q.enqueue(tell_the_time, "bob")
    await q.drain()

    with pytest.raises(TaskFailed, match="no answer"):
        q.result(task_id)
    assert [to for to, _ in sent] == ["bob"]


@pytest.mark.anyio
async def test_outside_of_a_drain_the_world_is_real(sitq_queue) -> None:
    await sitq_queue.drain()

    with pytest.raises(VirtualTimeError):
        testing.now()


def test_a_drain_inside_of_a_virtual_run_is_part_of_it(run) -> None:
    async def main() -> None:
        q = ManualQueue()
        start = testing.now()
        q.enqueue(send_slowly, "ann")
        await q.drain()
        assert testing.now() == start + timedelta(hours=1)
        assert sent == [("ann", testing.now())]

    run(main)


@pytest.mark.anyio
async def test_a_worker_of_the_app_may_be_there_too(sitq_queue, monkeypatch) -> None:
    monkeypatch.undo()  # it is a real one, with a thread for its lease
    async with Worker(sitq_queue.backend):
        task_id = await sitq_queue.queue.enqueue(tell_the_time, "ann")
        sitq_queue.fail_next(tell_the_time, ConnectionError)  # not of this worker
        with anyio.fail_after(10):
            result = await sitq_queue.queue.get_result(task_id)

    assert result.status == "failed"  # which has no virtual time to tell


# -- the clock -------------------------------------------------------------------------


def test_the_clock_begins_a_moment_ahead_so_that_tomorrow_comes_in_a_day(sitq_queue) -> None:
    from datetime import UTC, datetime

    eta = datetime.now(UTC) + timedelta(days=1)
    sitq_queue.enqueue(send, "ann", eta=eta)
    sitq_queue.drain()
    assert sent == []

    sitq_queue.clock.advance(timedelta(days=1))
    sitq_queue.drain()
    assert sent == ["ann"]


def test_the_clock_is_moved_by_spans_and_to_a_time_and_never_back() -> None:
    clock = ManualQueue().clock
    start = clock.now()
    assert start.microsecond == 0

    clock.advance(1.5, minutes=1, hours=1, days=1)
    assert clock.now() - start == timedelta(days=1, hours=1, minutes=1, seconds=1.5)
    clock.move_to(start + timedelta(days=7))
    assert clock.now() - start == timedelta(days=7)
    with pytest.raises(ValidationError, match="does not go back"):
        clock.move_to(start)
    with pytest.raises(ValidationError, match="0 or more"):
        clock.advance(hours=-1)


# -- what failed assertions say --------------------------------------------------------


def test_who_asks_for_a_task_that_does_not_wait_is_shown_the_nearest(sitq_queue) -> None:
    q = sitq_queue
    q.using(delay=86400).enqueue(send, "ann")
    q.using(queue="mail", priority=2).enqueue(send_slowly, to="ann")

    with pytest.raises(AssertionError) as raised:
        q.assert_enqueued(send, args=("bob",), queue="mail")

    tomorrow = q.clock.now() + timedelta(days=1)
    name = f"{__name__}.send"
    assert str(raised.value).splitlines() == [
        f"no task that waits is {name} with args=('bob',), queue='mail'",
        f"the nearest is {name}('ann'), due in 1 day, 0:00:00, at {tomorrow}",
        "  args: ('ann',), not ('bob',)",
        "  queue: 'default', not 'mail'",
        "2 tasks wait:",
        f"  {name}('ann'), due in 1 day, 0:00:00, at {tomorrow}",
        f"  {name}_slowly(to='ann'), queue 'mail', priority 2",
    ]


def test_who_asks_too_late_is_told_how_it_ended(sitq_queue) -> None:
    sitq_queue.fail_next(send, ConnectionError("no answer"))
    sitq_queue.enqueue(send, "ann")
    sitq_queue.drain()

    with pytest.raises(CheckFailed, match="it waits no more: it is failed: no answer\nnothing"):
        sitq_queue.assert_enqueued(send)


def test_who_refutes_what_waits_is_shown_it(sitq_queue) -> None:
    sitq_queue.enqueue(send, "ann")

    sitq_queue.refute_enqueued(send, args=("bob",))
    with pytest.raises(CheckFailed, match=r"waits, and should not:\n.*send\('ann'\)$"):
        sitq_queue.refute_enqueued(send, args=("ann",))


def test_a_hundred_tasks_are_not_all_shown(sitq_queue) -> None:
    for n in range(100):
        sitq_queue.enqueue(send, str(n))

    with pytest.raises(CheckFailed, match="and 90 more"):
        sitq_queue.assert_enqueued(send_slowly)


@pytest.mark.parametrize("ask", ["assert_enqueued", "refute_enqueued", "fail_next"])
def test_a_name_is_no_task(sitq_queue, ask) -> None:
    with pytest.raises(ValidationError, match="takes a function"):
        getattr(sitq_queue, ask)("send", *([KeyError] if ask == "fail_next" else []))


# -- the plugin ------------------------------------------------------------------------


def test_the_plugin_loads_next_to_nothing() -> None:
    program = "import sys; import pytest; before = set(sys.modules);"
    program += "import sitq.testing.pytest_plugin; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {"sitq", "sitq.testing", "sitq.testing.pytest_plugin"}


def test_pytest_finds_the_fixture_by_itself(tmp_path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(sitq_queue): sitq_queue.drain()\n")
    line = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)

    assert "1 passed" in done.stdout, done.stdout + done.stderr
