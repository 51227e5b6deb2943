"""What a store has kept, when all of its processes have ended: which commits, and which rows."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeAlias

from sitq.protocol.lifecycle import TaskState
from sitq.testing.simulation.history import Change
from torture.witness import Stored

Changes: TypeAlias = tuple[tuple[str, Change], ...]


class Kept(NamedTuple):
    rows: dict[str, TaskState]
    """The state of each task."""
    is_whole: bool
    changes: Callable[[Sequence[Stored]], list[Changes | None]]
    """What each of these has changed, in the order of their records; None: it was not committed."""
    may_be_away: bool = False
    """Whether a process can find nobody there when it starts; it then ends at once."""
    unjudged: frozenset[str] = frozenset()
    """The invariants that cannot be asked of such a store."""


def kept_in_file(path: Path) -> Kept:
    with closing(sqlite3.connect(path, timeout=30)) as db:
        ((last,),) = db.execute("PRAGMA user_version").fetchall()
        rows = db.execute("SELECT id, state FROM sitq_tasks").fetchall()
        is_whole = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def changes(records: Sequence[Stored]) -> list[Changes | None]:
        """Leave out what the next one bears the number of: its COMMIT was not made."""
        kept: dict[int | str, int] = {}
        for place, stored in enumerate(records):
            assert isinstance(stored.number, int)
            if stored.number <= last:
                kept[stored.number] = place
        places = frozenset(kept.values())
        return [stored.changes if i in places else None for i, stored in enumerate(records)]

    return Kept({task_id: TaskState(state) for task_id, state in rows}, is_whole, changes)
