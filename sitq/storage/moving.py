"""How tasks leave one store for another: every step as a program, for both dialects.

The promises, if the steps are taken in this order, whoever is killed between any two of them:
- `fence` takes tasks that wait out of everybody's reach, in the store that they leave. It is the
  last moment at which that store could have run them.
- `put` stores them in the other one, out of reach as well; `drop` forgets them in the first; and
  only then `restore` lets the second one run them. So none can be run in both, and none is in
  neither: a task that is on its way is in one store fenced, or in the other one coming, or both.
- A task that has ended is history: it is put as it is, and dropped.
- A task that runs is left alone.

A task is out of reach by being parked under a stamp that no serializer has. The stamp says what it
was before. Of a task on its way the first store has the last word: it may be cancelled there, and
then comes over as one that has ended.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sitq.protocol.lifecycle import FINAL, TaskState
from sitq.storage.postgres_arrays import Texts
from sitq.storage.postgres_schema import refuse_newer
from sitq.storage.postgres_statements import BEGIN
from sitq.storage.program import Change, Commit, Program, Query, Row
from sitq.storage.sql import HAS_ENDED

AWAY: Final = "sitq-away:"
"""Before the state and stamp of a task that is fenced where it was."""
COMING: Final = "sitq-coming:"
"""Before those of one that was put where it goes to."""
LAST: Final = "sitq-last"
"""The id of a row that only keeps a number: SQLite would give it to another task."""

COLUMNS: Final = (
    "id", "queue", "name", "state", "priority", "run_at_ms", "enqueued_ms", "payload", "policy",
    "max_crashes", "token", "attempt", "crashes", "worker_id", "cancel_asked", "parked_stamp",
    "started_ms", "finished_ms", "result", "error", "error_type", "traceback", "reason",
)  # fmt: skip
_ID, _STATE, _PAYLOAD, _STAMP, _FINISHED = (
    COLUMNS.index(name) for name in ("id", "state", "payload", "parked_stamp", "finished_ms")
)
_WORKER: Final = COLUMNS.index("worker_id")
_INSERT: Final = f"""
    INSERT INTO @tasks ({", ".join(COLUMNS)})
    VALUES ({", ".join(f"${n}" for n in range(1, len(COLUMNS) + 1))}) ON CONFLICT (id) DO NOTHING
"""
_IS_COMING: Final = f"(state = 'parked' AND coalesce(parked_stamp, '') LIKE '{COMING}%')"
_WAITS: Final = "state IN ('scheduled', 'queued', 'parked')"
_SELECT: Final = ", ".join(COLUMNS)


_PARAMETER: Final = re.compile(r"\$(\d+)")


class Dialect(NamedTuple):
    """What differs between the two; a statement is written for Postgres, with `@` where it does."""

    tasks: str
    begin: str
    among: str
    """All of the texts of a list that is the first parameter."""
    locked: str
    keeps_numbers: bool
    """Whether the number of a row that is gone is never given to another."""
    numbers_parameters: bool
    """Whether they are written `$1`, `$2`; Python's SQLite takes a list only for `?`."""
    list_of: Callable[[Sequence[str]], Any]
    """Makes the parameter of `among`."""
    bool_of: Callable[[Any], Any]
    schema: str = ""
    """For messages."""

    def sql(self, text: str) -> str:
        for name in ("tasks", "among", "locked"):
            text = text.replace(f"@{name}", getattr(self, name))
        return text

    def query(self, text: str, *params: Any) -> Query:
        sql = self.sql(text)
        if self.numbers_parameters:
            return Query(sql, params)
        each = [params[int(number) - 1] for number in _PARAMETER.findall(sql)]
        return Query(_PARAMETER.sub("?", sql), each)


SQLITE: Final = Dialect(
    tasks="sitq_tasks",
    begin="BEGIN IMMEDIATE",
    among="(SELECT value FROM json_each($1))",
    locked="",
    keeps_numbers=False,
    numbers_parameters=False,
    list_of=json.dumps,
    bool_of=int,
)


def postgres(schema: str) -> Dialect:
    return Dialect(
        tasks="sitq.tasks",
        begin=BEGIN,
        among="(SELECT unnest($1::text[]))",
        locked="FOR UPDATE",
        keeps_numbers=True,
        numbers_parameters=True,
        list_of=Texts,
        bool_of=bool,
        schema=schema,
    )


def _begin(d: Dialect) -> Program[None]:
    found = yield Query(d.begin)
    for _now, version, *_ in found:  # of Postgres; whoever runs programs for SQLite looks himself
        refuse_newer(version, d.schema)


class Found(NamedTuple):
    """What stands in the second store under an id."""

    state: TaskState
    stamp: str
    payload: bytes
    finished_ms: int | None

    @property
    def is_coming(self) -> bool:
        return self.state is TaskState.PARKED and self.stamp.startswith(COMING)

    @property
    def is_fenced(self) -> bool:
        """Say whether it is about to leave that store, too: nobody may count on it there."""
        return self.state is TaskState.PARKED and self.stamp.startswith(AWAY)


def is_fenced(row: Row) -> bool:
    return row[_STATE] == TaskState.PARKED and (row[_STAMP] or "").startswith(AWAY)


def has_ended(row: Row) -> bool:
    return row[_STATE] in FINAL


def same_task(row: Row, found: Found) -> bool:
    """Say whether an id that is taken is taken by this very task, asked for in both stores."""
    return bool(row[_PAYLOAD] == found.payload)


def same_end(row: Row, found: Found) -> bool:
    """Say whether a task that has ended stands there as it ended, or was cancelled there, too."""
    if not same_task(row, found) or row[_STATE] != found.state:
        return False
    return found.state is TaskState.CANCELLED or row[_FINISHED] == found.finished_ms


# -- in the store that they leave ----------------------------------------------------------


def movable(d: Dialect, limit: int) -> Program[list[str]]:
    """Return the ids of tasks that do not run, the oldest first."""
    rows = yield d.query(
        f"""
        SELECT id FROM @tasks WHERE state <> 'running' AND id <> '{LAST}'
            AND NOT {_IS_COMING} ORDER BY seq LIMIT $1
        """,
        limit,
    )
    return [id_ for (id_,) in rows]


def waiting(d: Dialect) -> Program[int]:
    """Count the tasks that are neither moved nor ended: those that run, above all."""
    ((count,),) = yield d.query(
        f"SELECT count(*) FROM @tasks WHERE NOT ({HAS_ENDED}) AND NOT {_IS_COMING}"
    )
    return int(count)


def fence(d: Dialect, ids: Sequence[str]) -> Program[list[Row]]:
    """Fence those of *ids* that wait; return them, and those that have ended."""
    yield from _begin(d)
    yield d.query(
        f"""
        UPDATE @tasks SET state = 'parked',
            parked_stamp = '{AWAY}' || state || ':' || coalesce(parked_stamp, '')
        WHERE id IN @among AND {_WAITS} AND coalesce(parked_stamp, '') NOT LIKE 'sitq-%'
        """,
        d.list_of(ids),
    )
    rows = yield d.query(
        f"SELECT {_SELECT} FROM @tasks WHERE id IN @among ORDER BY seq", d.list_of(ids)
    )
    yield Commit()
    return [row for row in rows if is_fenced(row) or has_ended(row)]


def drop(d: Dialect, rows: Sequence[Row]) -> Program[list[str]]:
    """Forget those of *rows* that stand as they were read, fenced or ended; return their ids.

    One that was cancelled meanwhile stays, and comes over once more, by that end.
    """
    ended = {row[_ID] for row in rows if has_ended(row)}
    yield from _begin(d)
    standing = yield d.query(
        f"""
        SELECT id, seq, state FROM @tasks WHERE id IN @among
            AND ({HAS_ENDED} OR (state = 'parked' AND parked_stamp LIKE '{AWAY}%'))
        ORDER BY id @locked
        """,
        d.list_of([row[_ID] for row in rows]),
    )
    going = {seq: id_ for id_, seq, state in standing if (state in FINAL) == (id_ in ended)}
    gone = list(going.values())
    if not d.keeps_numbers:
        yield from _keep_the_last_number(d, going)
    yield d.query("DELETE FROM @tasks WHERE id IN @among", d.list_of(gone))
    yield Commit()
    return gone


def _keep_the_last_number(d: Dialect, going: dict[int, str]) -> Program[None]:
    """Leave a row in the place of the newest, if that is *going*.

    SQLite would give its number to the next task, whose tokens would be those of one before.
    """
    ((last,),) = yield d.query("SELECT max(seq) FROM @tasks")
    yield d.query(f"DELETE FROM @tasks WHERE id = '{LAST}' AND seq < $1", last or 0)
    if last in going:
        yield d.query(
            f"""
            UPDATE @tasks SET id = '{LAST}', state = 'cancelled', reason = 'moved', result = NULL,
                finished_ms = enqueued_ms, parked_stamp = NULL, payload = $2, error = NULL,
                error_type = NULL, traceback = NULL
            WHERE seq = $1
            """,
            last,
            b"",
        )


def existing(d: Dialect, ids: Sequence[str]) -> Program[set[str]]:
    rows = yield d.query("SELECT id FROM @tasks WHERE id IN @among", d.list_of(ids))
    return {id_ for (id_,) in rows}


# -- in the store that they go to ----------------------------------------------------------


def coming(d: Dialect, limit: int) -> Program[list[str]]:
    """Return what somebody has put, who has not come back to let it go."""
    rows = yield d.query(
        f"SELECT id FROM @tasks WHERE {_IS_COMING} LIMIT $1",
        limit,
    )
    return [id_ for (id_,) in rows]


def put(d: Dialect, rows: Sequence[Row]) -> Program[dict[str, Found]]:
    """Store *rows*, unless their ids are taken; return what stands there now, by id."""
    ended = [row[_ID] for row in rows if has_ended(row)]
    yield from _begin(d)
    if ended:  # they were cancelled on their way
        yield d.query(
            f"DELETE FROM @tasks WHERE id IN @among AND {_IS_COMING}",
            d.list_of(ended),
        )
    yield from _insert(d, [_as_it_comes(d, row) for row in rows])
    found = yield d.query(
        "SELECT id, state, parked_stamp, payload, finished_ms FROM @tasks WHERE id IN @among",
        d.list_of([row[_ID] for row in rows]),
    )
    yield Commit()
    return {
        id_: Found(TaskState(state), stamp or "", payload, finished_ms)
        for id_, state, stamp, payload, finished_ms in found
    }


def _insert(d: Dialect, rows: Sequence[Row]) -> Program[None]:
    if not d.keeps_numbers:
        yield Change(_PARAMETER.sub("?", d.sql(_INSERT)), rows)
        return
    for row in rows:
        yield d.query(
            _INSERT.replace("@tasks (", "@tasks (seq, ").replace(
                "VALUES (", "VALUES (nextval('sitq.task_numbers'), "
            ),
            *row,
        )


def _as_it_comes(d: Dialect, row: Row) -> Row:
    values = list(row)
    values[COLUMNS.index("cancel_asked")] = d.bool_of(row[COLUMNS.index("cancel_asked")])
    if not has_ended(row):
        values[_STAMP] = COMING + row[_STAMP].removeprefix(AWAY)
        values[_WORKER] = None
    return tuple(values)


# -- in either ---------------------------------------------------------------------------


def which_database(d: Dialect) -> Program[tuple[str, str]]:
    """Return what no other database has: a server's copy was started at another moment."""
    ((started, database),) = yield d.query(
        "SELECT pg_postmaster_start_time()::text, current_database()::text"
    )
    return started, database


def restore(d: Dialect, prefix: str, ids: Sequence[str]) -> Program[int]:
    """Make those of *ids* what they were, that are out of reach by *prefix*; return how many."""
    yield from _begin(d)
    rows = yield d.query(
        f"""
        SELECT id, parked_stamp FROM @tasks WHERE id IN @among AND state = 'parked'
            AND parked_stamp LIKE '{prefix}%' ORDER BY id @locked
        """,
        d.list_of(ids),
    )
    groups: dict[str, list[str]] = {}
    for id_, stamp in rows:
        groups.setdefault(stamp, []).append(id_)
    for stamp, members in groups.items():
        state, _, parked = stamp.removeprefix(prefix).partition(":")
        yield d.query(
            "UPDATE @tasks SET state = $2, parked_stamp = $3 WHERE id IN @among",
            d.list_of(members),
            state,
            parked or None,
        )
    yield Commit()
    return len(rows)
