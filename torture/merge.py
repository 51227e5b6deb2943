"""One history, from what all processes and their torturer wrote down."""

import sqlite3
from contextlib import closing
from typing import NamedTuple

from sitq.protocol.lifecycle import TaskState
from sitq.testing.simulation.history import Change, Event, History, Kind
from torture.crew import Crew, Process
from torture.witness import Called, Record, Stored, read

DEATHS = (Kind.KILLED, Kind.STOPPED)


class Merged(NamedTuple):
    """*calls* are the entries and returns of functions, by the numbers of their tasks."""

    history: History
    calls: dict[int, list[Called]]
    rows: dict[str, Change]
    """How each task's row stood after the last commit, by what was written down of it."""
    commits: int


def merge(crew: Crew) -> Merged:
    """Merge all records, in the order in which they came about.

    A transaction is left out if its COMMIT was not made: then the next one bears its number.
    """
    with closing(sqlite3.connect(crew.path, timeout=30)) as db:
        ((last,),) = db.execute("PRAGMA user_version").fetchall()
    lines: list[tuple[int, int, str, Record]] = []
    calls: dict[int, list[Called]] = {}
    stored: dict[int, int] = {}  # by the number of a commit, its place in the order
    for process in crew.all:
        for record in _records(crew, process):
            if isinstance(record.value, Called):
                calls.setdefault(record.value.number, []).append(record.value)
            else:
                lines.append((record.ns, len(lines), process.name, record))
    lines.sort()
    for place, (_, _, _, record) in enumerate(lines):
        if isinstance(record.value, Stored) and record.value.number <= last:
            stored[record.value.number] = place
    committed = frozenset(stored.values())
    rows: dict[str, Change] = {}
    history: History = []
    for place, (ns, _, who, record) in enumerate(lines):
        at = ns / 1e9
        if not isinstance(record.value, Stored):
            assert record.kind is not None
            event = Event(at, record.kind, who, record.task, record.token, record.value)
            history.append(event)
        elif place in committed:
            history.append(Event(at, Kind.BATCH, who, value=record.value.batch))
            for task_id, change in record.value.changes:
                history.append(Event(at, Kind.ROW, who, task_id, change.token, change))
                rows[task_id] = change
    return Merged(history, calls, rows, len(committed))


def _records(crew: Crew, process: Process) -> list[Record]:
    """Return what is known of a process, its death behind the last that it wrote itself.

    It was noted before the signal was sent, and the process may have gone on for a moment.
    """
    records = list(read(crew.witness_of(process.name)))
    last = max((record.ns for record in records), default=0)
    done = list(process.done_to_it)
    if not process.was_killed and not any(record.kind is Kind.KILLED for record in done):
        code = process.popen.returncode
        done.append(Record(last, Kind.STOPPED if code == 0 else Kind.KILLED))
    for record in done:
        later = record._replace(ns=max(record.ns, last + 1))
        records.append(later if record.kind in DEATHS else record)
    return records


def read_rows(crew: Crew) -> dict[str, TaskState]:
    """Return the state of each task in the file."""
    with closing(sqlite3.connect(crew.path, timeout=30)) as db:
        rows = db.execute("SELECT id, state FROM sitq_tasks").fetchall()
    return {task_id: TaskState(state) for task_id, state in rows}


def is_whole(crew: Crew) -> bool:
    """Say whether SQLite finds nothing wrong with the file."""
    with closing(sqlite3.connect(crew.path, timeout=30)) as db:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
