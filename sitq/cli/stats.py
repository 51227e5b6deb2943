"""`sitq stats`: what is in a queue, at a glance."""

import json
import sqlite3
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

from sitq.backends.postgres import require_psycopg
from sitq.cli import queue_file
from sitq.cli.places import check_schema_goes_with, is_server, named
from sitq.cli.queue_file import WorkerRow
from sitq.cli.terminal import cell, console, shown


class Stats(NamedTuple):
    where: dict[str, str]
    counts: list[tuple[str, str, int]]
    workers: list[WorkerRow]
    oldest_waiting_s: float | None
    next_due_s: float | None


def show(where: str, schema: str, *, as_json: bool) -> None:
    """Print the counts and the workers of the queue."""
    check_schema_goes_with(where, schema)
    stats = _of_server(where, schema) if is_server(where) else queue_file.look(where, _of_file)
    if as_json:
        click.echo(json.dumps(_as_json(stats), indent=2))
    else:
        _print(console(), stats)


def _of_file(db: sqlite3.Connection, path: str) -> Stats:
    db.execute("BEGIN")  # so that all numbers are of one moment
    return Stats(
        {"file": path},
        queue_file.counts(db),
        queue_file.workers(db, path),
        queue_file.oldest_waiting_s(db),
        queue_file.next_due_s(db),
    )


def _of_server(url: str, schema: str) -> Stats:
    require_psycopg()
    from sitq.cli import queue_server

    return queue_server.look(
        url,
        schema,
        lambda talk: Stats(
            {"server": named(url), "schema": schema},
            queue_server.counts(talk),
            queue_server.workers(talk),
            queue_server.oldest_waiting_s(talk),
            queue_server.next_due_s(talk),
        ),
    )


def _as_json(stats: Stats) -> dict[str, object]:
    return {
        **stats.where,
        "tasks": [{"queue": queue, "state": state, "tasks": n} for queue, state, n in stats.counts],
        "workers": [worker._asdict() for worker in stats.workers],
        "oldest_waiting_s": stats.oldest_waiting_s,
        "next_due_s": stats.next_due_s,
    }


def _print(out: Console, stats: Stats) -> None:
    tasks = Table("queue", "state", title="tasks", title_justify="left")
    tasks.add_column("tasks", justify="right")
    for queue, state, count in stats.counts:
        tasks.add_row(cell(queue), cell(state), f"{count:,}")
    out.print(shown(" schema=".join(stats.where.values())), soft_wrap=True)
    out.print(tasks if stats.counts else "no tasks")
    if stats.oldest_waiting_s is not None:
        out.print(f"the oldest waiting task has been due for {stats.oldest_waiting_s:,} s")
    if stats.next_due_s is not None:
        out.print(f"the next scheduled task is due in {stats.next_due_s:,} s")
    workers = Table("worker", "", "host", "pid", title="workers", title_justify="left")
    workers.add_column("queues")
    workers.add_column("running", justify="right")
    workers.add_column("lease ends in", justify="right")
    for row in stats.workers:
        workers.add_row(
            cell(row.id),
            {True: cell("alive", "green"), False: cell("dead", "red"), None: cell("not known")}[
                row.alive
            ],
            cell(row.host),
            cell(row.pid),
            cell(", ".join(row.queues)),
            f"{row.running} of {row.slots}",
            "void" if row.lease_s is None else f"{row.lease_s:,} s",
        )
    place = "file" if "file" in stats.where else "schema"
    out.print(workers if stats.workers else f"no worker is at work on this {place}")
