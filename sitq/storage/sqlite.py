"""Every op as statements of SQLite.

The promises:
- A batch is one transaction. Its ops were asked at the same time, and none has been answered
  when it begins, so any order is a right one: they go kind by kind, and what frees comes before
  what takes.
- Settles cost a fixed number of statements, however many there are, and enqueues one for each block
  of rows: see `sqlite_inserts`.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, assert_never

from sitq.protocol.lifecycle import Move, TaskState, advance
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Count,
    Counted,
    Enqueue,
    Failed,
    Fetch,
    Fetched,
    Moment,
    Op,
    Outcome,
    Parked,
    Prune,
    Pruned,
    Register,
    Released,
    Renew,
    Rescue,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    Settle,
    Settled,
    TaskKey,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
)
from sitq.storage import sqlite_statements as sql, sqlite_workers as workers
from sitq.storage.program import Change, Commit, Program, Query, Row
from sitq.storage.sql import ENQUEUED, in_turn, ms, new_tasks, reservations, task_row
from sitq.storage.sqlite_inserts import inserts
from sitq.storage.sqlite_runs import runs


def apply_batch(ops: Sequence[Op], now: Moment) -> Program[tuple[Outcome, ...]]:
    """Apply *ops* in one transaction; return their outcomes, in the order of *ops*."""
    enqueues = [op for op in ops if type(op) is Enqueue and not op.may_exist]
    if enqueues and len(enqueues) == len(ops):
        # What producers ask all day long, and where each call of Python counts.
        yield _BEGIN
        yield from inserts([task for op in enqueues for task in op.tasks], now.wall_ms)
        yield _COMMIT
        return (ENQUEUED,) * len(ops)
    outcomes: dict[int, Outcome] = {}
    asked: dict[type, list[tuple[int, Any]]] = {}
    for i, op in enumerate(ops):
        asked.setdefault(type(op), []).append((i, op))
    yield _BEGIN_READING if asked.keys() <= READS else _BEGIN
    if Settle in asked:
        outcomes |= yield from _settle(asked[Settle], now)
    for kind, program in _BEFORE_ENQUEUES:
        for i, op in asked.get(kind, ()):
            outcomes[i] = yield from program(op, now)
    if Enqueue in asked:
        outcomes |= yield from _enqueue(asked[Enqueue], now)
    for kind, program in _AFTER_ENQUEUES:
        for i, op in asked.get(kind, ()):
            outcomes[i] = yield from program(op, now)
    if Fetch in asked:
        outcomes |= yield from _fetch(asked[Fetch])
    yield _COMMIT
    return tuple([outcomes[i] for i in range(len(ops))])


# -- enqueue and cancel ----------------------------------------------------------------


def _enqueue(enqueues: list[tuple[int, Enqueue]], now: Moment) -> Program[dict[int, Outcome]]:
    known: dict[str, tuple[TaskState, bytes]] = {}
    asked = [task.id for _, op in enqueues if op.may_exist for task in op.tasks]
    if asked:
        found = yield Query(sql.EXISTING, (json.dumps(asked),))
        known = {id_: (TaskState(state), payload) for id_, state, payload in found}
    outcomes, new = new_tasks(enqueues, known, now.wall_ms)
    yield from inserts(new, now.wall_ms)
    return outcomes


def _cancel(op: Cancel, now: Moment) -> Program[Outcome]:
    rows = yield Query(sql.FIND, (op.task_id,))
    if not rows:
        return Cancelled(None)
    ((seq, token, state, worker_id),) = rows
    was = TaskState(state)
    if was is TaskState.RUNNING:
        yield Change(sql.ASK_TO_STOP, [(seq,)])
        return Cancelled(was, worker_id, TaskKey(seq, token))
    if advance(was, Move.CANCEL) is not None:
        yield Change(sql.CANCEL, [(now.wall_ms, seq)])
    return Cancelled(was)


# -- reserve ---------------------------------------------------------------------------


class _Look(NamedTuple):
    """What a reserve should know: when the next scheduled task is due, whether a suspect waits, and
    whether the worker has a lease."""

    due_at: int | None
    suspect: bool
    registered: bool


def _reserve(op: Reserve, now: Moment) -> Program[Outcome]:
    look = yield from _look_for(op)
    if not look.registered:  # its tasks would have no lease to run out
        return Unregistered()
    if look.due_at is not None and look.due_at <= now.wall_ms:
        yield Change(sql.PROMOTE, [(queue, now.wall_ms) for queue in op.queues])
        look = yield from _look_for(op)
    forgotten: Sequence[Row] = ()
    if op.known is not None:
        forgotten = yield Query(sql.FORGOTTEN, (op.worker_id, json.dumps(op.known), op.limit))
    fresh = yield from _take(op, op.limit - len(forgotten), now, look)
    rows = [*forgotten, *fresh]
    tasks, damaged = reservations(in_turn(rows) if forgotten else rows, op.worker_id)
    if damaged:
        yield from _settle(damaged, now)
    if look.due_at is None or len(rows) == op.limit:
        return Reserved(tasks)
    return Reserved(tasks, max(0, look.due_at - now.wall_ms) / 1000)


def _take(op: Reserve, limit: int, now: Moment, look: _Look) -> Program[Sequence[Row]]:
    """Give the next tasks, of the suspects one at most, and none to whoever holds one."""
    next_ = sql.NEXT
    allowed: tuple[int | None, ...] = ()
    if look.suspect:
        next_, allowed = sql.NEXT_WITH_ONE_SUSPECT, (None,)
        if not (yield Query(sql.HOLDS_SUSPECT, (op.worker_id,))):
            first = yield Query(sql.FIRST_SUSPECT, (json.dumps(op.queues),))
            allowed = first[0] if first else (None,)
    params = [param for queue in op.queues for param in (queue, *allowed, limit)]
    if len(op.queues) > 1:
        params.append(limit)
    rows = yield Query(sql.next_statement(len(op.queues), next_), params)
    if rows:
        taken = runs([(row[0], None) for row in rows])
        yield Change(sql.TAKE, [(op.worker_id, now.wall_ms, *run[:2]) for run in taken])
    # as they stand now: with the next token, and one attempt more
    return [(*row[:1], row[1] + 1, *row[2:5], row[5] + 1, *row[6:]) for row in rows]


def _look_for(op: Reserve) -> Program[_Look]:
    params = [param for queue in op.queues for param in (queue, op.worker_id)]
    rows = yield Query(sql.look_statement(len(op.queues)), params)
    due = [run_at_ms for run_at_ms, _, _ in rows if run_at_ms is not None]
    _, suspect, registered = rows[0]
    return _Look(min(due, default=None), bool(suspect), bool(registered))


# -- settle ----------------------------------------------------------------------------


def _settle(settles: list[tuple[int, Settle]], now: Moment) -> Program[dict[int, Outcome]]:
    changes: dict[str, list[tuple[Any, ...]]] = {}
    completed: list[tuple[int, tuple[bytes, int, str]]] = []
    for _, op in settles:
        verdict = op.verdict
        if isinstance(verdict, Completed):
            completed.append((op.key.seq, (verdict.value, op.key.token, op.worker_id)))
            continue
        for statement, values in _verdict_changes(verdict, now):
            changes.setdefault(statement, []).append((*values, *op.key, op.worker_id))
    if completed:
        completed.sort()
        changes[sql.COMPLETE] = [
            (now.wall_ms, value, first, last, token, worker_id)
            for first, last, (value, token, worker_id) in runs(completed)
        ]
    applied = 0
    for statement, rows in changes.items():
        ((changed,),) = yield Change(statement, rows)
        applied += changed
    if applied == len(settles):
        return {i: Settled(True) for i, _ in settles}
    # Some were refused. One that stands as it was left under this very token had been applied
    # before, and its answer lost; all else belongs to another by now.
    found = yield Query(sql.STANDING, (json.dumps([op.key.seq for _, op in settles]),))
    standing = {(seq, token) for seq, token, state in found if state != TaskState.RUNNING}
    return {i: Settled(op.key in standing) for i, op in settles}


def _verdict_changes(
    verdict: Failed | Aborted | RetryIn | Released | Parked, now: Moment
) -> Iterable[tuple[str, tuple[Any, ...]]]:
    match verdict:
        case Failed(failure):
            error = (failure.error, failure.error_type, failure.traceback, failure.reason)
            return [(sql.FAIL, (now.wall_ms, *error))]
        case Aborted():
            return [(sql.ABORT, (now.wall_ms,))]
        case RetryIn(delay, failure):
            again_ms = now.wall_ms + ms(delay)
            values: tuple[Any, ...] = (
                again_ms,
                failure.error,
                failure.error_type,
                failure.traceback,
            )
            return [(sql.ABORT_IF_ASKED, (now.wall_ms,)), (sql.RETRY, values)]
        case Released():
            return [(sql.ABORT_IF_ASKED, (now.wall_ms,)), (sql.RELEASE, ())]
        case Parked(stamp, text):
            return [(sql.ABORT_IF_ASKED, (now.wall_ms,)), (sql.PARK, (stamp, text))]
        case _:
            assert_never(verdict)


# -- upkeep and reading ----------------------------------------------------------------


def _unpark(op: Unpark, now: Moment) -> Program[Outcome]:  # noqa: ARG001
    ((count,),) = yield Change(sql.UNPARK, [(json.dumps(op.stamps),)])
    return Unparked(count)


def _prune(op: Prune, now: Moment) -> Program[Outcome]:
    ((count,),) = yield Change(sql.PRUNE, [(now.wall_ms - ms(op.older_than), op.limit)])
    return Pruned(count)


def _count(op: Count, now: Moment) -> Program[Outcome]:  # noqa: ARG001
    rows = yield Query(sql.COUNT)
    return Counted(tuple((queue, TaskState(state), n) for queue, state, n in rows))


def _fetch(fetches: list[tuple[int, Fetch]]) -> Program[dict[int, Outcome]]:
    asked = sorted({task_id for _, op in fetches for task_id in op.task_ids})
    if len(asked) == 1:
        rows = yield Query(sql.FETCH_ONE, asked)
    else:
        rows = yield Query(sql.FETCH, (json.dumps(asked),))
    found = {row[0]: task_row(row) for row in rows}
    return {
        i: Fetched({task_id: found[task_id] for task_id in op.task_ids if task_id in found})
        for i, op in fetches
    }


# What frees comes before what takes, and what looks comes last.
_BEFORE_ENQUEUES: Final[Sequence[tuple[type, Any]]] = (
    (Retire, workers.retire),
    (Register, workers.register),
    (Renew, workers.renew),
    (Rescue, workers.rescue),
    (Unpark, _unpark),
    (Prune, _prune),
)
_AFTER_ENQUEUES: Final[Sequence[tuple[type, Any]]] = (
    (Cancel, _cancel),
    (Reserve, _reserve),
    (Watch, workers.watch),
    (Count, _count),
)
READS: Final[frozenset[type]] = frozenset({Watch, Fetch, Count})
"""A batch of these alone writes nothing."""
LOSABLE: Final[frozenset[type]] = READS | {Reserve, Renew, Unpark, Prune}
"""A batch of these alone may be lost in a power cut: no worker survives one, and what they held is
queued then, as if it had not been given out. What was forgotten or unparked is so again, later."""
_BEGIN: Final = Query("BEGIN IMMEDIATE")
_BEGIN_READING: Final = Query("BEGIN")
_COMMIT: Final = Commit()
