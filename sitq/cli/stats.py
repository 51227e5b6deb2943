"""`sitq stats`: what is in a queue file, at a glance."""

import json
import os

import click
from rich.console import Console
from rich.table import Table

from sitq.cli import queue_file


def show(path: str, *, as_json: bool) -> None:
    """Print the counts and the workers of the file."""
    path = os.path.abspath(path)  # noqa: PTH100
    with queue_file.opened(path) as db:
        counts = queue_file.counts(db)
        workers = queue_file.workers(db, path)
        oldest, due = queue_file.oldest_waiting_s(db), queue_file.next_due_s(db)
    if as_json:
        tasks = [{"queue": queue, "state": state, "tasks": n} for queue, state, n in counts]
        facts = {"file": path, "tasks": tasks, "workers": workers}
        click.echo(json.dumps({**facts, "oldest_waiting_s": oldest, "next_due_s": due}, indent=2))
        return
    console = Console()
    table = Table("queue", "state", title=f"tasks in {path}")
    table.add_column("tasks", justify="right")
    for queue, state, count in counts:
        table.add_row(queue, state, f"{count:,}")
    console.print(table)
    if oldest is not None:
        console.print(f"the oldest waiting task has been due for {oldest:,} s")
    if due is not None:
        console.print(f"the next scheduled task is due in {due:,} s")
    table = Table("worker", "host", "pid", "queues", "running", "lease ends in", title="workers")
    for worker in workers:
        state = "" if worker["alive"] else " [red](dead)[/red]"
        lease = "void" if worker["lease_s"] is None else f"{worker['lease_s']} s"
        table.add_row(
            f"{worker['id']}{state}",
            worker["host"],
            str(worker["pid"]),
            worker["queues"],
            f"{worker['running']} of {worker['slots']}",
            lease,
        )
    console.print(table if workers else "no worker is at work on this file")
