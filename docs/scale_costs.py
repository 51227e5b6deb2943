"""Counts what a task costs a Postgres server, and how many connections a process takes.

    python docs/scale_costs.py            count with 20,000 tasks, on a server of its own, and print
    python docs/scale_costs.py --tasks N  with so many
    python docs/scale_costs.py --write    the same, and write it into the page
    python docs/scale_costs.py --speed    write only the table of speed, from what was measured last

What is counted are no times: so it does not depend on how fast the machine is, or what else it does.
The tables are those of `docs/explanation/scale.md`; a test counts again. Speed is not measured here:
it is taken from `speed.json`, which `python -m benchmarks` writes.
"""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.figures import Results  # noqa: E402
from benchmarks.tables import shown  # noqa: E402
from sitq import PostgresBackend, SyncTaskQueue, Task, TaskQueue, Worker  # noqa: E402
from sitq.protocol.ops import Prune  # noqa: E402
from torture.server import DURABLE, Server, start_server  # noqa: E402

PAGE: Final = ROOT / "docs/explanation/scale.md"
SPEED: Final = ROOT / "docs/explanation/speed.json"
MEASURED: Final = {
    "one caller awaits each `enqueue`": ("enqueue", "rate"),
    "100 callers in one process": ("enqueue-100", "rate"),
    "1,000 tasks with one call": ("enqueue-bulk", "rate"),
    "one worker process, a backlog of 20,000": ("drain", "rate"),
    "two worker processes": ("drain-2", "rate"),
    "four worker processes, on two cores": ("drain-4", "rate"),
    "one worker process, a million waiting": ("backlog", "long"),
    "one worker process, one task at a time": ("drain-serial", "rate"),
}
"""What is done, and which figure of which workload says how fast."""
TASKS: Final = 20_000
BULK: Final = 1_000
SLOTS: Final = 100
STEADY: Final = 10
"""Looks in a row, a tenth of a second apart, that find as many connections."""
SERVER: Final = DURABLE | {"autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "8GB"}
"""Nothing of its own is to be counted: no sweeping, no checkpoint and the whole pages after it."""


def nothing() -> None:
    """Do what every task does."""


class Database:
    """A fresh one, and what its server says of it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._name = server.create_database()
        self.dsn = server.dsn(self._name)
        self._wal = self._lsn()

    def ask(self, text: str) -> list[int]:
        (row,) = self._server.sql(text, self._name)
        return [int(float(value)) for value in row]

    def _lsn(self) -> int:
        (position,) = self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
        return position

    def wal(self) -> int:
        """Return the bytes written since it was asked last."""
        before, self._wal = self._wal, self._lsn()
        return self._wal - before

    def size(self) -> int:
        return self.ask("SELECT pg_total_relation_size('sitq.tasks')")[0]

    def sweep(self) -> None:
        self._server.sql("VACUUM FULL sitq.tasks", self._name)

    def writes(self) -> list[int]:
        """Return how many rows were put in, changed and deleted."""
        return self.ask(
            "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
            " WHERE schemaname = 'sitq' AND relname = 'tasks'"
        )

    async def connections(self) -> int:
        """Return how many there are, once none comes or goes any more."""
        seen: list[int] = []
        while len(seen) < STEADY or len({*seen[-STEADY:]}) > 1:
            seen += await asyncio.to_thread(
                self.ask,
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                f" AND datname = '{self._name}' AND pid <> pg_backend_pid()",
            )
            await asyncio.sleep(0.1)
        return seen[-1]


async def costs(database: Database, tasks: int) -> dict[str, float]:
    """Count what a task costs, by what is done with it."""
    found: dict[str, float] = {}
    backend = PostgresBackend(database.dsn)
    queue = TaskQueue(backend)
    await backend.connect()
    empty, _ = database.size(), database.wal()
    for _ in range(tasks // BULK):
        await queue.enqueue_many([Task(nothing)] * BULK)
    found["WAL of an enqueue, 1,000 at once (bytes)"] = database.wal() / tasks
    for _ in range(BULK):
        await queue.enqueue(nothing)
    found["WAL of an enqueue, one at a time (bytes)"] = database.wal() / BULK
    total = tasks + BULK
    await Worker(backend, max_concurrency=SLOTS).drain()
    found["WAL of running it, to its end (bytes)"] = database.wal() / total
    (done,) = database.ask("SELECT count(*) FROM sitq.tasks WHERE state = 'success'")
    assert done == total, f"{done} of {total} tasks are done"
    unswept = database.size() - empty
    database.sweep()
    found["a finished task that is kept, with its indexes (bytes)"] = database.size() / total
    found["the same with its dead rows, before any is swept (bytes)"] = unswept / total
    database.wal()
    store = backend.open_store()
    for _ in range(total // BULK):
        store.apply([Prune(0.0, BULK)])
    store.close()
    await backend.close()
    found["WAL of forgetting it (bytes)"] = database.wal() / total
    while True:  # the statistics come a little later
        written = database.writes()
        if written[2] >= total - 1:
            break
        await asyncio.sleep(0.1)
    names = ("rows put in", "rows changed, each leaves a dead one", "rows deleted")
    found |= {name: count / total for name, count in zip(names, written, strict=True)}
    return found


async def connections(make: Callable[[], Database]) -> dict[str, int]:
    """Count the connections of a process, by what it does."""
    found: dict[str, int] = {}

    async def counted(name: str, use: Callable[[PostgresBackend], Awaitable[object]]) -> None:
        database = make()
        backend = PostgresBackend(database.dsn)
        work = asyncio.ensure_future(use(backend))
        found[name] = await database.connections()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await backend.close()

    async def waits(backend: PostgresBackend) -> None:
        queue = TaskQueue(backend)
        await queue.get_result(await queue.using(delay=3600).enqueue(nothing))

    async def works_and_waits(backend: PostgresBackend) -> None:
        async with Worker(backend):
            await waits(backend)

    async def works_twice(backend: PostgresBackend) -> None:
        async with Worker(backend), Worker(backend):
            await asyncio.sleep(3600)

    await counted("a program that enqueues", lambda b: TaskQueue(b).enqueue(nothing))
    await counted("one that waits for results, too", waits)
    await counted("a worker", lambda b: Worker(b).start())
    await counted("a worker whose process also waits for results", works_and_waits)
    await counted("two workers on one backend", works_twice)
    database = make()
    with SyncTaskQueue(PostgresBackend(database.dsn)) as queue:
        await asyncio.to_thread(queue.enqueue, nothing)
        found["a `SyncTaskQueue` that enqueues"] = await database.connections()
    return found


def table(rows: dict[str, float] | dict[str, int], head: str) -> str:
    lines = [f"| {head} |  |", "|---|--:|"]
    lines += [
        f"| {name} | {round(value, 2):g} |" if value < BULK / 10 else f"| {name} | {value:,.0f} |"
        for name, value in rows.items()
    ]
    return "\n".join(lines)


def speed() -> str:
    """Return the table of what was measured, each with its least and greatest."""
    report = json.loads(SPEED.read_text(encoding="utf-8"))
    results = Results(report["runs"])
    lines = ["| tasks a second, median of the rounds |  |", "|---|--:|"]
    for name, (workload, figure) in MEASURED.items():
        spread = results.spread("sitq-postgres", workload, figure)
        assert spread is not None, workload
        lines.append(f"| {name} | {shown(spread)} |")
    return "\n".join(lines)


def replaced(page: str, made: str) -> str:
    """Return *page* with the table *made* in the place of the one that has its heading."""
    heading = re.escape(made.splitlines()[0])
    return re.sub(rf"^{heading}\n(?:\|.*\n)+", lambda _: made + "\n", page, flags=re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python docs/scale_costs.py")
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    made = [speed()]
    if not options.speed:
        with start_server(SERVER) as server:
            made.append(table(asyncio.run(connections(lambda: Database(server))), "connections of"))
            counted = asyncio.run(costs(Database(server), options.tasks))
            made.append(table(counted, "for each task"))
    print("\n\n".join(made))
    if options.write or options.speed:
        page = PAGE.read_text(encoding="utf-8")
        for each in made:
            page = replaced(page, each)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
