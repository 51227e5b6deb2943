"""Short ways to write down what is asked, and to take a task through its life."""

from sitq.protocol.ops import Failure, NewTask, Register, Reserve, Settle

QUEUES = ("default",)
BOOM = Failure("boom", "ValueError", "the traceback", "the reason")


def new_task(id_="t", payload=b"p", **options) -> NewTask:
    return NewTask(id=id_, payload=payload, name="f", **options)


def register(worker_id="w", lease_for=60.0) -> Register:
    return Register(worker_id, "host", 7, QUEUES, 4, lease_for)


def settle(task, verdict, worker_id="w") -> Settle:
    return Settle(task.key, task.id, worker_id, verdict)


async def reserved(ask, worker_id="w", limit=100, queues=QUEUES) -> list:
    """The tasks that a worker gets."""
    return list((await ask(Reserve(worker_id, queues, limit))).tasks)


async def names(ask, **options) -> list[str]:
    """The ids of the tasks that a worker gets, in their order."""
    return [task.id for task in await reserved(ask, **options)]
