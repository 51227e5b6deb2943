"""How verdicts are stored on Postgres.

The promises: all that are of one kind go with one statement; each is fenced by its task, its token and
its worker; and what was refused is told from what had been applied before.
"""

from typing import Any, Final, assert_never

from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import (
    Aborted,
    Completed,
    Failed,
    Outcome,
    Parked,
    Released,
    RetryIn,
    Settle,
    Settled,
)
from sitq.storage import postgres_statements as sql
from sitq.storage.postgres_arrays import Blobs, Ints, Texts
from sitq.storage.program import Program, Query
from sitq.storage.sql import ms


def settle(settles: list[tuple[int, Settle]], now: int) -> Program[dict[int, Outcome]]:  # noqa: ARG001
    """Store them; return the outcome of each, by its number."""
    applied = 0
    for change in changes_of(settles):
        ((changed,),) = yield change
        applied += changed
    return (yield from settled(settles, applied))


def changes_of(settles: list[tuple[int, Settle]]) -> list[Query]:
    """Return the statements that make all of the changes; each returns how many it has made."""
    changes: dict[str, list[tuple[Settle, tuple[Any, ...]]]] = {}
    for _, op in settles:
        for statement, values in _verdict_changes(op):
            changes.setdefault(statement, []).append((op, values))
    queries = []
    for statement, each in changes.items():
        each.sort(key=_id_of)
        ops = [op for op, _ in each]
        kinds = COLUMNS.get(statement, ())
        columns = zip(kinds, zip(*(values for _, values in each), strict=True), strict=True)
        params = (
            Texts([op.task_id for op in ops]),
            Ints([op.key.seq for op in ops]),
            Ints([op.key.token for op in ops]),
            Texts([op.worker_id for op in ops]),
            *(kind(column) for kind, column in columns),
        )
        queries.append(Query(statement, params))
    return queries


def settled(settles: list[tuple[int, Settle]], applied: int) -> Program[dict[int, Outcome]]:
    """Return the outcomes, once so many of them were *applied*."""
    if applied == len(settles):
        return {i: Settled(True) for i, _ in settles}
    # Some were refused. One that stands as it was left under this very token had been applied
    # before, and its answer lost; all else belongs to another by now.
    found = yield Query(sql.STANDING, (Texts(op.task_id for _, op in settles),))
    standing = {(seq, token) for seq, token, state in found if state != TaskState.RUNNING}
    return {i: Settled(op.key in standing) for i, op in settles}


def _id_of(change: tuple[Settle, tuple[Any, ...]]) -> str:
    return change[0].task_id


COLUMNS: Final[dict[str, tuple[type[Ints] | type[Texts] | type[Blobs], ...]]] = {
    sql.COMPLETE: (Blobs,),
    sql.FAIL: (Texts, Texts, Texts, Texts),
    sql.RETRY: (Ints, Texts, Texts, Texts),
    sql.PARK: (Texts, Texts),
}
"""What a statement is told of each, beside whose it is."""


def _verdict_changes(op: Settle) -> list[tuple[str, tuple[Any, ...]]]:
    match op.verdict:
        case Completed(value):
            return [(sql.COMPLETE, (value,))]
        case Failed(failure):
            error = (failure.error, failure.error_type, failure.traceback, failure.reason)
            return [(sql.FAIL, error)]
        case Aborted():
            return [(sql.ABORT, ())]
        case RetryIn(delay, failure):
            again = (ms(delay), failure.error, failure.error_type, failure.traceback)
            return [(sql.ABORT_IF_ASKED, ()), (sql.RETRY, again)]
        case Released():
            return [(sql.ABORT_IF_ASKED, ()), (sql.RELEASE, ())]
        case Parked(stamp, text):
            return [(sql.ABORT_IF_ASKED, ()), (sql.PARK, (stamp, text))]
        case _:
            assert_never(op.verdict)
