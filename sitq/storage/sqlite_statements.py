"""What is asked of SQLite: every statement, and the index that serves it.

- Each change of a task's state is guarded by the states from which `TRANSITIONS` allows it, and those
  of a running task by its token and its worker too.
- Each statement of the hot path is served by an index that is named in `sqlite_schema`.
"""

from functools import cache
from typing import Final

from sitq.protocol.lifecycle import Move
from sitq.storage.sql import HAS_ENDED, RESERVATION, allows, moves_to
from sitq.storage.sqlite_schema import SUSPECT

PROMOTE_LIMIT: Final = 1000
"""Tasks that one reserve takes from scheduled to queued: what is left goes with the next."""


# -- enqueue and cancel ----------------------------------------------------------------

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

# -- reserve ---------------------------------------------------------------------------

# Run by every reserve that finds something due, so there is no process that stages it.
# Served by sitq_tasks_scheduled.
PROMOTE: Final = f"""
    UPDATE sitq_tasks SET {moves_to(Move.PROMOTE)} WHERE seq IN (
        SELECT seq FROM sitq_tasks WHERE {allows(Move.PROMOTE)} AND queue = ? AND run_at_ms <= ?
        ORDER BY run_at_ms LIMIT {PROMOTE_LIMIT}
    )
"""

# Served by sitq_tasks_queued.
NEXT: Final = f"""
        SELECT {RESERVATION} FROM sitq_tasks WHERE {allows(Move.RESERVE)} AND queue = ?
        ORDER BY priority DESC, seq LIMIT ?
"""

# The same without suspects, but for one of them.
NEXT_WITH_ONE_SUSPECT: Final = f"""
        SELECT {RESERVATION} FROM sitq_tasks WHERE {allows(Move.RESERVE)} AND queue = ?
            AND (NOT ({SUSPECT}) OR seq = ?)
        ORDER BY priority DESC, seq LIMIT ?
"""

# By their keys, of a run of rows (see `sqlite_runs`): a `RETURNING`, or an `IN (SELECT ...)`, has SQLite
# build a table for the occasion, at the price of ten such changes. So it does where it goes by an index
# from which the rows are removed: a `+` keeps it from that.
TAKE: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.RESERVE)}, token = token + 1, attempt = attempt + 1, worker_id = ?,
        started_ms = ?
    WHERE seq BETWEEN ? AND ? AND +{allows(Move.RESERVE)}
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
def next_statement(queues: int, next_: str = NEXT) -> str:
    """The next tasks of so many queues: the best of each, and the best of those."""
    if queues == 1:
        return next_
    best = " UNION ALL ".join([f"SELECT * FROM ({next_})"] * queues)
    return f"SELECT {RESERVATION} FROM ({best}) ORDER BY priority DESC, seq LIMIT ?"


# -- settle ----------------------------------------------------------------------------

_HELD: Final = "seq = ? AND token = ? AND worker_id = ?"

# Of a run of rows, as above.
COMPLETE: Final = f"""
    UPDATE sitq_tasks
    SET {moves_to(Move.COMPLETE)}, finished_ms = ?, result = ?,
        error = NULL, error_type = NULL, traceback = NULL
    WHERE seq BETWEEN ? AND ? AND token = ? AND +worker_id = ? AND +{allows(Move.COMPLETE)}
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

# -- workers ---------------------------------------------------------------------------

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

# -- upkeep and reading ----------------------------------------------------------------

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
