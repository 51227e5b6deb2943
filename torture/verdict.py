"""What becomes of a play: judged by the invariants of the simulator, and by what the store has kept.

Beside the invariants there are four more: D1, a run of a task that nothing explains; D2, a success of
a function that was never seen to return; P1, a process that ended badly by itself; and P2, a play
that shows nothing.
"""

import signal
from collections import Counter
from typing import Final, NamedTuple

from sitq.protocol.lifecycle import FINAL, TaskState
from sitq.protocol.ops import Settled
from sitq.serialization import CloudpickleSerializer, unseal
from sitq.testing.simulation.history import Change, Event, History, Kind
from sitq.testing.simulation.invariants import Checker
from torture.crew import Crew
from torture.kept import Kept
from torture.merge import Merged, merge
from torture.reasons import explain
from torture.witness import read

RECOVERS_WITHIN: Final = 30.0
"""Seconds after the last fault in which a busy machine may still be catching up."""
STOPPED: Final = frozenset(
    code
    for number in (signal.SIGTERM, signal.SIGINT)
    for code in (-number, 128 + number)  # before it was heard; by the third
)
"""Exit codes of a worker that was told to stop, beside 0."""


class Verdict(NamedTuple):
    tasks: int
    """How many were acknowledged."""
    unknown: int
    """How many were being enqueued when their caller died, and are there all the same."""
    lost: int
    completed_twice: int
    started_again: Counter[str]
    """How often a task ran once more, by the reason."""
    refused: int
    """How many verdicts came too late, and were refused."""
    commits: int
    events: int
    violations: list[str]


def judge(crew: Crew, kept: Kept, late: list[str]) -> Verdict:
    """Judge what the processes of *crew*, which have all ended, left behind; and what was *kept*."""
    merged = merge(crew, kept)
    history = merged.history
    end = max((event.at for event in history), default=0.0)
    history.append(Event(end, Kind.HEALED))
    history.append(Event(end, Kind.SOUND, value=kept.is_whole))
    history.append(Event(end, Kind.QUIET))
    found = Checker(presence=True, recovers_within=RECOVERS_WITHIN).check(history)
    violations = [
        f"{v.invariant}: {v.text} (event {v.event})"
        for v in found
        if v.invariant not in kept.unjudged
    ]
    violations += late
    in_file = kept.rows
    acknowledged = {
        task_id for event in history if event.kind is Kind.ENQUEUED for task_id in event.value
    }
    lost = sum(in_file.get(task_id) not in FINAL for task_id in acknowledged)
    if lost and not any(text.startswith(("S1:", "L1:")) for text in violations):
        violations.append(f"S1: {lost} acknowledged tasks are not in the file, or have not ended")
    violations += _odd_ends(crew, kept)
    if not acknowledged:
        violations.append("P2: not one task was enqueued, so nothing was shown")
    violations += _rows_that_differ(merged, in_file)
    violations += _successes_without_a_run(merged)
    again, unexplained = explain(history)
    violations += unexplained
    return Verdict(
        tasks=len(acknowledged),
        unknown=len(in_file.keys() - acknowledged),
        lost=lost,
        completed_twice=_completed_twice(history),
        started_again=again,
        refused=_refused(history),
        commits=merged.commits,
        events=len(history),
        violations=violations,
    )


def _odd_ends(crew: Crew, kept: Kept) -> list[str]:
    """Find processes that ended by themselves, and not well."""
    found = []
    for process in crew.all:
        code = process.popen.returncode
        allowed = {0}
        if process.was_killed or process.kind == "worker":  # which a task may have taken down
            allowed.add(-signal.SIGKILL)
        seen = {record.kind for record in read(crew.witness_of(process.name))}
        if kept.may_be_away and process.kind == "worker" and Kind.HELD not in seen:
            allowed.add(1)  # it could not begin, and says so to whoever started it
        if process.signals:
            allowed |= STOPPED
            if Kind.UP not in seen:
                allowed.add(1)  # Python's own answer to a SIGINT while it starts
        if code not in allowed:
            found.append(f"P1: {process.name} ended with {code}, which nothing had asked for")
    return found


def _completed_twice(history: History) -> int:
    """Count the tasks that became a success more than once, by what their rows tell."""
    completed: Counter[str] = Counter()
    for event in history:
        if event.kind is Kind.ROW:
            change: Change = event.value
            if change.new is TaskState.SUCCESS and change.old is not TaskState.SUCCESS:
                completed[event.task] += 1
    return sum(times > 1 for times in completed.values())


def _refused(history: History) -> int:
    return sum(
        outcome == Settled(applied=False)
        for event in history
        if event.kind is Kind.BATCH
        for outcome in event.value.outcomes
    )


def _rows_that_differ(merged: Merged, in_file: dict[str, TaskState]) -> list[str]:
    """Compare the file with what its commits should have left in it."""
    seen = {id_: row.new for id_, row in merged.rows.items() if row.new is not None}
    return [
        f"S1: {task_id} was left {seen.get(task_id)}, and is {in_file.get(task_id)} in the file"
        for task_id in sorted(seen.keys() | in_file.keys())
        if seen.get(task_id) is not in_file.get(task_id)
    ]


def _successes_without_a_run(merged: Merged) -> list[str]:
    """Find tasks that succeeded, and of whose function nobody saw the end."""
    returned = {
        number for number, calls in merged.calls.items() if any(call.left for call in calls)
    }
    payloads = {event.task: event.value[1] for event in merged.history if event.kind is Kind.START}
    missing = []
    for task_id, row in merged.rows.items():
        if row.new is TaskState.SUCCESS:
            _, (number, *_), _ = unseal(CloudpickleSerializer(), payloads[task_id])
            if number not in returned:
                missing.append(
                    f"D2: {task_id} succeeded, and its function was never seen to return"
                )
    return missing
