"""Whether a table through which a million tasks have gone is as quick as a new one, on Postgres.

    python -m benchmarks soak-postgres [--tasks N] [--pruned]

Stretch by stretch, tasks are enqueued, and then drained by one worker process, on a private server
whose autovacuum is as it comes. Finished tasks stay, or are pruned as soon as they have ended. At such
a pace, autovacuum, which looks once in a minute, leaves a million dead rows before it begins; so a few
stretches more come when it has been. The pace of a machine varies more than what is looked for: so a
new table beside it has the same to do before or after each stretch, and what counts is the ratio.
"""

import asyncio
import dataclasses
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from benchmarks import loop, marks
from benchmarks.bench import Bench
from benchmarks.footprint import cpu_seconds, with_children
from benchmarks.job import SIZES, Job
from benchmarks.peers.base import NOTHING
from benchmarks.servers import Postgres

TASKS: Final = 1_000_000
STRETCH: Final = 50_000
LIMIT: Final = 600.0
"""Seconds for one stretch."""
SWEPT_WITHIN: Final = 300.0
"""Seconds until autovacuum has been at the table: it comes once in a minute."""
WORTH_A_SWEEP: Final = 20_000
"""Dead rows that autovacuum comes for, where a million live."""
ONCE_SWEPT: Final = 5
"""Stretches after that."""
BITE: Final = 250
"""Tasks pruned in one transaction, as a worker does."""

USED: Final = "used"

_UNDONE: Final = "SELECT count(*) FROM @schema.tasks WHERE state IN ('queued', 'running')"
_SIZES: Final = """
    SELECT (SELECT count(*) FROM @schema.tasks), pg_table_size('@schema.tasks') / 1048576.0,
        pg_indexes_size('@schema.tasks') / 1048576.0, n_dead_tup, autovacuum_count
    FROM pg_stat_user_tables WHERE schemaname = '@schema' AND relname = 'tasks'
"""
_SWEEPS: Final = """
    SELECT vacuum_count + autovacuum_count, (SELECT count(*) FROM pg_stat_progress_vacuum)
    FROM pg_stat_user_tables WHERE schemaname = '@schema' AND relname = 'tasks'
"""


class Stretch(NamedTuple):
    enqueued: float
    """in a second, and so is what was drained"""
    drained: float
    cost: float
    """microseconds of processors for each task that was drained"""
    rows: int
    table: float
    """MiB, with its TOAST"""
    indexes: float
    dead: int
    vacuums: int


class Pair(NamedTuple):
    used: Stretch
    new: Stretch

    @property
    def ratios(self) -> tuple[float, float, float]:
        """Of what was enqueued, of what was drained, and of the cost: used beside new."""
        enqueued, drained, cost = (
            mine / its for mine, its in zip(self.used[:3], self.new[:3], strict=True)
        )
        return enqueued, drained, cost


def report(tasks: int, *, pruned: bool, stretch: int = STRETCH, folder: Path | None = None) -> str:
    with tempfile.TemporaryDirectory(prefix="soak-", dir=folder) as place:
        Path(place).chmod(0o755)  # the server may belong to somebody else
        with Postgres(place) as server:
            job = Job("sitq-postgres", "drain", "full", place, server.emptied(1), server.root)
            marks.here = marks.Marks(job.marks)
            count = max(2, tasks // stretch)
            pairs = asyncio.run(_soaked(job, count, stretch, pruned=pruned))
    return _told(pairs, count, stretch)


def _told(pairs: Sequence[Pair], count: int, stretch: int) -> str:
    lines = [
        "| tasks so far | enqueued/s | of new | drained/s | of new | us/task | of new | rows |"
        " table, MiB | indexes, MiB | dead rows | vacuums |",
        "|" + " --: |" * 12,
    ]
    for n, pair in enumerate(pairs, 1):
        used, (enqueued, drained, cost) = pair.used, pair.ratios
        lines.append(
            f"| {n * stretch:,} | {used.enqueued:,.0f} | {enqueued:.2f} | {used.drained:,.0f} |"
            f" {drained:.2f} | {used.cost:.0f} | {cost:.2f} | {used.rows:,} | {used.table:.1f} |"
            f" {used.indexes:.1f} | {used.dead:,} | {used.vacuums} |"
        )
    soaked = pairs[:count]
    unswept = [pair for pair in soaked[1:] if not pair.used.vacuums] or soaked[1:]
    return "\n".join(
        [
            *lines,
            "",
            _beside("before the first sweep", unswept),
            _beside("in the second half", soaked[count // 2 :]),
            _beside("once it was swept", pairs[count:]),
        ]
    )


def _beside(when: str, pairs: Sequence[Pair]) -> str:
    ratios = zip(*(pair.ratios for pair in pairs), strict=True)
    told = [f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in ratios]
    enqueued, drained, cost = told
    return f"{when}, of a new table ({len(pairs)}): enqueued {enqueued}, drained {drained}, cost {cost}"


async def _soaked(job: Job, count: int, stretch: int, *, pruned: bool) -> list[Pair]:
    async with loop.group() as start:
        used = _Table(job, USED, start, pruned=pruned)
        await used.open()
        pairs = []
        for number in range(count + ONCE_SWEPT):
            if number == count:
                await used.until_swept()
            new = _Table(job, f"new{number}", start, pruned=pruned)
            await new.open()
            first, second = (used, new) if number % 2 else (new, used)
            stretches = {table: await table.stretch(stretch) for table in (first, second)}
            pairs.append(Pair(stretches[used], stretches[new]))
            new.drop()
        return pairs


class _Table:
    """One of them, in a schema of its own."""

    def __init__(self, job: Job, schema: str, start: loop.Start, *, pruned: bool) -> None:
        assert job.server is not None
        assert job.server_pid is not None
        self._url = job.server
        self._server_pid = job.server_pid
        self._schema = schema
        self._pruned = pruned
        its_job = dataclasses.replace(job, server=f"{job.server}#{schema}")
        self._bench = Bench(its_job, SIZES["full"], start)

    async def open(self) -> None:
        await self._bench.peer.open()

    def drop(self) -> None:
        self._ask(f"DROP SCHEMA {self._schema} CASCADE")

    async def stretch(self, tasks: int) -> Stretch:
        bench = self._bench
        with self._pruning() if self._pruned else nullcontext():
            began = time.monotonic()
            await bench.peer.feed([NOTHING] * tasks)
            enqueued = tasks / (time.monotonic() - began)
            server, before = self._server_pid, cpu_seconds(with_children(self._server_pid))
            await bench.crew.hire(1, bench.slots)
            drained = await bench.drained(tasks, LIMIT)
            while self._asked(_UNDONE)[0]:
                await loop.sleep(0.05)
            cost = cpu_seconds(bench.crew.pids) + cpu_seconds(with_children(server)) - before
            bench.crew.dismiss()
        rows, table, indexes, dead, vacuums = self._asked(_SIZES)
        sizes = int(rows), float(table), float(indexes), int(dead), int(vacuums)
        return Stretch(enqueued, drained, cost / tasks * 1e6, *sizes)

    async def until_swept(self) -> None:
        """Wait until autovacuum has been at it, which it does unless little is dead by now."""
        *_, dead, before = self._asked(_SIZES)
        give_up_at = time.monotonic() + SWEPT_WITHIN
        while dead > WORTH_A_SWEEP and time.monotonic() < give_up_at:
            sweeps, at_work = self._asked(_SWEEPS)
            if sweeps > before and not at_work:
                return
            await loop.sleep(0.1)

    def _asked(self, query: str) -> tuple[int | float, ...]:
        row = self._ask(query.replace("@schema", self._schema)).fetchone()
        assert row is not None
        return row

    def _ask(self, query: str):
        import psycopg

        with psycopg.connect(self._url, autocommit=True) as connection:
            return connection.execute(query)

    @contextmanager
    def _pruning(self) -> Iterator[None]:
        """Prune whatever has ended, beside the block, until nothing is left."""
        from sitq import PostgresBackend
        from sitq.protocol.ops import Prune, Pruned

        over = threading.Event()

        def prune() -> None:
            store = PostgresBackend(self._url, schema=self._schema).open_store()
            try:
                pause = 0.0
                while not over.wait(pause) or not pause:
                    (outcome,) = store.apply([Prune(0.0, BITE)])
                    assert isinstance(outcome, Pruned)
                    pause = 0.0 if outcome.tasks == BITE else 0.1
            finally:
                store.close()

        thread = threading.Thread(target=prune, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
