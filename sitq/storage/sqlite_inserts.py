"""How new tasks become rows in SQLite: many with one statement.

A statement for each row costs as much again as the row itself, and lets the event loop's thread and
the store's contend for the interpreter each time. So tasks that are alike, as those of one batch
mostly are, are stored by blocks: what they have in common is said once.

The promise: rows are numbered in the order of the tasks, since that is the order in which they run.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sitq.protocol.ops import NewTask
from sitq.storage.policy_column import dump_policy
from sitq.storage.program import Program, Query
from sitq.storage.sql import when

BLOCKS: Final = (256, 64, 16, 4, 1)
"""Rows in one statement. A few sizes, so that each is compiled once."""

_SHARED: Final = "name, queue, priority, state, run_at_ms, enqueued_ms, policy, max_crashes"
_what_is_shared: Final = itemgetter(slice(2, None))  # of a `NewTask`: all but its id and payload


@cache
def insert_statement(rows: int) -> str:
    """Store so many rows: first what they share, then the id and payload of each."""
    shared = ", ".join("?" * len(_SHARED.split(", ")))
    into = f"INSERT INTO sitq_tasks ({_SHARED}, id, payload)"
    if rows == 1:
        return f"{into} VALUES ({shared}, ?, ?)"
    own = ", ".join(["(?, ?)"] * rows)
    return f"{into} SELECT {shared}, column1, column2 FROM (VALUES {own})"


def inserts(new: Sequence[NewTask], wall_ms: int) -> Program[None]:
    """Store *new*."""
    for _, alike in groupby(new, _what_is_shared):
        tasks = list(alike)
        shared = _shared_values(tasks[0], wall_ms)
        start = 0
        for rows in BLOCKS:
            while len(tasks) - start >= rows:
                own = [value for task in tasks[start : start + rows] for value in task[:2]]
                yield Query(insert_statement(rows), (*shared, *own))
                start += rows


def _shared_values(task: NewTask, wall_ms: int) -> tuple[Any, ...]:
    state, run_at_ms = when(task, wall_ms)
    policy = task.policy
    return (
        task.name,
        task.queue,
        task.priority,
        state,
        run_at_ms,
        wall_ms,
        dump_policy(policy),
        policy.max_crashes,
    )
