"""Every op as SQLite statements.

The promises:
- A batch is one transaction. Its ops were asked at the same time, and none has been answered
  when it begins, so any order is a right one: they go kind by kind, and what frees comes before
  what takes.
- Settles cost a fixed number of statements, however many there are, and enqueues one for each block
  of rows: see `sqlite_inserts`.
- Every change of a task's state is guarded by the states from which `TRANSITIONS` allows it,
  and those of a running task by its token and its worker too.
- Every statement of the hot path is served by an index named in `sqlite_schema`.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
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
    Registered,
    Released,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reserve,
    Reserved,
    Retire,
    Retired,
    RetryIn,
    Settle,
    Settled,
    TaskKey,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
    Watched,
)
from sitq.storage.program import Change, Commit, Program, Query, Row
from sitq.storage.sql import (
    ENQUEUED,
    HAS_ENDED,
    RESERVATION,
    allows,
    in_turn,
    moves_to,
    ms,
    new_tasks,
    reservations,
    task_row,
)
from sitq.storage.sqlite_inserts import inserts
from sitq.storage.sqlite_schema import SUSPECT

PROMOTE_LIMIT: Final = 1000
"""Tasks that one reserve takes from scheduled to queued: what is left goes with the next."""


# -- statements: enqueue and cancel ----------------------------------------------------

# Served by the unique index on id.
EXISTING: Final = """
    SELECT id, state, payload FROM sitq_tasks WHERE id IN (SELECT value FROM json_each(?))
"""

FIND: Final = "SELECT seq, token, state, worker_id FROM sitq_tasks WHERE id = ?"

CANCEL: Final = f"""
    UPDATE sitq_tasks SET {moves_to(Move.CANCEL)}, reason = 'user', finished_ms = ?
    WHERE seq = ? AND {allows(Move.CANCEL)}
"""

# Not a move: the task runs on until its holder hears of it.
ASK_TO_STOP: Final = f"""
    UPDATE sitq_tasks SET cancel_asked = 1 WHERE seq = ? AND {allows(Move.ABORT)}
"""

# -- statements: reserve ---------------------------------------------------------------

# Run by every reserve that finds something due, so there is no process that stages it.
# Served by sitq_tasks_scheduled.
PROMOTE: Final = f"""
    UPDATE sitq_tasks SET {moves_to(Move.PROMOTE)} WHERE seq IN (
        SELECT seq FROM sitq_tasks WHERE {allows(Move.PROMOTE)} AND queue = ? AND run_at_ms <= ?
        ORDER BY run_at_ms LIMIT {PROMOTE_LIMIT}
    )
"""

# Served by sitq_tasks_queued.
_NEXT: Final = f"""
        SELECT {RESERVATION} FROM sitq_tasks WHERE {allows(Move.RESERVE)} AND queue = ?
        ORDER BY priority DESC, seq LIMIT ?
"""

# The same without suspects, but for one of them.
_NEXT_WITH_ONE_SUSPECT: Final = f"""
        SELECT {RESERVATION} FROM sitq_tasks WHERE {allows(Move.RESERVE)} AND queue = ?
            AND (NOT ({SUSPECT}) OR seq = ?)
        ORDER BY priority DESC, seq LIMIT ?
"""

# By its key: a `RETURNING`, or an `IN (SELECT ...)`, has SQLite build a table for the occasion, at
# the price of ten such changes.
TAKE: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.RESERVE)}, token = token + 1, attempt = attempt + 1, worker_id = ?,
        started_ms = ?
    WHERE seq = ? AND {allows(Move.RESERVE)}
"""

# These three are served by sitq_tasks_suspects.
_SUSPECT_WAITS: Final = f"SELECT 1 FROM sitq_tasks WHERE {SUSPECT} AND {allows(Move.RESERVE)}"

HOLDS_SUSPECT: Final = f"""
    SELECT 1 FROM sitq_tasks WHERE {SUSPECT} AND {allows(Move.COMPLETE)} AND worker_id = ? LIMIT 1
"""

FIRST_SUSPECT: Final = f"""
    SELECT seq FROM sitq_tasks WHERE {SUSPECT} AND {allows(Move.RESERVE)}
        AND queue IN (SELECT value FROM json_each(?))
    ORDER BY priority DESC, seq LIMIT 1
"""

# What a lost answer has given to a worker. Served by sitq_tasks_held.
FORGOTTEN: Final = f"""
    SELECT {RESERVATION} FROM sitq_tasks
    WHERE worker_id = ? AND {allows(Move.COMPLETE)}
        AND seq NOT IN (SELECT value FROM json_each(?))
    ORDER BY seq LIMIT ?
"""

# Served by sitq_tasks_scheduled.
_NEXT_DUE: Final = f"""
        SELECT min(run_at_ms) FROM sitq_tasks WHERE {allows(Move.PROMOTE)} AND queue = ?
"""

IS_REGISTERED: Final = "SELECT 1 FROM sitq_workers WHERE id = ?"


@cache
def look_statement(queues: int) -> str:
    """For each of so many queues: when the first of its scheduled tasks is due, whether a suspect
    is queued, in whichever queue, and whether the worker that asks is known.

    An idle worker finds nothing most of the time, and is told so without an UPDATE.
    """
    look = f"SELECT ({_NEXT_DUE}), EXISTS ({_SUSPECT_WAITS}), EXISTS ({IS_REGISTERED})"
    return " UNION ALL ".join([look] * queues)


@cache
def next_statement(queues: int, next_: str = _NEXT) -> str:
    """The next tasks of so many queues: the best of each, and the best of those."""
    if queues == 1:
        return next_
    best = " UNION ALL ".join([f"SELECT * FROM ({next_})"] * queues)
    return f"SELECT {RESERVATION} FROM ({best}) ORDER BY priority DESC, seq LIMIT ?"


# -- statements: settle ----------------------------------------------------------------

_HELD: Final = "seq = ? AND token = ? AND worker_id = ?"

COMPLETE: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.COMPLETE)}, finished_ms = ?, result = ?,
        error = NULL, error_type = NULL, traceback = NULL
    WHERE {_HELD} AND {allows(Move.COMPLETE)}
"""

FAIL: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.FAIL)}, finished_ms = ?, error = ?, error_type = ?, traceback = ?, reason = ?
    WHERE {_HELD} AND {allows(Move.FAIL)}
"""

ABORT: Final = f"""
    UPDATE sitq_tasks SET {moves_to(Move.ABORT)}, finished_ms = ?, reason = 'user'
    WHERE {_HELD} AND {allows(Move.ABORT)}
"""

# A task that was asked to stop does not come back by any of the three ways below.
ABORT_IF_ASKED: Final = f"{ABORT} AND cancel_asked = 1"

RETRY: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.RETRY)}, run_at_ms = ?, error = ?, error_type = ?, traceback = ?,
        worker_id = NULL
    WHERE {_HELD} AND {allows(Move.RETRY)} AND cancel_asked = 0
"""

RELEASE: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.RELEASE)}, attempt = attempt - 1, worker_id = NULL, started_ms = NULL
    WHERE {_HELD} AND {allows(Move.RELEASE)} AND cancel_asked = 0
"""

PARK: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.PARK)}, attempt = attempt - 1, worker_id = NULL, started_ms = NULL,
        parked_stamp = ?, error = ?
    WHERE {_HELD} AND {allows(Move.PARK)} AND cancel_asked = 0
"""

STANDING: Final = """
    SELECT seq, token, state FROM sitq_tasks WHERE seq IN (SELECT value FROM json_each(?))
"""

# -- statements: workers ---------------------------------------------------------------

REGISTER: Final = """
    INSERT INTO sitq_workers
        (id, host, pid, queues, max_concurrency, epoch, lease_until_ms, registered_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, lease_until_ms = excluded.lease_until_ms
"""

RENEW: Final = "UPDATE sitq_workers SET epoch = ?, lease_until_ms = ? WHERE id = ?"

# The lease is judged here, in the transaction that acts on it.
DEAD: Final = """
    SELECT id, host, pid FROM sitq_workers
    WHERE id IN (SELECT value FROM json_each(?)) OR epoch <> ? OR lease_until_ms <= ?
"""

# Served by sitq_tasks_held, like the three below. A rescue gives a new token, which fences the
# worker off even where it had lost its lease without dying.
RESCUE_ABORT: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.ABORT)}, token = token + 1, finished_ms = ?, reason = 'user'
    WHERE worker_id = ? AND {allows(Move.ABORT)} AND cancel_asked = 1
"""

RESCUE_FAIL: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.FAIL)}, token = token + 1, crashes = crashes + 1, finished_ms = ?,
        error = 'the worker died ' || (crashes + 1) || iif(crashes = 0, ' time', ' times')
            || ' while running this task (last: pid ' || ? || ' on ' || ? || ')',
        error_type = 'WorkerDied', traceback = NULL, reason = 'crash'
    WHERE worker_id = ? AND {allows(Move.FAIL)} AND crashes + 1 >= max_crashes
"""

RESCUE: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.RESCUE)}, token = token + 1, crashes = crashes + 1, attempt = attempt - 1,
        worker_id = NULL, started_ms = NULL
    WHERE worker_id = ? AND {allows(Move.RESCUE)}
"""

# A retirement gives a new token as well: what comes from this worker later is not its own.
RETIRE_ABORT: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.ABORT)}, token = token + 1, finished_ms = ?, reason = 'user'
    WHERE worker_id = ? AND {allows(Move.ABORT)} AND cancel_asked = 1
"""

RETIRE_RELEASE: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.RELEASE)}, token = token + 1, attempt = attempt - 1, worker_id = NULL,
        started_ms = NULL
    WHERE worker_id = ? AND {allows(Move.RELEASE)}
"""

FORGET_WORKER: Final = "DELETE FROM sitq_workers WHERE id = ?"

PEERS: Final = """
    SELECT id, epoch <> ? OR lease_until_ms <= ? FROM sitq_workers WHERE id <> ? ORDER BY id
"""

# Served by sitq_tasks_asked.
ASKED_TO_STOP: Final = f"""
    SELECT seq, token FROM sitq_tasks
    WHERE worker_id = ? AND {allows(Move.ABORT)} AND cancel_asked = 1 ORDER BY seq
"""

# -- statements: upkeep and reading ----------------------------------------------------

# Served by sitq_tasks_parked.
UNPARK: Final = f"""
    UPDATE sitq_tasks SET {moves_to(Move.UNPARK)}, parked_stamp = NULL, error = NULL
    WHERE {allows(Move.UNPARK)} AND parked_stamp IN (SELECT value FROM json_each(?))
"""

# Served by sitq_tasks_finished. The newest row stays: SQLite would give its number to the next
# task, whose tokens would then be those of a task that was before.
PRUNE: Final = f"""
    DELETE FROM sitq_tasks WHERE seq IN (
        SELECT seq FROM sitq_tasks WHERE {HAS_ENDED} AND finished_ms <= ?
            AND seq <> (SELECT max(seq) FROM sitq_tasks)
        ORDER BY finished_ms LIMIT ?
    )
"""

_STANDS: Final = """
    SELECT id, name, queue, state, attempt, crashes, enqueued_ms, started_ms, finished_ms,
        result, error, error_type, traceback, reason
    FROM sitq_tasks
"""

# Served by the unique index on id, like the next. Mostly one is asked for: see `TAKE`.
FETCH_ONE: Final = f"{_STANDS} WHERE id = ?"

FETCH: Final = f"{_STANDS} WHERE id IN (SELECT value FROM json_each(?))"

COUNT: Final = """
    SELECT queue, state, count(*) FROM sitq_tasks GROUP BY queue, state ORDER BY queue, state
"""

# -- programs --------------------------------------------------------------------------


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
        found = yield Query(EXISTING, (json.dumps(asked),))
        known = {id_: (TaskState(state), payload) for id_, state, payload in found}
    outcomes, new = new_tasks(enqueues, known, now.wall_ms)
    yield from inserts(new, now.wall_ms)
    return outcomes


def _cancel(op: Cancel, now: Moment) -> Program[Outcome]:
    rows = yield Query(FIND, (op.task_id,))
    if not rows:
        return Cancelled(None)
    ((seq, token, state, worker_id),) = rows
    was = TaskState(state)
    if was is TaskState.RUNNING:
        yield Change(ASK_TO_STOP, [(seq,)])
        return Cancelled(was, worker_id, TaskKey(seq, token))
    if advance(was, Move.CANCEL) is not None:
        yield Change(CANCEL, [(now.wall_ms, seq)])
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
        yield Change(PROMOTE, [(queue, now.wall_ms) for queue in op.queues])
        look = yield from _look_for(op)
    forgotten: Sequence[Row] = ()
    if op.known is not None:
        forgotten = yield Query(FORGOTTEN, (op.worker_id, json.dumps(op.known), op.limit))
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
    next_ = _NEXT
    allowed: tuple[int | None, ...] = ()
    if look.suspect:
        next_, allowed = _NEXT_WITH_ONE_SUSPECT, (None,)
        if not (yield Query(HOLDS_SUSPECT, (op.worker_id,))):
            first = yield Query(FIRST_SUSPECT, (json.dumps(op.queues),))
            allowed = first[0] if first else (None,)
    params = [param for queue in op.queues for param in (queue, *allowed, limit)]
    if len(op.queues) > 1:
        params.append(limit)
    rows = yield Query(next_statement(len(op.queues), next_), params)
    if rows:
        yield Change(TAKE, [(op.worker_id, now.wall_ms, row[0]) for row in rows])
    # as they stand now: with the next token, and one attempt more
    return [(*row[:1], row[1] + 1, *row[2:5], row[5] + 1, *row[6:]) for row in rows]


def _look_for(op: Reserve) -> Program[_Look]:
    params = [param for queue in op.queues for param in (queue, op.worker_id)]
    rows = yield Query(look_statement(len(op.queues)), params)
    due = [run_at_ms for run_at_ms, _, _ in rows if run_at_ms is not None]
    _, suspect, registered = rows[0]
    return _Look(min(due, default=None), bool(suspect), bool(registered))


# -- settle ----------------------------------------------------------------------------


def _settle(settles: list[tuple[int, Settle]], now: Moment) -> Program[dict[int, Outcome]]:
    changes: dict[str, list[tuple[Any, ...]]] = {}
    for _, op in settles:
        for statement, values in _verdict_changes(op, now):
            changes.setdefault(statement, []).append((*values, *op.key, op.worker_id))
    applied = 0
    for statement, rows in changes.items():
        ((changed,),) = yield Change(statement, rows)
        applied += changed
    if applied == len(settles):
        return {i: Settled(True) for i, _ in settles}
    # Some were refused. One that stands as it was left under this very token had been applied
    # before, and its answer lost; all else belongs to another by now.
    found = yield Query(STANDING, (json.dumps([op.key.seq for _, op in settles]),))
    standing = {(seq, token) for seq, token, state in found if state != TaskState.RUNNING}
    return {i: Settled(op.key in standing) for i, op in settles}


def _verdict_changes(op: Settle, now: Moment) -> Iterable[tuple[str, tuple[Any, ...]]]:
    match op.verdict:
        case Completed(value):
            return [(COMPLETE, (now.wall_ms, value))]
        case Failed(failure):
            error = (failure.error, failure.error_type, failure.traceback, failure.reason)
            return [(FAIL, (now.wall_ms, *error))]
        case Aborted():
            return [(ABORT, (now.wall_ms,))]
        case RetryIn(delay, failure):
            again_ms = now.wall_ms + ms(delay)
            values: tuple[Any, ...] = (
                again_ms,
                failure.error,
                failure.error_type,
                failure.traceback,
            )
            return [(ABORT_IF_ASKED, (now.wall_ms,)), (RETRY, values)]
        case Released():
            return [(ABORT_IF_ASKED, (now.wall_ms,)), (RELEASE, ())]
        case Parked(stamp, text):
            return [(ABORT_IF_ASKED, (now.wall_ms,)), (PARK, (stamp, text))]
        case _:
            assert_never(op.verdict)


# -- workers ---------------------------------------------------------------------------


def _register(op: Register, now: Moment) -> Program[Outcome]:
    row = (
        op.worker_id,
        op.host,
        op.pid,
        json.dumps(op.queues),
        op.max_concurrency,
        now.epoch,
        now.lease_ms + ms(op.lease_for),
        now.wall_ms,
    )
    yield Change(REGISTER, [row])
    return Registered()


def _renew(op: Renew, now: Moment) -> Program[Outcome]:
    row = (now.epoch, now.lease_ms + ms(op.lease_for), op.worker_id)
    ((changed,),) = yield Change(RENEW, [row])
    return Renewed() if changed else Unregistered()


def _rescue(op: Rescue, now: Moment) -> Program[Outcome]:
    dead = yield Query(DEAD, (json.dumps(op.worker_ids), now.epoch, now.lease_ms))
    tasks = 0
    for worker_id, host, pid in dead:
        for statement, row in (
            (RESCUE_ABORT, (now.wall_ms, worker_id)),
            (RESCUE_FAIL, (now.wall_ms, pid, host, worker_id)),
            (RESCUE, (worker_id,)),
        ):
            ((changed,),) = yield Change(statement, [row])
            tasks += changed
        yield Change(FORGET_WORKER, [(worker_id,)])
    return Rescued(tuple(worker_id for worker_id, _, _ in dead), tasks)


def _retire(op: Retire, now: Moment) -> Program[Outcome]:
    yield Change(RETIRE_ABORT, [(now.wall_ms, op.worker_id)])
    ((released,),) = yield Change(RETIRE_RELEASE, [(op.worker_id,)])
    yield Change(FORGET_WORKER, [(op.worker_id,)])
    return Retired(released)


def _watch(op: Watch, now: Moment) -> Program[Outcome]:
    peers = yield Query(PEERS, (now.epoch, now.lease_ms, op.worker_id))
    asked = yield Query(ASKED_TO_STOP, (op.worker_id,))
    return Watched(
        peers=tuple(worker_id for worker_id, _ in peers),
        expired=any(expired for _, expired in peers),
        cancelled=tuple(TaskKey(seq, token) for seq, token in asked),
    )


# -- upkeep and reading ----------------------------------------------------------------


def _unpark(op: Unpark, now: Moment) -> Program[Outcome]:  # noqa: ARG001
    ((count,),) = yield Change(UNPARK, [(json.dumps(op.stamps),)])
    return Unparked(count)


def _prune(op: Prune, now: Moment) -> Program[Outcome]:
    ((count,),) = yield Change(PRUNE, [(now.wall_ms - ms(op.older_than), op.limit)])
    return Pruned(count)


def _count(op: Count, now: Moment) -> Program[Outcome]:  # noqa: ARG001
    rows = yield Query(COUNT)
    return Counted(tuple((queue, TaskState(state), n) for queue, state, n in rows))


def _fetch(fetches: list[tuple[int, Fetch]]) -> Program[dict[int, Outcome]]:
    asked = sorted({task_id for _, op in fetches for task_id in op.task_ids})
    if len(asked) == 1:
        rows = yield Query(FETCH_ONE, asked)
    else:
        rows = yield Query(FETCH, (json.dumps(asked),))
    found = {row[0]: task_row(row) for row in rows}
    return {
        i: Fetched({task_id: found[task_id] for task_id in op.task_ids if task_id in found})
        for i, op in fetches
    }


# What frees comes before what takes, and what looks comes last.
_BEFORE_ENQUEUES: Final[Sequence[tuple[type, Any]]] = (
    (Retire, _retire),
    (Register, _register),
    (Renew, _renew),
    (Rescue, _rescue),
    (Unpark, _unpark),
    (Prune, _prune),
)
_AFTER_ENQUEUES: Final[Sequence[tuple[type, Any]]] = (
    (Cancel, _cancel),
    (Reserve, _reserve),
    (Watch, _watch),
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
