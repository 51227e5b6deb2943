"""A worker and a producer whose disk becomes full: `full_disk.py FOLDER LOOP KIND`.

KIND is `disk`, and FOLDER a small file system of its own; or `limit`, and the kernel lets this
process write no file beyond a size. It prints what it saw, as JSON.
"""

import json
import logging
import os
import resource
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import anyio

from sitq import EnqueueUnknown, SQLiteBackend, StoreError, TaskQueue, Worker
from sitq.protocol.ops import Count

TASKS = 4
starts: Counter[int] = Counter()
gate: list[anyio.Event] = []
complaints = [0]


async def held(number: int) -> int:
    starts[number] += 1
    await gate[0].wait()
    return number


class Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complaints[0] += "trying again" in record.getMessage() and record.name == "sitq.worker"


@contextmanager
def full(folder: Path, kind: str):
    if kind == "limit":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (folder / "tasks.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    ballast = os.open(folder / "ballast", os.O_CREAT | os.O_WRONLY)
    for size in (65536, 4096, 1):
        try:
            while True:
                os.write(ballast, b"x" * size)
        except OSError:
            pass
    os.close(ballast)
    yield
    (folder / "ballast").unlink()


async def until(condition) -> None:
    while not await condition():  # noqa: ASYNC110  # nobody tells of it
        await anyio.sleep(0.01)


async def main(folder: Path, kind: str) -> None:
    may_end = anyio.Event()
    gate.append(may_end)
    backend = SQLiteBackend(folder / "tasks.db")
    queue = TaskQueue(backend)
    seen: dict[str, object] = {"errors": [], "unknown": 0}

    async def states() -> Counter[str]:
        (counted,) = await (await backend.session()).reader.submit(Count())
        return Counter({str(state): n for _, state, n in counted.rows})

    async with backend, Worker(backend, max_concurrency=TASKS, poll_interval=0.05):
        ids = [await queue.enqueue(held, n) for n in range(TASKS)]

        async def all_started() -> bool:
            return sum(starts.values()) == TASKS and (await states())["running"] == TASKS

        await until(all_started)
        with full(folder, kind):
            for _ in range(3):
                try:
                    await queue.enqueue(held, 99)
                except EnqueueUnknown:
                    seen["unknown"] += 1
                except StoreError as error:
                    seen["errors"].append(str(error))
            may_end.set()

            async def complained() -> bool:
                return complaints[0] >= 3

            await until(complained)
            seen["while full"] = await states()
        await queue.using(task_id="afterwards").enqueue(held, 100)  # at once
        results = [await queue.result(id_, timeout=30) for id_ in [*ids, "afterwards"]]
        session = await backend.session()
        rows = [await session.fetch(id_) for id_ in ids]
        seen["results"] = results
        seen["attempts"] = [(row.attempt, row.crashes) for row in rows]
        seen["at the end"] = await states()
        seen["starts"] = starts
    print(json.dumps(seen))


if __name__ == "__main__":
    import full_disk  # whose functions are pickled by their name, unlike those of __main__

    logging.getLogger().addHandler(full_disk.Complaints())
    folder, loop, kind = sys.argv[1:]
    anyio.run(full_disk.main, Path(folder), kind, backend=loop)
