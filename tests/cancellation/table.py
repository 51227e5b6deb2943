"""The public coroutines, each with what must hold wherever a call of it was cancelled."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sitq import Worker
from sitq.task import Task
from tests.cancellation.place import Place
from tests.cancellation.stepping import NEVER, Seen
from tests.cancellation.tasks import Gate, hold, hold_thread, pass_by, until


@dataclass(frozen=True, kw_only=True)
class Case:
    """*covers*: the coroutines that are cancelled here, by name.

    *prepare* comes before each call, *meanwhile* runs beside it, *check* says what must hold
    after. *new*: each call is made on a backend that was never connected. It has *least* awaits,
    and is cancelled at *most*, where what follows is another case.
    """

    covers: tuple[str, ...]
    call: Callable[[Place], Awaitable[object]]
    check: Callable[[Place, Seen], Awaitable[None]]
    prepare: Callable[[Place], Awaitable[None]] | None = None
    meanwhile: Callable[[Place, Seen], Awaitable[None]] | None = None
    new: bool = False
    least: int = 1
    most: int = NEVER


# -- handing over ------------------------------------------------------------------------


async def note_total(place: Place) -> None:
    place.memo["before"] = place.total()


def stored(number: int):
    """All of them are stored, or none; all if the call returned; and it stays so."""

    async def check(place: Place, seen: Seen) -> None:
        await place.flush()  # whatever was on its way has arrived
        added = place.total() - place.memo["before"] - 1
        assert added in {0, number}
        assert added == number or not seen.returned
        await place.flush()
        assert place.total() - place.memo["before"] - 2 == added

    return check


def queued(place: Place):
    return place.queue.task(pass_by)


# -- asking back -------------------------------------------------------------------------


async def a_task(place: Place) -> None:
    place.memo["id"] = await place.queue.enqueue(pass_by)


async def an_ended_task(place: Place) -> None:
    await a_task(place)
    await Worker(place.backend).drain()


async def end_it(place: Place, seen: Seen) -> None:
    """Have the task cancelled once the call waits."""
    await until(lambda: seen.suspensions >= 2 or seen.ended)
    await place.queue.cancel(place.memo["id"])


async def the_wait_is_over(place: Place, seen: Seen) -> None:
    """Nobody waits any more, the task is as it was, and can be asked for again."""
    await place.flush()  # the task may be on its way to its end
    session = await place.backend.session()
    assert not session.hints._waiters
    state, attempt, crashes = place.task(place.memo["id"])
    assert state in {"queued", "cancelled", "success"}
    assert (attempt, crashes) == (int(state == "success"), 0)
    assert (await place.queue.get_result(place.memo["id"], timeout=0) is None) == (
        state == "queued"
    )


async def it_is_cancelled_or_not(place: Place, seen: Seen) -> None:
    await place.flush()
    state, attempt, crashes = place.task(place.memo["id"])
    assert (state, attempt, crashes) in {("queued", 0, 0), ("cancelled", 0, 0)}
    assert state == "cancelled" or not seen.returned
    await place.flush()
    assert place.task(place.memo["id"])[0] == state
    assert await place.queue.cancel(place.memo["id"]) == (state == "queued")


# -- the backend -------------------------------------------------------------------------


async def it_connects_again(place: Place, seen: Seen) -> None:
    await place.queue.enqueue(pass_by)
    await place.has(2)
    await place.backend.close()
    await place.has(0)


async def connected_and_asked(place: Place) -> None:
    """Leave something with the writer that has not been stored yet."""
    await place.backend.connect()
    await note_total(place)
    session = await place.backend.session()
    for _ in range(3):
        op = place.queue._desk.op([Task(pass_by)], {})
        session.writer.submit_nowait((op,), lambda answer: None)


async def connecting(place: Place) -> None:
    place.group.start_soon(place.backend.connect)
    await until(lambda: place.backend._session is not None)


async def it_is_closed(place: Place, seen: Seen) -> None:
    """It is, also if nobody waited; what was asked before is stored; and it can be opened."""
    await place.has(0)
    if "before" in place.memo:
        assert place.total() == place.memo["before"] + 3
    await place.backend.connect()
    await it_connects_again(place, seen)


async def in_a_block(place: Place) -> None:
    async with place.backend:
        await place.queue.enqueue(pass_by)


async def the_block_left_nothing(place: Place, seen: Seen) -> None:
    await place.has(0)
    await place.backend.connect()
    await it_connects_again(place, seen)


# -- the worker --------------------------------------------------------------------------


async def work(place: Place) -> None:
    """Tasks that stay, on the loop and in a thread, and one that passes; a worker for all."""
    place.gate = gate = Gate()
    functions = [hold, hold_thread] if place.is_real else [hold, hold]
    ids = [await place.queue.enqueue(function, gate) for function in functions]
    place.memo["ids"] = [*ids, await place.queue.enqueue(pass_by)]
    place.memo["worker"] = Worker(place.backend, max_concurrency=2, poll_interval=0.05)


async def at_work(place: Place) -> None:
    await work(place)
    place.group.start_soon(place.memo["worker"].start)
    await until(lambda: place.gate.starts == 2)


async def starting(place: Place) -> None:
    place.memo["ids"] = []
    place.memo["worker"] = Worker(place.backend)
    place.group.start_soon(place.memo["worker"].start)
    await until(lambda: place.memo["worker"]._running)


async def open_then_stop(place: Place, seen: Seen) -> None:
    await open_the_gate(place, seen)
    await until(lambda: all(place.task(id_)[0] == "success" for id_ in place.memo["ids"]))
    await place.memo["worker"].stop()


async def open_the_gate(place: Place, seen: Seen) -> None:
    """Let the tasks end, once they run."""
    await until(lambda: place.gate.starts == 2)
    place.gate.opened.set()


async def the_tasks_are_handed_back(place: Place, seen: Seen) -> None:
    """No task is the dead worker's, none was charged; and the same worker runs them all."""
    worker = place.memo["worker"]
    await until(lambda: not worker._running)
    for id_ in place.memo["ids"]:
        assert place.task(id_) in {("queued", 0, 0), ("success", 1, 0)}
    await place.has(2 if place.backend._session is not None else 0)
    place.gate.opened.set()
    await worker.drain()
    assert {place.task(id_) for id_ in place.memo["ids"]} <= {("success", 1, 0)}


async def the_worker_stops(place: Place, seen: Seen) -> None:
    """Whoever asked is gone, but what was asked stands."""
    place.gate.opened.set()
    await the_tasks_are_handed_back(place, seen)


async def a_working_block(place: Place) -> None:
    async with place.memo["worker"]:
        await until(lambda: place.gate.starts == 2)
        place.gate.opened.set()


def _id(place: Place) -> str:
    return place.memo["id"]


CASES: dict[str, Case] = {
    "enqueue, on first use": Case(
        covers=("TaskQueue.enqueue", "Backend.session"),
        prepare=note_total,
        call=lambda place: place.queue.enqueue(pass_by),
        check=stored(1),
        new=True,
        least=2,
    ),
    "enqueue": Case(
        covers=("TaskQueue.enqueue",),
        prepare=note_total,
        call=lambda place: place.queue.enqueue(pass_by),
        check=stored(1),
    ),
    "enqueue_many": Case(
        covers=("TaskQueue.enqueue_many",),
        prepare=note_total,
        call=lambda place: place.queue.enqueue_many([Task(pass_by)] * 3),
        check=stored(3),
    ),
    "using().enqueue": Case(
        covers=("Enqueuer.enqueue",),
        prepare=note_total,
        call=lambda place: place.queue.using(priority=1).enqueue(pass_by),
        check=stored(1),
    ),
    "using().enqueue_many": Case(
        covers=("Enqueuer.enqueue_many",),
        prepare=note_total,
        call=lambda place: place.queue.using(priority=1).enqueue_many([Task(pass_by)] * 3),
        check=stored(3),
    ),
    "enqueue of a queued function": Case(
        covers=("QueuedFunction.enqueue",),
        prepare=note_total,
        call=lambda place: queued(place).enqueue(),
        check=stored(1),
    ),
    "get_result": Case(
        covers=("TaskQueue.get_result",),
        prepare=a_task,
        call=lambda place: place.queue.get_result(_id(place)),
        meanwhile=end_it,
        check=the_wait_is_over,
        least=3,
    ),
    "get_result that times out": Case(
        covers=("TaskQueue.get_result",),
        prepare=a_task,
        call=lambda place: place.queue.get_result(_id(place), timeout=0.02),
        check=the_wait_is_over,
        least=3,
    ),
    "get_result that looks once": Case(
        covers=("TaskQueue.get_result",),
        prepare=an_ended_task,
        call=lambda place: place.queue.get_result(_id(place), timeout=0),
        check=the_wait_is_over,
    ),
    "get_results": Case(
        covers=("TaskQueue.get_results",),
        prepare=an_ended_task,
        call=lambda place: place.queue.get_results([_id(place)]),
        check=the_wait_is_over,
    ),
    "result": Case(
        covers=("TaskQueue.result",),
        prepare=an_ended_task,
        call=lambda place: place.queue.result(_id(place)),
        check=the_wait_is_over,
    ),
    "cancel": Case(
        covers=("TaskQueue.cancel",),
        prepare=a_task,
        call=lambda place: place.queue.cancel(_id(place)),
        check=it_is_cancelled_or_not,
    ),
    "connect": Case(
        covers=("Backend.connect",),
        call=lambda place: place.backend.connect(),
        check=it_connects_again,
        new=True,
    ),
    "close": Case(
        covers=("Backend.close",),
        prepare=connected_and_asked,
        call=lambda place: place.backend.close(),
        check=it_is_closed,
        new=True,
    ),
    "close while it connects": Case(
        covers=("Backend.close",),
        prepare=connecting,
        call=lambda place: place.backend.close(),
        check=it_is_closed,
        new=True,
    ),
    "async with backend": Case(
        covers=("Backend.__aenter__", "Backend.__aexit__"),
        call=in_a_block,
        check=the_block_left_nothing,
        new=True,
        least=3,
    ),
    "start": Case(
        covers=("Worker.start",),
        prepare=work,
        call=lambda place: place.memo["worker"].start(),
        meanwhile=open_then_stop,
        check=the_tasks_are_handed_back,
        least=3,
    ),
    "start, on first use": Case(
        covers=("Worker.start",),
        prepare=work,
        call=lambda place: place.memo["worker"].start(),
        meanwhile=open_then_stop,
        check=the_tasks_are_handed_back,
        new=True,
        least=3,
        most=5,
    ),
    "drain": Case(
        covers=("Worker.drain",),
        prepare=work,
        call=lambda place: place.memo["worker"].drain(),
        meanwhile=open_the_gate,
        check=the_tasks_are_handed_back,
        least=3,
    ),
    "stop": Case(
        covers=("Worker.stop",),
        prepare=at_work,
        call=lambda place: place.memo["worker"].stop(),
        meanwhile=open_the_gate,
        check=the_worker_stops,
    ),
    "stop(grace=0)": Case(
        covers=("Worker.stop",),
        prepare=at_work,
        call=lambda place: place.memo["worker"].stop(grace=0),
        check=the_tasks_are_handed_back,
    ),
    "stop while it starts": Case(
        covers=("Worker.stop",),
        prepare=starting,
        call=lambda place: place.memo["worker"].stop(),
        check=the_worker_stops,
        new=True,
    ),
    "async with worker": Case(
        covers=("Worker.__aenter__", "Worker.__aexit__"),
        prepare=work,
        call=a_working_block,
        check=the_tasks_are_handed_back,
        least=3,
    ),
}
