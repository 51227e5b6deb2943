"""One history, from what all processes and their torturer wrote down."""

from typing import NamedTuple

from sitq.testing.simulation.history import Change, Event, History, Kind
from torture.crew import Crew, Process
from torture.kept import Kept
from torture.witness import Called, Record, Stored, read

DEATHS = (Kind.KILLED, Kind.STOPPED)


class Merged(NamedTuple):
    """*calls* are the entries and returns of functions, by the numbers of their tasks."""

    history: History
    calls: dict[int, list[Called]]
    rows: dict[str, Change]
    """How each task's row stood after the last commit, by what was written down of it."""
    commits: int


def merge(crew: Crew, kept: Kept) -> Merged:
    """Merge all records, in the order in which they came about.

    A transaction is left out if its COMMIT was not made, as the store itself says.
    """
    lines: list[tuple[int, int, str, Record]] = []
    calls: dict[int, list[Called]] = {}
    for process in crew.all:
        for record in _records(crew, process):
            if isinstance(record.value, Called):
                calls.setdefault(record.value.number, []).append(record.value)
            else:
                lines.append((record.ns, len(lines), process.name, record))
    lines.sort()
    stored = [record.value for _, _, _, record in lines if isinstance(record.value, Stored)]
    changes_of = iter(kept.changes(stored))
    commits = 0
    rows: dict[str, Change] = {}
    history: History = []
    for ns, _, who, record in lines:
        at = ns / 1e9
        if not isinstance(record.value, Stored):
            assert record.kind is not None
            event = Event(at, record.kind, who, record.task, record.token, record.value)
            history.append(event)
        elif (changes := next(changes_of)) is not None:
            commits += 1
            history.append(Event(at, Kind.BATCH, who, value=record.value.batch))
            for task_id, change in changes:
                history.append(Event(at, Kind.ROW, who, task_id, change.token, change))
                rows[task_id] = change
    return Merged(history, calls, rows, commits)


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
