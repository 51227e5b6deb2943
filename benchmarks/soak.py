"""Whether a table through which a million tasks have gone is as quick as a new one, on Postgres.

    python -m benchmarks soak-postgres [--tasks N] [--pruned]

Stretch by stretch, tasks are enqueued, and then drained by one worker process, on a private server
whose autovacuum is as it comes. Finished tasks stay, or are pruned as soon as they have ended. At such
a pace, autovacuum, which looks once in a minute, leaves a million dead rows before it begins; so one
stretch more comes when it has been. Both are compared with the first: by their rate, and by the
processor time of the worker and of the server for each task, which other load on the machine does not
change.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
BITE: Final = 250
"""Tasks pruned in one transaction, as a worker does."""

_UNDONE: Final = "SELECT count(*) FROM sitq.tasks WHERE state IN ('queued', 'running')"
_SIZES: Final = """
    SELECT (SELECT count(*) FROM sitq.tasks), pg_table_size('sitq.tasks') / 1048576.0,
        pg_indexes_size('sitq.tasks') / 1048576.0, n_dead_tup, autovacuum_count
    FROM pg_stat_user_tables WHERE schemaname = 'sitq' AND relname = 'tasks'
"""
_SWEEPS: Final = """
    SELECT vacuum_count + autovacuum_count, (SELECT count(*) FROM pg_stat_progress_vacuum)
    FROM pg_stat_user_tables WHERE schemaname = 'sitq' AND relname = 'tasks'
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


def report(tasks: int, *, pruned: bool, stretch: int = STRETCH, folder: Path | None = None) -> str:
    with tempfile.TemporaryDirectory(prefix="soak-", dir=folder) as place:
        Path(place).chmod(0o755)  # the server may belong to somebody else
        with Postgres(place) as server:
            job = Job("sitq-postgres", "drain", "full", place, server.emptied(1), server.root)
            marks.here = marks.Marks(job.marks)
            stretches = asyncio.run(_soaked(job, max(2, tasks // stretch), stretch, pruned=pruned))
    return _told(stretches, stretch)


def _told(stretches: Sequence[Stretch], stretch: int) -> str:
    lines = [
        "| tasks so far | enqueued/s | drained/s | us/task | rows | table, MiB | indexes, MiB |"
        " dead rows | vacuums |",
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for n, one in enumerate(stretches, 1):
        lines.append(
            f"| {n * stretch:,} | {one.enqueued:,.0f} | {one.drained:,.0f} | {one.cost:.0f} |"
            f" {one.rows:,} | {one.table:.1f} | {one.indexes:.1f} | {one.dead:,} | {one.vacuums} |"
        )
    first, *_, last, swept = stretches
    return "\n".join(
        [*lines, "", _beside("last", last, first), _beside("once it was swept", swept, first)]
    )


def _beside(what: str, one: Stretch, first: Stretch) -> str:
    return (
        f"{what} / first: enqueued {one.enqueued / first.enqueued:.2f},"
        f" drained {one.drained / first.drained:.2f}, cost {one.cost / first.cost:.2f}"
    )


async def _soaked(job: Job, count: int, stretch: int, *, pruned: bool) -> list[Stretch]:
    assert job.server is not None
    async with loop.group() as start:
        bench = Bench(job, SIZES["full"], start)
        await bench.peer.open()
        with _pruning(job.server if pruned else None):
            stretches = [await _one(bench, job.server, stretch) for _ in range(count)]
            await _until_swept(job.server)
            return [*stretches, await _one(bench, job.server, stretch)]


async def _one(bench: Bench, url: str, stretch: int) -> Stretch:
    began = time.monotonic()
    await bench.peer.feed([NOTHING] * stretch)
    enqueued = stretch / (time.monotonic() - began)
    assert bench.job.server_pid is not None
    server, before = bench.job.server_pid, cpu_seconds(with_children(bench.job.server_pid))
    await bench.crew.hire(1, bench.slots)
    drained = await bench.drained(stretch, LIMIT)
    while _asked(url, _UNDONE)[0]:
        await loop.sleep(0.05)
    cost = cpu_seconds(bench.crew.pids) + cpu_seconds(with_children(server)) - before
    bench.crew.dismiss()
    rows, table, indexes, dead, vacuums = _asked(url, _SIZES)
    sizes = int(rows), float(table), float(indexes), int(dead), int(vacuums)
    return Stretch(enqueued, drained, cost / stretch * 1e6, *sizes)


async def _until_swept(url: str) -> None:
    """Wait until autovacuum has been at the table, which it does unless little is dead by now."""
    *_, dead, before = _asked(url, _SIZES)
    give_up_at = time.monotonic() + SWEPT_WITHIN
    while dead > WORTH_A_SWEEP and time.monotonic() < give_up_at:
        sweeps, at_work = _asked(url, _SWEEPS)
        if sweeps > before and not at_work:
            return
        await loop.sleep(0.1)


def _asked(url: str, query: str) -> tuple[int | float, ...]:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row


@contextmanager
def _pruning(url: str | None) -> Iterator[None]:
    """Prune whatever has ended, beside the block."""
    if url is None:
        yield
        return
    from sitq import PostgresBackend
    from sitq.protocol.ops import Prune, Pruned

    over = threading.Event()

    def prune() -> None:
        store = PostgresBackend(url).open_store()
        try:
            pause = 0.0
            while not over.wait(pause):
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
