"""What all SQL shares: guards from the transition table, and rows that become answers.

The promise: what a store answers does not depend on its dialect. Which tasks of many enqueues are
new, what is in a row, and what becomes of a row that cannot be read is decided here.
"""

from collections.abc import Sequence
from typing import Final

from sitq.protocol.lifecycle import FINAL, Move, TaskState, sources, target
from sitq.protocol.ops import (
    Conflict,
    Enqueue,
    Enqueued,
    NewTask,
    Outcome,
    Parked,
    Reservation,
    Settle,
    TaskKey,
    TaskRow,
)
from sitq.storage.policy_column import load_policy
from sitq.storage.program import Row


def allows(move: Move) -> str:
    """The guard of *move*, from the transition table.

    One state is written with `=`: SQLite uses a partial index only for a term it can see.
    """
    states = [f"'{state}'" for state in sources(move)]
    return f"state = {states[0]}" if len(states) == 1 else f"state IN ({', '.join(states)})"


def moves_to(move: Move) -> str:
    """What *move* sets."""
    return f"state = '{target(move)}'"


HAS_ENDED: Final = f"state IN ({', '.join(sorted(repr(str(state)) for state in FINAL))})"


RESERVATION: Final = (
    "seq, token, id, name, payload, attempt, policy, max_crashes, priority, crashes"
)
"""The columns of what a worker is given."""


def ms(seconds: float) -> int:
    return round(seconds * 1000)


ENQUEUED: Final = Enqueued()


def new_tasks(
    enqueues: Sequence[tuple[int, Enqueue]],
    known: dict[str, tuple[TaskState, bytes]],
    wall_ms: int,
) -> tuple[dict[int, Outcome], list[NewTask]]:
    """Return what each enqueue is answered, and the tasks that are to be stored.

    *known* are the tasks that bear one of the ids already: each by its state and payload. An
    enqueue is stored as a whole or, for a conflict, not at all.
    """
    outcomes: dict[int, Outcome] = {}
    new: list[NewTask] = []
    for i, op in enqueues:
        outcomes[i] = ENQUEUED
        if not op.may_exist:  # nobody else makes such ids
            new += op.tasks
            continue
        fresh: dict[str, NewTask] = {}
        for task in op.tasks:
            state, payload = known.get(task.id, (None, None))
            if task.id in fresh:
                state, payload = TaskState.QUEUED, fresh[task.id].payload
            if state is None:
                fresh[task.id] = task
            elif payload != task.payload:
                outcomes[i] = Conflict(task.id, state)
                break
        else:
            new += fresh.values()
            for task in fresh.values():
                known[task.id] = when(task, wall_ms)[0], task.payload
    return outcomes, new


def when(task: NewTask, wall_ms: int) -> tuple[TaskState, int]:
    """Return the state that a new task begins in, and when it is due."""
    run_at_ms = wall_ms + task.delay_ms if task.run_at_ms is None else task.run_at_ms
    return TaskState.QUEUED if run_at_ms <= wall_ms else TaskState.SCHEDULED, run_at_ms


def in_turn(rows: Sequence[Row]) -> list[Row]:
    """Sort what was given by priority, then first come, first served."""
    return sorted(rows, key=lambda row: (-row[8], row[0]))


def reservations(
    rows: Sequence[Row], worker_id: str
) -> tuple[tuple[Reservation, ...], list[tuple[int, Settle]]]:
    """Return what a worker is given, and how the rows are put aside that cannot be read.

    A row has the columns of `RESERVATION`.
    """
    tasks: list[Reservation] = []
    damaged: list[tuple[int, Settle]] = []
    for row in rows:
        try:
            tasks.append(_reservation(row))
        except ValueError:
            damaged.append((len(damaged), _park_damaged(row, worker_id)))
    return tuple(tasks), damaged


def _reservation(row: Row) -> Reservation:
    seq, token, id_, name, payload, attempt, policy, max_crashes, _, crashes = row
    return Reservation(
        TaskKey(seq, token), id_, name, payload, attempt, load_policy(policy, max_crashes), crashes
    )


def _park_damaged(row: Row, worker_id: str) -> Settle:
    """Put aside a task whose options cannot be read; the others of its queue must not wait for it."""
    seq, token, id_, _, _, _, policy, *_ = row
    text = (
        f"the options of this task are damaged (its policy is {policy!r:.100}): restore them from a"
        " backup, or cancel it and enqueue it again"
    )
    return Settle(TaskKey(seq, token), id_, worker_id, Parked("damaged", text))


def task_row(row: Row) -> TaskRow:
    id_, name, queue, state, *rest = row
    return TaskRow(id_, name, queue, TaskState(state), *rest)
