"""When a task starts, and in which order: never before its time, by the store's clock."""

import time
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from gated_tasks import Gate, hold, until, visit

from sitq import MemoryBackend, Task, TaskQueue, ValidationError, Worker
from sitq.protocol.ops import Moment

pytestmark = pytest.mark.anyio

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [UTC, BERLIN, ZoneInfo("Asia/Kolkata"), timezone(timedelta(hours=-11, minutes=-30))]
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Clock:
    """The clock of a store in memory, moved by hand."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> Moment:
        wall_ms = (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        return Moment(wall_ms, 0, "a clock moved by hand")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def clocked(clock):
    backend = MemoryBackend(moment=clock)
    yield TaskQueue(backend)
    await backend.close()


async def starts_at(queue: TaskQueue, clock: Clock, gate: Gate, due: datetime) -> None:
    """Check that what is enqueued does not start before *due*, and starts then."""
    starts = gate.starts
    clock.now = due - timedelta(milliseconds=1)
    await Worker(queue.backend).drain()
    assert gate.starts == starts
    clock.now = due
    await Worker(queue.backend).drain()
    assert gate.starts == starts + 1


# -- by a clock moved by hand ----------------------------------------------------------


@pytest.mark.parametrize("zone", ZONES, ids=str)
async def test_an_eta_is_kept_to_the_millisecond_in_any_zone(clocked, clock, gate, zone) -> None:
    due = NOW + timedelta(days=40)
    await clocked.enqueue(visit, gate, eta=due.astimezone(zone))
    await starts_at(clocked, clock, gate, due)


@pytest.mark.parametrize("fold", [0, 1])
async def test_an_hour_that_comes_twice_is_told_apart(clocked, clock, gate, fold) -> None:
    eta = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold)
    await clocked.using(eta=eta).enqueue(visit, gate)
    await starts_at(clocked, clock, gate, datetime(2026, 10, 25, fold, 30, tzinfo=UTC))


async def test_an_eta_between_two_milliseconds_is_rounded_up(clocked, clock, gate) -> None:
    await clocked.enqueue(visit, gate, eta=NOW + timedelta(seconds=1, microseconds=1))
    await starts_at(clocked, clock, gate, NOW + timedelta(seconds=1, milliseconds=1))


@pytest.mark.parametrize(
    ("delay", "milliseconds"),
    [(90, 90_000), (0.25, 250), (timedelta(days=3), 3 * 86_400_000), (0.0001, 1), (1 / 3, 334)],
    ids=repr,
)
async def test_a_delay_counts_from_the_moment_of_enqueue(
    clocked, clock, gate, delay, milliseconds
) -> None:
    await clocked.using(delay=delay).enqueue(visit, gate)
    await starts_at(clocked, clock, gate, NOW + timedelta(milliseconds=milliseconds))


@pytest.mark.parametrize(
    "eta",
    [
        NOW,
        NOW - timedelta(microseconds=1),
        NOW - timedelta(days=365),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ],
    ids=str,
)
async def test_an_eta_that_has_passed_is_due_at_once(clocked, gate, eta) -> None:
    task_id = await clocked.enqueue(visit, gate, "ran", eta=eta)
    await Worker(clocked.backend).drain()
    assert await clocked.result(task_id, timeout=0) == "ran"


async def test_a_clock_that_is_set_back_keeps_a_task_waiting_and_loses_nothing(
    clocked, clock, gate
) -> None:
    await clocked.using(delay=60).enqueue(visit, gate)
    clock.now = NOW - timedelta(hours=1)
    await Worker(clocked.backend).drain()
    assert gate.starts == 0
    await starts_at(clocked, clock, gate, NOW + timedelta(seconds=60))


async def test_what_becomes_due_together_keeps_the_order_in_which_it_came(
    clocked, clock, gate
) -> None:
    for number, delay in enumerate([30, 10, 20]):
        await clocked.using(delay=delay).enqueue(visit, gate, number)
    clock.now = NOW + timedelta(minutes=1)
    await Worker(clocked.backend).drain()
    assert gate.order == [0, 1, 2]


# -- by real clocks --------------------------------------------------------------------


async def note_time() -> float:
    return time.time()


@pytest.mark.parametrize("zone", ZONES, ids=str)
async def test_a_running_worker_starts_a_task_at_its_eta_and_not_before(
    backend, queue, zone
) -> None:
    async with Worker(backend, poll_interval=60):
        eta = datetime.now(zone) + timedelta(milliseconds=60)
        task_id = await queue.enqueue(note_time, eta=eta)
        started = await queue.result(task_id, timeout=10)
        result = await queue.get_result(task_id, timeout=0)

    assert started >= eta.timestamp()
    assert started < eta.timestamp() + 5  # and long before the next poll
    assert result.started_at >= eta.astimezone(UTC)


async def test_a_running_worker_starts_a_task_after_its_delay(backend, queue) -> None:
    async with Worker(backend, poll_interval=60):
        before = time.time()
        task_id = await queue.using(delay=0.06).enqueue(note_time)
        started = await queue.result(task_id, timeout=10)
    assert before + 0.06 - 0.001 <= started < before + 5  # the store counts milliseconds


async def test_a_delayed_task_does_not_hold_up_one_that_came_after_it(backend, queue, gate) -> None:
    later = await queue.using(delay=3600).enqueue(visit, gate)
    now = await queue.enqueue(visit, gate, "now")
    await Worker(backend).drain()
    assert await queue.result(now, timeout=0) == "now"
    assert await queue.get_result(later, timeout=0) is None


# -- order -----------------------------------------------------------------------------


async def test_tasks_of_one_priority_start_in_the_order_in_which_they_came(
    backend, queue, gate
) -> None:
    for number in range(10):
        await queue.enqueue(visit, gate, number)
    await queue.enqueue_many([Task(visit, gate, number) for number in range(10, 20)])
    await Worker(backend).drain()
    assert gate.order == list(range(20))


async def test_a_larger_priority_starts_sooner(backend, queue, gate) -> None:
    priorities = [0, 5, -5, 2**31 - 1, 1, -(2**31 - 1), 5, 0]
    for number, priority in enumerate(priorities):
        await queue.using(priority=priority).enqueue(visit, gate, number)
    await Worker(backend).drain()
    assert gate.order == sorted(range(8), key=lambda n: -priorities[n])


async def test_a_priority_counts_among_the_tasks_that_are_due(backend, queue, gate) -> None:
    await queue.using(priority=9, delay=3600).enqueue(visit, gate, "later")
    await queue.enqueue(visit, gate, "now")
    await Worker(backend).drain()
    assert gate.order == ["now"]


# -- queues by name --------------------------------------------------------------------


async def test_a_worker_serves_the_queues_it_is_given_and_no_others(
    backend, queue, gate, view
) -> None:
    mail = TaskQueue(backend, queue="mail")
    ids = [
        await mail.enqueue(visit, gate, "mail"),
        await queue.enqueue(visit, gate, "default"),
        await queue.using(queue="films").enqueue(visit, gate, "films"),
    ]
    await Worker(backend, queues=["mail"]).drain()
    assert gate.order == ["mail"]
    await Worker(backend).drain()
    assert gate.order == ["mail", "default"]
    await Worker(backend, queues=("films", "mail", "nobody uses this one")).drain()
    assert gate.order == ["mail", "default", "films"]
    assert [view.row(task_id).queue for task_id in ids] == ["mail", "default", "films"]


async def test_over_several_queues_the_priority_decides(backend, queue, gate) -> None:
    for number, name in enumerate("abcabc"):
        await queue.using(queue=name, priority=number).enqueue(visit, gate, number)
    await Worker(backend, queues=["a", "b", "c"]).drain()
    assert gate.order == [5, 4, 3, 2, 1, 0]


async def test_a_name_may_hold_any_printable_character(backend, queue, gate) -> None:
    name = "Почта/снег \N{SNOWMAN} 'quoted' \"twice\" %s ? ; --" + "x" * 100
    await queue.using(queue=name).enqueue(visit, gate)
    await Worker(backend, queues=[name]).drain()
    assert gate.starts == 1


async def test_an_idle_worker_hears_at_once_of_what_is_enqueued_in_its_process(
    backend, queue, gate
) -> None:
    async with Worker(backend, poll_interval=3600, max_concurrency=2):
        await queue.enqueue(hold, gate)
        await until(lambda: gate.starts == 1)
        await queue.enqueue(hold, gate)
        await until(lambda: gate.starts == 2)
        gate.open()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256, 5, None])
async def test_a_queue_needs_a_printable_name(queue, name, backend) -> None:
    with pytest.raises(ValidationError, match="queue"):
        queue.using(queue=name)
    with pytest.raises(ValidationError, match="queue"):
        Worker(backend, queues=[name])
