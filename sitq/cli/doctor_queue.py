"""What `sitq doctor` finds out about workers and tasks, wherever the queue is."""

from collections.abc import Iterable, Iterator

from sitq.cli.finding import Finding
from sitq.cli.queue_file import COPYING, WorkerRow
from sitq.cli.terminal import shown


def alive(rows: Iterable[WorkerRow], to_do: str) -> Iterator[Finding]:
    """Find workers that are dead, and what they held."""
    rows = list(rows)
    dead = [row for row in rows if row.alive is False]
    if dead:
        pids = ", ".join(str(row.pid) for row in dead)
        held = sum(row.running for row in dead)
        yield Finding("WARN", "workers", f"{len(dead)} died (pid {pids}), holding {held}", to_do)
    else:
        yield Finding("OK", "workers", f"{len(rows)} at work")


def unserved(
    rows: Iterable[WorkerRow], counts: Iterable[tuple[str, str, int]]
) -> Iterator[Finding]:
    """Find queues in which tasks are due, and that nobody looks into."""
    served = {name for row in rows if row.alive is not False for name in row.queues}
    for queue, state, count in counts:
        if state == "queued" and queue not in served:
            to_do = f"start a worker with --queues {shown(queue)}"
            found = f"{count:,} tasks are due in {queue!r}, and no worker serves it"
            yield Finding("WARN", "waiting", found, to_do)


def parked(found: Iterable[tuple[str | None, int]]) -> Iterator[Finding]:
    """Name the tasks that wait for a worker that can read them, by their reasons."""
    for reason, count in found:
        to_do = "start a worker with the Python and the serializer that wrote them"
        if reason == COPYING:
            to_do = "if it runs no more, it was killed: do the same `sitq copy` again"
        yield Finding("WARN", "parked tasks", f"{count:,}: {reason}", to_do)
