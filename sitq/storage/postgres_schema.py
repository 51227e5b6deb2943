"""The tables in a schema of Postgres, and how it gets from one version to the next.

The promises: a schema that is not ours is refused by name before anything is written; of several
processes that open an old one at once, whoever comes first migrates it, in one transaction; and one
of a newer version is left alone. A migration waits for the batches that are under way, and no batch
begins on a version that its program does not know: each looks at `sitq.schema_version`, whose lock
it keeps until it has committed.

Statements name tables as `sitq.tasks`; whoever runs them puts the name of the schema in its place.
"""

from collections.abc import Sequence
from typing import Final

from sitq.exceptions import ForeignFileError, NewerSchemaError
from sitq.protocol.lifecycle import TaskState
from sitq.storage.program import Commit, Program, Query
from sitq.storage.sql import HAS_ENDED

OLDEST_SERVER: Final = 130000

SUSPECT: Final = "crashes > 0 AND crashes >= max_crashes - 1"
"""A task that fails if its worker dies once more; see `sitq.storage.sqlite_schema`."""

# Texts sort by their bytes, as Python's do, and compare quicker than by a language's rules.
TASKS: Final = """
CREATE TABLE sitq.tasks (
    seq bigint NOT NULL,
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    run_at_ms bigint NOT NULL,
    enqueued_ms bigint NOT NULL,
    payload bytea NOT NULL,
    policy text,
    max_crashes bigint NOT NULL,
    token bigint NOT NULL DEFAULT 0,
    attempt bigint NOT NULL DEFAULT 0,
    crashes bigint NOT NULL DEFAULT 0,
    worker_id text COLLATE "C",
    cancel_asked boolean NOT NULL DEFAULT false,
    parked_stamp text COLLATE "C",
    started_ms bigint,
    finished_ms bigint,
    result bytea,
    error text,
    error_type text,
    traceback text,
    reason text
)
""".strip()

WORKERS: Final = """
CREATE TABLE sitq.workers (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    host text NOT NULL,
    pid bigint NOT NULL,
    queues text[] NOT NULL,
    max_concurrency bigint NOT NULL,
    lease_until_ms bigint NOT NULL,
    registered_ms bigint NOT NULL
)
""".strip()

# One index for each question of the hot path. All are partial: finished tasks are in none of
# them but the last, so history does not slow the present down. None is on seq: a task is looked
# up by its id, and an index less is a write less for each of its moves.
INDEXES: Final = (
    # the next tasks of a queue
    "CREATE INDEX tasks_queued ON sitq.tasks (queue, priority DESC, seq)"
    f" WHERE state = '{TaskState.QUEUED}'",
    # what has become due, and when the next will
    "CREATE INDEX tasks_scheduled ON sitq.tasks (queue, run_at_ms)"
    f" WHERE state = '{TaskState.SCHEDULED}'",
    # what a worker holds, and what it is asked to stop
    f"CREATE INDEX tasks_held ON sitq.tasks (worker_id) WHERE state = '{TaskState.RUNNING}'",
    # what may have killed its workers
    f"CREATE INDEX tasks_suspects ON sitq.tasks (state, worker_id) WHERE {SUSPECT}",
    # what waits for a worker that can read it
    f"CREATE INDEX tasks_parked ON sitq.tasks (parked_stamp) WHERE state = '{TaskState.PARKED}'",
    # what may be forgotten
    f"CREATE INDEX tasks_ended ON sitq.tasks (finished_ms) WHERE {HAS_ENDED}",
)

# A task is written three times in its life, each time as a new row: the dead ones are swept when
# there are some thousands, however many there are of the living. A worker's row is written every
# few seconds, in place: there is room for that in its page.
UPKEEP: Final = (
    "ALTER TABLE sitq.tasks SET (autovacuum_vacuum_scale_factor = 0.01,"
    " autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0.05,"
    " autovacuum_analyze_threshold = 5000, autovacuum_vacuum_cost_delay = 0)",
    "ALTER TABLE sitq.workers SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,"
    " autovacuum_vacuum_threshold = 500)",
)

STEPS: Final[Sequence[Sequence[str]]] = (
    (
        "CREATE TABLE sitq.schema_version (version bigint NOT NULL)",
        "INSERT INTO sitq.schema_version VALUES (0)",
        "CREATE SEQUENCE sitq.task_numbers",
        TASKS,
        WORKERS,
        *INDEXES,
        *UPKEEP,
    ),
)
"""Step n takes a schema from version n to n + 1."""

VERSION: Final = len(STEPS)

_SERVER: Final = """
    SELECT current_setting('server_version_num')::bigint, current_setting('server_version'),
        current_setting('server_encoding')
"""
_HAS_SCHEMA: Final = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1"
_RELATIONS: Final = """
    SELECT c.relname::text FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') ORDER BY 1
"""
_ONE_AT_A_TIME: Final = "SELECT pg_catalog.pg_advisory_xact_lock(1936290929, hashtext($1))"
_NO_BATCHES: Final = "LOCK TABLE sitq.schema_version IN ACCESS EXCLUSIVE MODE"


def check_schema(schema: str) -> Program[int]:
    """Return the version of the schema, 0 if it is empty; refuse what is not ours."""
    ((number, server, encoding),) = yield Query(_SERVER)
    if number < OLDEST_SERVER:
        raise ForeignFileError(
            f"this server is PostgreSQL {server}, and sitq needs {OLDEST_SERVER // 10000} or newer"
        )
    if encoding != "UTF8":
        raise ForeignFileError(
            f"this database keeps its texts in {encoding}, and sitq needs UTF8; nothing was"
            " changed. Make one by: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
    names = [name for (name,) in (yield Query(_RELATIONS, (schema,)))]
    if not names:
        return 0
    if "schema_version" not in names or "task_numbers" not in names:
        raise ForeignFileError(
            f"the schema {schema!r} is another program's (it holds {', '.join(names[:3])}); nothing"
            " was changed. Give sitq a schema of its own: PostgresBackend(dsn, schema=...)"
        )
    ((version,),) = yield Query("SELECT max(version) FROM sitq.schema_version")
    if version is None or version < 1:
        raise ForeignFileError(
            f"the schema {schema!r} does not say which version of sitq made it; nothing was"
            " changed. Restore a backup, or give sitq a schema of its own"
        )
    refuse_newer(version, schema)
    return int(version)


def refuse_newer(version: int, schema: str) -> None:
    if version > VERSION:
        raise NewerSchemaError(
            f"the schema {schema!r} has version {version}, and this sitq knows {VERSION} at most;"
            " nothing was changed. Upgrade sitq here, too"
        )


def open_schema(schema: str) -> Program[None]:
    """Make sure that the schema holds our tables at `VERSION`."""
    if (yield from check_schema(schema)) == VERSION:
        return
    yield Query("BEGIN ISOLATION LEVEL READ COMMITTED")
    yield Query(_ONE_AT_A_TIME, (schema,))
    if not (yield Query(_HAS_SCHEMA, (schema,))):
        yield Query(f'CREATE SCHEMA "{schema}"')
    version = yield from check_schema(schema)  # another process may have been here first
    if version:
        yield Query(_NO_BATCHES)
    for step in STEPS[version:]:
        for statement in step:
            yield Query(statement)
    if version < VERSION:
        yield Query("UPDATE sitq.schema_version SET version = $1", (VERSION,))
    yield Commit()
