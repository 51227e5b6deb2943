"""Every line that is marked must be refused, and no other."""

import psycopg

from sitq import (
    MemoryBackend,
    Retry,
    SyncTaskQueue,
    Task,
    TaskId,
    TaskQueue,
    Worker,
    current_task,
)

queue = TaskQueue(MemoryBackend())
sync = SyncTaskQueue(MemoryBackend())


def add(a: int, b: int = 2) -> int:
    return a + b


async def greet(name: str) -> str:
    return name


@queue.task(retry=Retry(attempts=5))
async def send(to: str) -> bytes:
    return to.encode()


@sync.task
def size(path: str) -> int:
    return len(path)


async def main(own: psycopg.Connection) -> None:
    await queue.enqueue(add, "1")  # wrong: a str for an int
    await queue.enqueue(add)  # wrong: an argument is missing
    await queue.enqueue(add, 1, c=3)  # wrong: no such argument
    await queue.enqueue(greet, 7)  # wrong: an int for a str
    await queue.enqueue("add", 1)  # wrong: a name is no function
    await queue.enqueue(add, 1, eta="tomorrow")  # wrong: a str for a datetime
    await send.enqueue(7)  # wrong: an int for a str
    await send.enqueue("Ann", "Bob")  # wrong: one too many
    send.call()  # wrong: an argument is missing
    queue.using(delay="soon")  # wrong: a str for seconds
    queue.using(color="red")  # wrong: no such option
    queue.task(retry=3)  # wrong: an int for a Retry
    Task(add, "1")  # wrong: a str for an int
    await queue.using(delay=1).enqueue(greet, 7)  # wrong: an int for a str
    task_id = await queue.enqueue(greet, "Ann")
    greeting = await queue.result(task_id)
    number: int = greeting  # wrong: it is a str
    as_number: TaskId[int] = task_id  # wrong: it stands for a str
    await queue.enqueue(add, 1, delay=5)  # wrong: all options but eta are given by using()
    await queue.enqueue(add(1))  # wrong: a result is no function
    await queue.enqueue_many([add])  # wrong: a function is no Task
    await queue.result(7)  # wrong: an int is no id
    send.using(color="red")  # wrong: no such option
    sync.enqueue(add, "1")  # wrong: a str for an int
    sync.enqueue(add, 1, eta="tomorrow")  # wrong: a str for a datetime
    sync.using(delay=1).enqueue(greet, 7)  # wrong: an int for a str
    sync.using(color="red")  # wrong: no such option
    sync.task(retry=3)  # wrong: an int for a Retry
    size.using(priority="high")  # wrong: a str for an int
    size.enqueue(7)  # wrong: an int for a str
    TaskQueue("tasks.db")  # wrong: a path is no backend
    Worker(MemoryBackend(), max_concurrency="4")  # wrong: a str for an int
    queue.within(own)  # wrong: a connection that cannot be awaited
    sync.within("postgresql://")  # wrong: an address is no connection
    await current_task().finish(within=own)  # wrong: nothing to await
    current_task().finish("done")  # wrong: within what?
    print(number, as_number)
