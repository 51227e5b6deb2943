"""Short ways to write down what is asked of a store."""

from sitq.protocol.ops import Count, Enqueue, NewTask, Register


def new_task(id_="t", payload=b"p", **options) -> NewTask:
    return NewTask(id=id_, payload=payload, name="f", **options)


def enqueue(*ids: str, size: int = 1) -> Enqueue:
    return Enqueue(tuple(new_task(id_, b"x" * size) for id_ in ids))


def register(worker_id="w") -> Register:
    return Register(worker_id, "host", 7, ("default",), 4, 30.0)


def count(store) -> int:
    """How many tasks there are, by a store's own answer."""
    (counted,) = store.apply([Count()])
    return sum(n for _, _, n in counted.rows)


async def count_in(session) -> int:
    (counted,) = await session.reader.submit(Count())
    return sum(n for _, _, n in counted.rows)
