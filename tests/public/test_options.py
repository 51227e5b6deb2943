"""Whose word counts: using() before the decorator, the decorator before the queue's defaults."""

import threading
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from gated_tasks import hold, visit
from shapes import (
    Adder,
    add,
    takes_anything,
    takes_awkward_names,
    takes_eta,
    takes_option_names,
)

from sitq import Retry, Task, TaskConflictError, TaskQueue, ValidationError, Worker

pytestmark = pytest.mark.anyio

SOON = timedelta(seconds=1)


@pytest.fixture
def mail(backend):
    return TaskQueue(backend, queue="mail", priority=1)


@pytest.fixture
def where(view):
    return lambda task_id: view.row(task_id).queue


# -- precedence ------------------------------------------------------------------------


async def test_the_defaults_of_a_queue_hold_where_nothing_else_is_said(mail, where) -> None:
    ids = [
        await mail.enqueue(add, 1),
        await mail.using(priority=3).enqueue(add, 1),
        await mail.task(add).enqueue(1),
        await mail.task(priority=3)(add).enqueue(1),
        await mail.task(add).using(priority=3).enqueue(1),
        *await mail.enqueue_many([Task(add, 1)]),
        *await mail.using(priority=3).enqueue_many([Task(add, 1)]),
    ]
    assert [where(task_id) for task_id in ids] == ["mail"] * len(ids)


async def test_the_defaults_of_a_queue_hold_for_a_call_with_an_eta(mail, where) -> None:
    task_id = await mail.enqueue(add, 1, eta=datetime.now(UTC) + SOON)
    assert where(task_id) == "mail"


async def test_the_defaults_of_a_queue_hold_for_a_task_with_options_of_its_own(mail, where) -> None:
    (task_id,) = await mail.enqueue_many([Task(add, 1).using(priority=3)])
    assert where(task_id) == "mail"


async def test_the_decorator_goes_before_the_queue(mail, where) -> None:
    films = mail.task(queue="films")(add)
    ids = [
        await films.enqueue(1),
        await mail.enqueue(films, 1),
        await films.using(priority=3).enqueue(1),
        *await mail.enqueue_many([films.call(1), Task(films, 1), films.call(1).using(priority=3)]),
    ]
    assert [where(task_id) for task_id in ids] == ["films"] * len(ids)


async def test_using_goes_before_the_decorator(mail, where) -> None:
    films = mail.task(queue="films")(add)
    ids = [
        await films.using(queue="now").enqueue(1),
        await mail.using(queue="now").enqueue(films, 1),
        await mail.using(queue="now").enqueue(add, 1),
        *await mail.using(queue="now").enqueue_many([films.call(1), Task(add, 1)]),
        *await mail.enqueue_many([films.call(1).using(queue="now")]),
    ]
    assert [where(task_id) for task_id in ids] == ["now"] * len(ids)


async def test_what_is_said_later_goes_before_what_was_said_earlier(queue, where) -> None:
    task = queue.task(queue="a")(add)
    ids = [
        await queue.using(queue="a").using(queue="b").enqueue(add, 1),
        await task.using(queue="c").using(queue="b").enqueue(1),
    ]
    assert [where(task_id) for task_id in ids] == ["b", "b"]


async def test_using_leaves_the_queue_and_the_function_as_they_were(queue, where) -> None:
    task = queue.task(queue="a")(add)
    task.using(queue="b")
    queue.using(queue="b")
    assert where(await task.enqueue(1)) == "a"
    assert where(await queue.enqueue(add, 1)) == "default"


async def test_the_options_of_a_function_hold_on_any_queue_object(backend, mail, where) -> None:
    task = mail.task(queue="films")(add)
    assert where(await TaskQueue(backend, queue="other").enqueue(task, 1)) == "films"


@pytest.mark.parametrize("way", ["queue", "function", "task"])
async def test_an_eta_said_later_replaces_a_delay_and_the_reverse(
    backend, queue, gate, way
) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    far = datetime.now(UTC) + timedelta(days=1)
    if way == "queue":
        await queue.using(delay=3600).using(eta=past).enqueue(visit, gate)
        await queue.using(eta=far).using(delay=0).enqueue(visit, gate)
    elif way == "function":
        await queue.task(delay=3600)(visit).using(eta=past).enqueue(gate)
        await queue.task(eta=far)(visit).using(delay=0).enqueue(gate)
    else:
        first = queue.task(delay=3600)(visit).call(gate).using(eta=past)
        second = queue.task(eta=far)(visit).call(gate).using(delay=0)
        await queue.enqueue_many([first, second])
    await Worker(backend).drain()
    assert gate.starts == 2


def test_an_eta_and_a_delay_said_together_are_refused(make_backend) -> None:
    queue = TaskQueue(make_backend())
    with pytest.raises(ValidationError, match="eta and delay cannot be given together"):
        queue.using(eta=datetime.now(UTC), delay=1)


# -- a mistake shows where it is made --------------------------------------------------

MISTAKES = [
    ({"priority": "high"}, "priority"),
    ({"prio": 1}, "there is no option 'prio'; there are delay, eta, max_crashes, priority"),
    ({"retry": 3}, "retry must be a Retry"),
    ({"eta": datetime(2030, 1, 1)}, "aware"),  # noqa: DTZ001  # naive, on purpose
]


@pytest.mark.parametrize(("options", "said"), MISTAKES, ids=lambda value: str(value)[:20])
def test_a_wrong_option_is_refused_where_it_is_given(make_backend, options, said) -> None:
    backend = make_backend()
    queue = TaskQueue(backend)
    task = queue.task(add)
    for give in (
        queue.using,
        queue.using(priority=1).using,
        queue.task,
        task.using,
        task.call(1).using,
        lambda **options: TaskQueue(backend, **options),
    ):
        with pytest.raises(ValidationError, match=said):
            give(**options)


# -- options never mix with arguments --------------------------------------------------


async def test_a_task_may_take_arguments_named_as_options_are(backend, queue) -> None:
    given = {
        "queue": "a",
        "priority": "b",
        "delay": -1,
        "timeout": "never",
        "retry": 5,
        "max_crashes": None,
        "task_id": "",
    }
    task = queue.task(takes_option_names)
    ids = [
        await queue.enqueue(takes_option_names, **given),
        await queue.using(priority=1).enqueue(takes_option_names, **given),
        await task.enqueue(**given),
        await task.using(delay=0).enqueue(**given),
        *await queue.enqueue_many([Task(takes_option_names, **given), task.call(**given)]),
    ]
    await Worker(backend).drain()
    results = [await queue.result(task_id, timeout=0) for task_id in ids]
    assert results == [list(given.values())] * 6


AWKWARD = {"self": 1, "function": 2, "args": 3, "kwargs": 4}


async def test_a_task_may_take_arguments_of_any_name(backend, queue) -> None:
    ids = [
        await queue.enqueue(takes_awkward_names, **AWKWARD),
        await queue.using(priority=1).enqueue(takes_awkward_names, **AWKWARD),
        *await queue.enqueue_many([Task(takes_awkward_names, **AWKWARD)]),
    ]
    await Worker(backend).drain()
    assert [await queue.result(task_id, timeout=0) for task_id in ids] == [[1, 2, 3, 4]] * 3


async def test_a_function_made_enqueueable_may_take_arguments_of_any_name(backend, queue) -> None:
    task = queue.task(takes_awkward_names)
    assert task(**AWKWARD) == [1, 2, 3, 4]
    ids = [await task.enqueue(**AWKWARD), *await queue.enqueue_many([task.call(**AWKWARD)])]
    await Worker(backend).drain()
    assert [await queue.result(task_id, timeout=0) for task_id in ids] == [[1, 2, 3, 4]] * 2


async def test_an_eta_that_could_be_meant_for_the_task_is_refused(queue, view) -> None:
    with pytest.raises(ValidationError, match=r"not clear whose .* using\(eta=\.\.\.\)"):
        await queue.enqueue(takes_eta, eta=datetime.now(UTC))
    assert view.total() == 0


async def test_an_eta_given_by_using_leaves_the_name_to_the_task(backend, queue) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    ids = [
        await queue.using(eta=past).enqueue(takes_eta, eta="mine"),
        await queue.task(takes_eta).using(eta=past).enqueue(eta="mine"),
        *await queue.using(eta=past).enqueue_many([Task(takes_eta, eta="mine")]),
    ]
    await Worker(backend).drain()
    assert [await queue.result(task_id, timeout=0) for task_id in ids] == ["mine"] * 3


async def test_an_eta_that_only_the_option_can_mean_is_the_option(queue, view) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    ids = [
        await queue.enqueue(add, 1, eta=later),
        await queue.enqueue(Adder(1), 2, eta=later),
        await queue.enqueue(takes_anything, eta=later),
    ]
    assert [view.state(task_id) for task_id in ids] == ["scheduled"] * 3


# -- ids of one's own ------------------------------------------------------------------


async def test_the_same_call_under_the_same_id_is_stored_once(backend, queue, gate, view) -> None:
    for _ in range(3):
        assert await queue.using(task_id="order-7").enqueue(visit, gate, 1) == "order-7"
    assert view.total() == 1
    await Worker(backend).drain()
    assert await queue.using(task_id="order-7").enqueue(visit, gate, 1) == "order-7"
    await Worker(backend).drain()

    assert gate.starts == 1
    assert await queue.result("order-7", timeout=0) == 1


async def test_the_same_call_asked_for_at_once_is_stored_once(backend, queue, gate, view) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(queue.using(task_id="order-7").enqueue, visit, gate, 1)
    assert view.total() == 1


async def test_another_call_under_the_same_id_is_a_conflict_that_tells_the_state(
    backend, queue, gate
) -> None:
    await queue.using(task_id="order-7").enqueue(visit, gate, "first")
    with pytest.raises(TaskConflictError, match=r"'order-7' is taken .* queued") as caught:
        await queue.using(task_id="order-7").enqueue(visit, gate, "second")
    assert caught.value.task_id == "order-7"
    await Worker(backend).drain()
    with pytest.raises(TaskConflictError, match="success"):
        await queue.using(task_id="order-7").enqueue(hold, gate, "first")

    assert gate.order == ["first"]
    assert await queue.result("order-7", timeout=0) == "first"


async def test_ids_that_sitq_makes_sort_by_time(queue, view) -> None:
    ids = [await queue.enqueue(add, number) for number in range(5)]
    assert len(set(ids)) == 5
    assert [id_[:13] for id_ in ids] == sorted(id_[:13] for id_ in ids)
    assert all(isinstance(id_, str) and len(id_) == 36 and id_[14] == "7" for id_ in ids)


# -- many at once ----------------------------------------------------------------------


async def test_many_tasks_get_their_ids_in_their_order(backend, queue, gate) -> None:
    ids = await queue.enqueue_many(Task(visit, gate, number) for number in range(60))
    await Worker(backend).drain()
    assert gate.order == list(range(60))
    assert [await queue.result(id_, timeout=0) for id_ in ids[::7]] == list(range(0, 60, 7))


async def test_no_tasks_are_no_ids(queue, view) -> None:
    assert await queue.enqueue_many([]) == []
    assert await queue.using(priority=1).enqueue_many(iter(())) == []
    assert view.total() == 0


async def test_of_many_tasks_all_are_stored_or_none(queue, gate, view) -> None:
    good = [Task(visit, gate, number) for number in range(3)]
    taken = await queue.using(task_id="taken").enqueue(visit, gate)

    def broken():
        yield good[0]
        raise LookupError("from the generator")

    attempts = [
        (TaskConflictError, [*good, Task(visit, gate, "other").using(task_id=taken)]),
        (Exception, [*good, Task(visit, gate, threading.Lock())]),
        (ValidationError, [*good, visit]),
        (LookupError, broken()),
    ]
    for error, tasks in attempts:
        with pytest.raises(error):
            await queue.enqueue_many(tasks)
        assert view.total() == 1


async def test_an_id_given_twice_at_once_is_one_task_or_a_conflict(queue, gate, view) -> None:
    same = [Task(visit, gate, 1).using(task_id="twice") for _ in range(2)]
    assert await queue.enqueue_many(same) == ["twice", "twice"]
    assert view.total() == 1
    with pytest.raises(TaskConflictError):
        await queue.using(task_id="one").enqueue_many([Task(visit, gate, n) for n in range(2)])
    assert view.total() == 1


async def test_each_of_many_tasks_may_have_options_of_its_own(backend, queue, gate) -> None:
    await queue.enqueue_many(
        [
            Task(visit, gate, "low").using(priority=-1),
            Task(visit, gate, "late").using(delay=3600),
            Task(visit, gate, "high").using(priority=1, retry=Retry()),
        ]
    )
    await Worker(backend).drain()
    assert gate.order == ["high", "low"]
