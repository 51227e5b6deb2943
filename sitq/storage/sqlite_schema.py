"""The tables in an SQLite file, and how a file gets from one version to the next.

The promises: a file that is not ours is refused by name before anything is written; of
several processes that open an old file at once, whoever comes first migrates it, in one
transaction; and a file of a newer version is left alone.

All names begin with `sitq_`, so that one day the tables may stand in an application's own
file.
"""

from collections.abc import Sequence
from typing import Final

from sitq.exceptions import ForeignFileError, NewerSchemaError
from sitq.protocol.lifecycle import FINAL, TaskState
from sitq.storage.program import Change, Commit, Program, Query, Row

_FINAL: Final = ", ".join(sorted(f"'{state}'" for state in FINAL))

TASKS: Final = """
CREATE TABLE sitq_tasks (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    run_at_ms INTEGER NOT NULL,
    enqueued_ms INTEGER NOT NULL,
    payload BLOB NOT NULL,
    policy TEXT,
    max_crashes INTEGER NOT NULL,
    token INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    worker_id TEXT,
    cancel_asked INTEGER NOT NULL DEFAULT 0,
    parked_stamp TEXT,
    started_ms INTEGER,
    finished_ms INTEGER,
    result BLOB,
    error TEXT,
    error_type TEXT,
    traceback TEXT,
    reason TEXT
) STRICT
""".strip()

WORKERS: Final = """
CREATE TABLE sitq_workers (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    queues TEXT NOT NULL,
    max_concurrency INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    registered_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID
""".strip()

# One index for each question of the hot path. All are partial: finished tasks are in none of
# them but the one on when they ended, so history does not slow the present down.
INDEXES: Final = (
    # the next tasks of a queue
    "CREATE INDEX sitq_tasks_queued ON sitq_tasks (queue, priority DESC, seq)"
    f" WHERE state = '{TaskState.QUEUED}'",
    # what has become due, and when the next will
    "CREATE INDEX sitq_tasks_scheduled ON sitq_tasks (queue, run_at_ms)"
    f" WHERE state = '{TaskState.SCHEDULED}'",
    # what a worker holds
    f"CREATE INDEX sitq_tasks_held ON sitq_tasks (worker_id) WHERE state = '{TaskState.RUNNING}'",
    # what a worker is asked to stop
    "CREATE INDEX sitq_tasks_asked ON sitq_tasks (worker_id)"
    f" WHERE state = '{TaskState.RUNNING}' AND cancel_asked = 1",
    # what waits for a worker that can read it
    "CREATE INDEX sitq_tasks_parked ON sitq_tasks (parked_stamp)"
    f" WHERE state = '{TaskState.PARKED}'",
    # what may be forgotten (until version 3)
    f"CREATE INDEX sitq_tasks_ended ON sitq_tasks (finished_ms) WHERE state IN ({_FINAL})",
)

SCHEMA: Final = "CREATE TABLE sitq_schema (version INTEGER NOT NULL) STRICT"

SUSPECT: Final = "crashes > 0 AND crashes >= max_crashes - 1"
"""A task that fails if its worker dies once more.

A worker is given one of these at a time. Tasks that were together when a worker died are each
charged for it; before it costs one of them its life, they are told apart.
"""

SUSPECTS: Final = (
    f"CREATE INDEX sitq_tasks_suspects ON sitq_tasks (state, worker_id) WHERE {SUSPECT}"
)

# What may be forgotten. An `IN` in the condition of an index has SQLite build a table of its values
# whenever a row is written, which cost more than all else of it; and no task has this column but one
# that has ended.
FINISHED: Final = (
    "DROP INDEX sitq_tasks_ended",
    "CREATE INDEX sitq_tasks_finished ON sitq_tasks (finished_ms) WHERE finished_ms IS NOT NULL",
)

STEPS: Final[Sequence[Sequence[str]]] = (
    (SCHEMA, TASKS, WORKERS, *INDEXES),
    (SUSPECTS,),
    FINISHED,
)
"""Step n takes a file from version n to n + 1.

Each changes the schema: that is how those notice who have the file open at an older version.
"""

VERSION: Final = len(STEPS)

_OBJECTS: Final = """
    SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name
"""


def check_database(path: str) -> Program[int]:
    """Refuse a file that is not ours; write nothing. *path* is for messages."""
    return (yield from _version((yield Query(_OBJECTS)), path))


def open_database(path: str) -> Program[None]:
    """Make sure that the file holds our tables at `VERSION`."""
    if (yield from check_database(path)) == VERSION:
        return
    yield Query("BEGIN IMMEDIATE")
    version = yield from check_database(path)  # another process may have been here first
    for step in STEPS[version:]:
        for statement in step:
            yield Query(statement)
    if version < VERSION:
        yield Change("DELETE FROM sitq_schema", [()])
        yield Change("INSERT INTO sitq_schema (version) VALUES (?)", [(VERSION,)])
    yield Commit()


def check_again(path: str) -> Program[None]:
    """Refuse a file that was ours, and that somebody has changed the schema of meanwhile."""
    version = yield from check_database(path)
    if version != VERSION:
        raise ForeignFileError(
            f"{path!r} had schema version {VERSION} when it was opened, and has {version} now;"
            " nothing was changed. Start this program again once nobody writes into the file"
        )


def _version(objects: Sequence[Row], path: str) -> Program[int]:
    """Return the version of the file, 0 if it is empty; refuse what is not ours."""
    if not objects:
        return 0
    if SCHEMA not in {statement for _, _, statement in objects}:
        found = ", ".join(sorted(name for _, name, _ in objects)[:3])
        raise ForeignFileError(
            f"{path!r} is an SQLite file of another program (it holds {found}); nothing was"
            " changed. Give sitq a file of its own"
        )
    rows = yield Query("SELECT max(version) FROM sitq_schema")
    version = int(rows[0][0] or 0)
    if version > VERSION:
        raise NewerSchemaError(
            f"{path!r} has schema version {version}, and this sitq knows {VERSION} at most;"
            " nothing was changed. Upgrade sitq here, too"
        )
    if version < 1:
        raise ForeignFileError(
            f"{path!r} does not say which version of sitq made it; nothing was changed. Restore a"
            " backup, or give sitq a file of its own"
        )
    expected = {statement for step in STEPS[:version] for statement in step}
    for kind, name, sql in objects:
        # SQLite keeps that prefix for itself: what ANALYZE leaves, say.
        if sql not in expected and not name.startswith("sqlite_"):
            raise ForeignFileError(
                f"{path!r} holds a {kind} named {name!r} that sitq did not make; nothing was"
                " changed. Drop it if it is yours: a trigger or a view in this file would run"
                " with the rights of every worker"
            )
    return version
