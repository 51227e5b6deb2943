"""Short ways to write down what is asked, and to take a task through its life."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from sitq.protocol.ops import Failure, NewTask, Op, Register, Reservation, Reserve, Settle, Verdict

Ask: TypeAlias = Callable[[Op], Awaitable[Any]]
"""Has one op committed, and returns its outcome."""

QUEUES: Final = ("default",)
BOOM: Final = Failure("boom", "ValueError", "the traceback", "the reason")


def new_task(id_: str = "t", payload: bytes = b"p", **options: Any) -> NewTask:
    return NewTask(id=id_, payload=payload, name="f", **options)


def register(worker_id: str = "w", lease_for: float = 60.0) -> Register:
    return Register(worker_id, "host", 7, QUEUES, 4, lease_for)


def settle(task: Reservation, verdict: Verdict, worker_id: str = "w") -> Settle:
    return Settle(task.key, task.id, worker_id, verdict)


async def reserved(
    ask: Ask, worker_id: str = "w", limit: int = 100, queues: tuple[str, ...] = QUEUES
) -> list[Reservation]:
    """Return the tasks that a worker gets."""
    return list((await ask(Reserve(worker_id, queues, limit))).tasks)


async def names(ask: Ask, **options: Any) -> list[str]:
    """Return the ids of the tasks that a worker gets, in their order."""
    return [task.id for task in await reserved(ask, **options)]
