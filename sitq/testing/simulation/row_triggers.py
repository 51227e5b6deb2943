"""What changes in the rows of tasks, seen by SQLite itself and not by what a program says of it."""

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from sitq.protocol.lifecycle import TaskState
from sitq.testing.simulation.history import Change

Saw = Callable[[str, Change], None]

COLUMNS: Final = (
    "seq", "state", "token", "worker_id", "attempt", "crashes", "run_at_ms", "finished_ms",
    "cancel_asked", "queue", "priority",
)  # fmt: skip

_STATES: Final = {str(state): state for state in TaskState}


def watch_rows(db: sqlite3.Connection, saw: Saw) -> None:
    """Have *saw* told of each change that *db* makes to a task's row, by its id.

    The triggers are this connection's own, and never in the file.
    """
    db.create_function("sitq_saw", 2 + 2 * len(COLUMNS), lambda *args: saw(*changed(*args)))
    nothing = ", ".join(["NULL"] * len(COLUMNS))
    old = ", ".join(f"OLD.{column}" for column in COLUMNS)
    new = ", ".join(f"NEW.{column}" for column in COLUMNS)
    for when, of, id_, values in (
        ("INSERT", "new", "NEW.id", f"{nothing}, {new}"),
        ("UPDATE", "both", "NEW.id", f"{old}, {new}"),
        ("DELETE", "old", "OLD.id", f"{old}, {nothing}"),
    ):
        db.execute(
            f"CREATE TEMP TRIGGER saw_{of} AFTER {when} ON main.sitq_tasks"
            f" BEGIN SELECT sitq_saw('{of}', {id_}, {values}); END"
        )


def changed(of: str, id_: str, *values: Any) -> tuple[str, Change]:
    """Return what became of a row: *of* is `old`, `new` or `both`, *values* is `COLUMNS` twice."""
    old, new = values[: len(COLUMNS)], values[len(COLUMNS) :]
    seq, _, token, worker, attempt, crashes, run_at_ms, finished_ms, asked, queue, priority = (
        old if of == "old" else new
    )
    return id_, Change(
        seq,
        None if of == "new" else _STATES[old[1]],
        None if of == "old" else _STATES[new[1]],
        old[2] or 0,
        token,
        old[3],
        worker,
        old[4] or 0,
        attempt,
        crashes,
        run_at_ms,
        finished_ms,
        bool(asked),
        queue,
        priority,
    )
