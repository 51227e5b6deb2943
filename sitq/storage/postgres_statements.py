"""What is asked of Postgres: every statement, and why it is right where many write at once.

- A batch is `READ COMMITTED`, whatever the server's default is: each statement sees what had been
  committed when it began, and an UPDATE that has waited for a row looks at its guard again.
- The row of a worker is what its reserves and its end are ordered by. A reserve locks it
  `FOR KEY SHARE`, which its renewals do not mind; who retires or rescues the worker locks it
  `FOR UPDATE`, and only then looks for its tasks. So nothing is given to a worker that is gone, and
  nothing that was given goes unseen.
- Who looks for something to do passes over what others have locked; nobody waits to take the same.
- Rows are locked in the order of their ids, where there are several. Where two still come to wait
  for each other, the server lets one of them fail, and it is asked again.
- The state of a task is guarded by `TRANSITIONS`, and a running one by its token and worker too.

Statements name tables as `sitq.tasks`; whoever runs them puts the name of the schema in its place.
"""

from typing import Final

from sitq.protocol.lifecycle import Move, TaskState
from sitq.storage.postgres_schema import SUSPECT, VERSION
from sitq.storage.sql import HAS_ENDED, RESERVATION, allows, moves_to

PROMOTE_LIMIT: Final = 1000
"""Tasks that one reserve takes from scheduled to queued: what is left goes with the next."""

PASSED_OVER: Final = 20
"""Tasks locked by others in each of several queues, that a reserve passes over at little cost."""

# A connection that is lost in the midst of a batch leaves its locks to the server; who waits for
# them waits no longer than that.
IDLE_LIMIT_MS: Final = 5_000
LOCK_LIMIT_MS: Final = 5_000
AWAIT_LIMIT_MS: Final = 100
"""How long a reserve waits for what was announced."""

# Settings are made for this transaction alone: behind a pooler, the next may be somebody else's.
# The time is one of them, for the statements that are sent before it has been answered. On a schema
# of a newer version there is none, and they fail.
_NOW_IS: Final = "sitq_batch.now"
NOW: Final = f"(SELECT current_setting('{_NOW_IS}')::bigint)"
_LIMITS: Final = f"""
        set_config('idle_in_transaction_session_timeout', '{IDLE_LIMIT_MS}', true),
        set_config('lock_timeout', '{LOCK_LIMIT_MS}', true)"""

# Each statement has an index to go by, so it is planned once, and not by how little there was to
# read at that moment: the plan is still in use when there is much.
_PLANS: Final = """
        set_config('plan_cache_mode', 'force_generic_plan', true),
        set_config('enable_seqscan', 'off', true),
        set_config('enable_bitmapscan', 'off', true),
        set_config('jit', 'off', true)"""


def _look_up(settings: str) -> str:
    return f"""
    SELECT clock.now, schema.version,
        set_config('{_NOW_IS}', CASE WHEN schema.version <= {VERSION} THEN clock.now::text END, true),
        {settings}
    FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now) AS clock,
        sitq.schema_version AS schema
"""


TELL_NOW: Final = f"SELECT set_config('{_NOW_IS}', $1, true)"
"""Whoever wants another time says so after the look-up."""

LOOK_UP: Final = _look_up(f"{_LIMITS.strip()},{_PLANS}")
BEGIN_ALONE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
COMMIT: Final = "COMMIT"

# One round trip: no parameters, so several statements are sent as one.
BEGIN: Final = f"{BEGIN_ALONE}; {LOOK_UP}"
BEGIN_READING: Final = (
    f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_look_up(_LIMITS.strip())}"
)


def _count(change: str) -> str:
    return f"WITH changed AS ({change} RETURNING 1) SELECT count(*) FROM changed"


# -- enqueue and cancel ----------------------------------------------------------------

EXISTING: Final = "SELECT id, state, payload FROM sitq.tasks WHERE id = ANY ($1)"

# Tasks that are new, as far as anybody knows, and due at once. An id that is taken after all is an
# error, and decided upon by the statement below: to look out for it costs a third more.
ENQUEUE_NEW: Final = f"""
    INSERT INTO sitq.tasks
        (seq, id, queue, name, state, priority, run_at_ms, enqueued_ms, payload, policy,
            max_crashes)
    SELECT numbered.seq, id, queue, name, '{TaskState.QUEUED}', priority, {NOW}, {NOW}, payload,
        policy, max_crashes
    FROM (
        SELECT nextval('sitq.task_numbers') AS seq, new.* FROM unnest(
            $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::text[], $7::bigint[]
        ) AS new (id, queue, name, priority, payload, policy, max_crashes)
    ) AS numbered
    ORDER BY id
"""

# Numbers are given in the order of the tasks, and rows are put in by the order of their ids: two
# who enqueue the same ids do not wait for each other crosswise.
ENQUEUE: Final = """
    INSERT INTO sitq.tasks
        (seq, id, queue, name, state, priority, run_at_ms, enqueued_ms, payload, policy,
            max_crashes)
    SELECT * FROM (
        SELECT nextval('sitq.task_numbers') AS seq, new.* FROM unnest(
            $1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
            $7::bigint[], $8::bytea[], $9::text[], $10::bigint[]
        ) AS new (id, queue, name, state, priority, run_at_ms, enqueued_ms, payload, policy,
            max_crashes)
    ) AS numbered
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
"""

TAKE_BACK: Final = _count("DELETE FROM sitq.tasks WHERE id = ANY ($1)")

FIND: Final = """
    SELECT id, seq, token, state, worker_id FROM sitq.tasks WHERE id = ANY ($1)
    ORDER BY id FOR UPDATE
"""

CANCEL: Final = _count(f"""
    UPDATE sitq.tasks SET {moves_to(Move.CANCEL)}, reason = 'user', finished_ms = $1
    WHERE id = ANY ($2) AND {allows(Move.CANCEL)}
""")

# Not a move: the task runs on until its holder hears of it.
ASK_TO_STOP: Final = _count(f"""
    UPDATE sitq.tasks SET cancel_asked = true WHERE id = ANY ($1) AND {allows(Move.ABORT)}
""")

# -- reserve ---------------------------------------------------------------------------

# Run by every reserve that finds something due, so there is no process that stages it.
PROMOTE: Final = _count(f"""
    UPDATE sitq.tasks SET {moves_to(Move.PROMOTE)} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM sitq.tasks
        WHERE {allows(Move.PROMOTE)} AND queue = ANY ($1) AND run_at_ms <= $2
        ORDER BY run_at_ms LIMIT {PROMOTE_LIMIT} FOR UPDATE SKIP LOCKED
    ))
""")

# One statement for the whole of it. *me* is empty if the worker's row is gone; then nothing is
# given. Nor is it while something is due that was not promoted: the program does that, and asks
# again. One suspect at most is let through, and none to a worker that holds one: it is the only one
# who reserves in its name. There is one row at least: without a task, it tells how things stand.
_RESERVE: Final = f"""
    WITH me AS MATERIALIZED (
        SELECT 1 FROM sitq.workers WHERE id = $1 FOR KEY SHARE
    ), due AS MATERIALIZED (
        SELECT min(first.run_at_ms) AS at FROM unnest($2::text[]) AS asked (its_queue)
        CROSS JOIN LATERAL (
            SELECT run_at_ms FROM sitq.tasks WHERE {allows(Move.PROMOTE)} AND queue = its_queue
            ORDER BY run_at_ms LIMIT 1
        ) AS first
    ), allowed AS MATERIALIZED (
        SELECT CASE WHEN EXISTS (SELECT FROM me) AND ($4 OR coalesce(due.at > {NOW}, true))
            THEN $3 ELSE 0 END AS tasks FROM due
    ), suspect AS MATERIALIZED (
        SELECT id FROM sitq.tasks
        WHERE {SUSPECT} AND {allows(Move.RESERVE)} AND queue = ANY ($2) AND NOT EXISTS (
            SELECT FROM sitq.tasks
            WHERE {SUSPECT} AND {allows(Move.COMPLETE)} AND worker_id = $1
        )
        ORDER BY priority DESC, seq LIMIT 1 FOR UPDATE SKIP LOCKED
    ), next AS MATERIALIZED (
        @next
    ), given AS (
        UPDATE sitq.tasks
        SET {moves_to(Move.RESERVE)}, token = token + 1, attempt = attempt + 1, worker_id = $1,
            started_ms = {NOW}
        WHERE ctid = ANY (ARRAY(SELECT place FROM next))
            AND CASE WHEN {allows(Move.RESERVE)} THEN true END
        RETURNING {RESERVATION}
    )
    SELECT EXISTS (SELECT FROM me), due.at, given.* FROM due LEFT JOIN given ON true
"""

_MAY_BE_GIVEN: Final = f"""{allows(Move.RESERVE)} AND queue = its_queue
                AND (NOT ({SUSPECT}) OR id = (SELECT id FROM suspect))"""

# Of one queue, the next are locked as they are found.
RESERVE: Final = _RESERVE.replace(
    "@next",
    f"""SELECT first.place FROM unnest($2::text[]) AS asked (its_queue)
        CROSS JOIN LATERAL (
            SELECT ctid AS place FROM sitq.tasks WHERE {_MAY_BE_GIVEN}
            ORDER BY priority DESC, seq LIMIT (SELECT tasks FROM allowed) FOR UPDATE SKIP LOCKED
        ) AS first""",
)

# The same from one place on, $5 and $6, for who knows that there is nothing before it: see
# `postgres_front`. What is more urgent is looked for all the same.
_FROM_THERE: Final = f"""SELECT place FROM (
                SELECT ctid AS place FROM sitq.tasks WHERE {_MAY_BE_GIVEN} AND @where
                ORDER BY priority DESC, seq LIMIT (SELECT tasks FROM allowed)
                FOR UPDATE SKIP LOCKED
            ) AS its"""
RESERVE_FROM_THERE: Final = _RESERVE.replace(
    "@next",
    f"""SELECT first.place FROM unnest($2::text[]) AS asked (its_queue)
        CROSS JOIN LATERAL (
            {_FROM_THERE.replace("@where", "priority > $5")}
            UNION ALL {_FROM_THERE.replace("@where", "priority = $5 AND seq >= $6")}
            UNION ALL {_FROM_THERE.replace("@where", "priority < $5")}
            LIMIT (SELECT tasks FROM allowed)
        ) AS first""",
)

# Of several queues, none is locked that is not taken: others would pass it over meanwhile, and find
# nothing. So the first of each queue are looked at, and locked by the order of all of them. Where so
# many of them were locked by others that some are missing, the rest comes queue by queue.
_LOOKED_AT: Final = f"(SELECT CASE tasks WHEN 0 THEN 0 ELSE tasks + {PASSED_OVER} END FROM allowed)"
RESERVE_FROM_SEVERAL: Final = _RESERVE.replace(
    "), next AS MATERIALIZED (",
    f"""), seen AS MATERIALIZED (
        SELECT first.*, its_queue FROM unnest($2::text[]) AS asked (its_queue)
        CROSS JOIN LATERAL (
            SELECT ctid AS place, priority, seq FROM sitq.tasks WHERE {_MAY_BE_GIVEN}
            ORDER BY priority DESC, seq LIMIT {_LOOKED_AT}
        ) AS first
    ), best AS MATERIALIZED (
        SELECT locked.place FROM (SELECT place FROM seen ORDER BY priority DESC, seq) AS its
        CROSS JOIN LATERAL (
            SELECT ctid AS place FROM sitq.tasks WHERE ctid = its.place AND {allows(Move.RESERVE)}
            FOR UPDATE SKIP LOCKED
        ) AS locked
        LIMIT (SELECT tasks FROM allowed)
    ), missing AS MATERIALIZED (
        SELECT CASE
            WHEN EXISTS (SELECT FROM seen GROUP BY its_queue HAVING count(*) >= {_LOOKED_AT})
            THEN tasks - (SELECT count(*) FROM best) ELSE 0 END AS tasks
        FROM allowed
    ), next AS MATERIALIZED (""",
).replace(
    "@next",
    f"""SELECT place FROM best
        UNION ALL (
            SELECT first.place FROM unnest($2::text[]) AS asked (its_queue)
            CROSS JOIN LATERAL (
                SELECT ctid AS place, priority, seq FROM sitq.tasks
                WHERE {_MAY_BE_GIVEN} AND ctid <> ALL (ARRAY(SELECT place FROM best))
                ORDER BY priority DESC, seq LIMIT (SELECT tasks FROM missing)
                FOR UPDATE SKIP LOCKED
            ) AS first
            ORDER BY first.priority DESC, first.seq LIMIT (SELECT tasks FROM missing)
        )""",
)

# Whose answer was lost may be at it still, on a connection that is not there any more: wait for it.
WAIT_FOR_WORKER: Final = "SELECT 1 FROM sitq.workers WHERE id = $1 FOR UPDATE"

# What a lost answer has given to a worker.
FORGOTTEN: Final = f"""
    SELECT {RESERVATION} FROM sitq.tasks
    WHERE worker_id = $1 AND {allows(Move.COMPLETE)} AND seq <> ALL ($2) ORDER BY seq LIMIT $3
"""

# -- settle ----------------------------------------------------------------------------


def _settle(move: Move, sets: str, columns: tuple[str, ...] = (), also: str = "") -> str:
    """Make *move* for each of many attempts; *columns* are the types of what each brings along.

    They are called `v1`, `v2`, and so on. The guard is a CASE, which the planner does not see
    through: else it may take the index of all that is running for a short cut. And `= ANY` has the
    rows be looked up one by one. By a mere `=`, a table that was empty when it was last swept was read
    from end to end for each batch, however many tasks it had by then.
    """
    arrays = "".join(f", ${n}::{kind}[]" for n, kind in enumerate(columns, 5))
    names = "".join(f", v{n}" for n, _ in enumerate(columns, 1))
    return _count(f"""
    UPDATE sitq.tasks SET {moves_to(move)}, {sets}
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]{arrays})
        AS its (its_id, its_seq, its_token, its_worker{names})
    WHERE id = ANY (ARRAY[its_id]) AND seq = its_seq AND token = its_token AND worker_id = its_worker
        AND CASE WHEN {allows(move)} THEN true END{also}
    """)


_GIVEN_BACK: Final = "attempt = attempt - 1, worker_id = NULL, started_ms = NULL"
_NOT_ASKED: Final = " AND NOT cancel_asked"

COMPLETE: Final = _settle(
    Move.COMPLETE,
    f"finished_ms = {NOW}, result = v1, error = NULL, error_type = NULL, traceback = NULL",
    ("bytea",),
)
FAIL: Final = _settle(
    Move.FAIL,
    f"finished_ms = {NOW}, error = v1, error_type = v2, traceback = v3, reason = v4",
    ("text", "text", "text", "text"),
)
ABORT: Final = _settle(Move.ABORT, f"finished_ms = {NOW}, reason = 'user'")

# A task that was asked to stop does not come back by any of the three ways below.
ABORT_IF_ASKED: Final = _settle(
    Move.ABORT, f"finished_ms = {NOW}, reason = 'user'", also=" AND cancel_asked"
)
RETRY: Final = _settle(
    Move.RETRY,
    f"run_at_ms = {NOW} + v1, error = v2, error_type = v3, traceback = v4, worker_id = NULL",
    ("bigint", "text", "text", "text"),
    _NOT_ASKED,
)
RELEASE: Final = _settle(Move.RELEASE, _GIVEN_BACK, also=_NOT_ASKED)
PARK: Final = _settle(
    Move.PARK, f"{_GIVEN_BACK}, parked_stamp = v1, error = v2", ("text", "text"), _NOT_ASKED
)

STANDING: Final = "SELECT seq, token, state FROM sitq.tasks WHERE id = ANY ($1)"

# -- workers ---------------------------------------------------------------------------

REGISTER: Final = """
    INSERT INTO sitq.workers
        (id, host, pid, queues, max_concurrency, lease_until_ms, registered_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (id) DO UPDATE SET lease_until_ms = excluded.lease_until_ms
"""

RENEW: Final = _count("UPDATE sitq.workers SET lease_until_ms = $1 WHERE id = $2")

# The lease is judged here, in the transaction that acts on it. Who is renewing it at this moment,
# or rescuing its tasks, has locked the row: then there is nothing to do.
DEAD: Final = """
    SELECT id, host, pid FROM sitq.workers WHERE id = ANY ($1) OR lease_until_ms <= $2
    ORDER BY id FOR UPDATE SKIP LOCKED
"""

# A rescue gives a new token, which fences the worker off even where it had lost its lease without
# dying.
RESCUE_ABORT: Final = _count(f"""
    UPDATE sitq.tasks
    SET {moves_to(Move.ABORT)}, token = token + 1, finished_ms = $1, reason = 'user'
    WHERE worker_id = ANY ($2) AND {allows(Move.ABORT)} AND cancel_asked
""")

RESCUE_FAIL: Final = _count(f"""
    UPDATE sitq.tasks
    SET {moves_to(Move.FAIL)}, token = token + 1, crashes = crashes + 1, finished_ms = $1,
        error = 'the worker died ' || (crashes + 1)
            || CASE crashes WHEN 0 THEN ' time' ELSE ' times' END
            || ' while running this task (last: pid ' || its_pid || ' on ' || its_host || ')',
        error_type = 'WorkerDied', traceback = NULL, reason = 'crash'
    FROM unnest($2::text[], $3::text[], $4::bigint[]) AS its (its_worker, its_host, its_pid)
    WHERE worker_id = its_worker AND {allows(Move.FAIL)} AND crashes + 1 >= max_crashes
""")

RESCUE: Final = _count(f"""
    UPDATE sitq.tasks
    SET {moves_to(Move.RESCUE)}, token = token + 1, crashes = crashes + 1, {_GIVEN_BACK}
    WHERE worker_id = ANY ($1) AND {allows(Move.RESCUE)}
""")

# A retirement gives a new token as well: what comes from this worker later is not its own.
RETIRE_RELEASE: Final = _count(f"""
    UPDATE sitq.tasks SET {moves_to(Move.RELEASE)}, token = token + 1, {_GIVEN_BACK}
    WHERE worker_id = ANY ($1) AND {allows(Move.RELEASE)}
""")

FORGET_WORKERS: Final = _count("DELETE FROM sitq.workers WHERE id = ANY ($1)")

PEERS: Final = "SELECT id, lease_until_ms <= $1 FROM sitq.workers WHERE id <> $2 ORDER BY id"

ASKED_TO_STOP: Final = f"""
    SELECT seq, token FROM sitq.tasks
    WHERE worker_id = $1 AND {allows(Move.ABORT)} AND cancel_asked ORDER BY seq
"""

# -- upkeep and reading ----------------------------------------------------------------

UNPARK: Final = _count(f"""
    UPDATE sitq.tasks SET {moves_to(Move.UNPARK)}, parked_stamp = NULL, error = NULL
    WHERE {allows(Move.UNPARK)} AND parked_stamp = ANY ($1)
""")

# The task that was numbered last stays, as it does in the other stores.
PRUNE: Final = f"""
    WITH pruned AS (
        DELETE FROM sitq.tasks WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM sitq.tasks
            WHERE {HAS_ENDED} AND finished_ms >= $1 AND finished_ms <= $2
                AND seq <> (SELECT last_value FROM sitq.task_numbers)
            ORDER BY finished_ms LIMIT $3 FOR UPDATE SKIP LOCKED
        )) RETURNING finished_ms
    )
    SELECT count(*), max(finished_ms) FROM pruned
"""

FETCH: Final = """
    SELECT id, name, queue, state, attempt, crashes, enqueued_ms, started_ms, finished_ms,
        result, error, error_type, traceback, reason
    FROM sitq.tasks WHERE id = ANY ($1)
"""

COUNT: Final = """
    SELECT queue, state, count(*) FROM sitq.tasks GROUP BY queue, state ORDER BY queue, state
"""

# -- hints to other processes -----------------------------------------------------------

LISTENERS: Final = 1936290930
"""The first key of the advisory lock that shows that somebody wants to hear of ends."""

# A transaction that notifies takes a lock of the whole server when it commits. These are
# transactions of their own, after the batch: that lock is then never held while a disk is waited
# for.
RING: Final = "SELECT pg_notify($1, $2)"

# What was announced holds its lock from here until it is committed.
ANNOUNCE: Final = "SELECT pg_advisory_lock($3), pg_notify($1, $2)"
ARRIVED: Final = "SELECT pg_advisory_unlock($1)"

# Who looks for what was announced waits for that, but not for long: it has other things to do.
AWAIT: Final = f"""
    SELECT set_config('lock_timeout', '{AWAIT_LIMIT_MS}', true), pg_advisory_xact_lock_shared(key)
    FROM unnest($1::bigint[]) AS key
"""

RING_IF_WANTED: Final = f"""
    SELECT count(pg_notify($1, body)) FROM unnest($2::text[]) AS body WHERE EXISTS (
        SELECT FROM pg_catalog.pg_locks
        WHERE locktype = 'advisory' AND classid = {LISTENERS} AND objid = hashtext($3)::oid
            AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    )
"""

SHOW_THAT_ENDS_ARE_WANTED: Final = f"SELECT pg_advisory_lock_shared({LISTENERS}, hashtext($1))"
