"""How a Postgres server is made a witness: which batches it has committed, and what they changed.

Each batch puts its name into a table before its COMMIT, and triggers write each change of a task's
row into another, with the number of the transaction. Both are kept or undone with the batch itself;
so what became of a COMMIT whose answer was lost, the server says.

The order of the batches is that of their names, which bear the time of the clock that all processes
of this machine share, after the last statement and before the COMMIT. Who has waited for a row, or
has seen a change, has that time after the one who made it. Two batches of which neither has seen
the other may come in either order; so what a reserve has passed over, because another had it locked
or had not committed it yet, is not judged here: see `UNJUDGED`.
"""

import json
import os
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import sitq.adapters.postgres
import sitq.storage.postgres_settles
from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import Cancel, Cancelled, Moment, Op, Outcome
from sitq.storage import postgres_statements as sql
from sitq.storage.postgres import READS
from sitq.storage.program import Commit, Done, Program, Query, Step, Together, resume
from sitq.testing.simulation.history import Batch, Kind
from sitq.testing.simulation.row_triggers import COLUMNS, changed
from torture.kept import Changes, Kept
from torture.server import Server
from torture.witness import Stored

if TYPE_CHECKING:
    from torture.witness import Witness

EPOCH: Final = "the server's clock"
UNJUDGED: Final = frozenset({"S21", "S24"})
"""Who comes first, where many reserve at once and each passes over what the others have locked; and
whether the server's own files are whole.
"""

MUTANTS: Final = {
    "unfenced": ("COMPLETE", "AND token = its_token AND worker_id = its_worker", ""),
}
"""Bugs to be planted, to see them found: in which statement, what is replaced, and by what."""

TABLES: Final = """
CREATE SCHEMA torture;
CREATE TABLE torture.batches (name text PRIMARY KEY, xid xid8 NOT NULL);
CREATE TABLE torture.rows (
    n bigserial, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), old jsonb, new jsonb
);
CREATE FUNCTION torture.saw() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO torture.rows (old, new) VALUES (
        to_jsonb(OLD) - '{payload, result, traceback, error, policy}'::text[],
        to_jsonb(NEW) - '{payload, result, traceback, error, policy}'::text[]
    );
    RETURN NULL;
END $$;
CREATE TRIGGER saw AFTER INSERT OR UPDATE OR DELETE ON sitq.tasks
    FOR EACH ROW EXECUTE FUNCTION torture.saw();
"""
_NAME: Final = "INSERT INTO torture.batches VALUES ($1, pg_current_xact_id())"
_CHANGES: Final = """
    SELECT json_build_array(b.name, r.old, r.new)
    FROM torture.batches b LEFT JOIN torture.rows r USING (xid) ORDER BY r.n
"""


def plant(mutant: str) -> None:
    """Plant a bug of `MUTANTS` into the statements of this process."""
    statement, old, new = MUTANTS[mutant]
    right: str = getattr(sql, statement)
    assert old in right
    wrong = right.replace(old, new)
    columns: dict[str, Any] = sitq.storage.postgres_settles.COLUMNS
    columns[wrong] = columns[right]
    setattr(sql, statement, wrong)


def watch(here: "Witness") -> None:
    """Have each batch of this process name itself."""
    module: Any = sitq.adapters.postgres
    apply_batch: Callable[..., Program[tuple[Outcome, ...]]] = module.apply_batch
    numbers = count()

    def apply_batch_watched(ops: Sequence[Op], *more: Any) -> Program[tuple[Outcome, ...]]:
        program = apply_batch(ops, *more)
        begun: Any = None
        may_commit = False
        step: Step | Done[Any] = resume(program, None)
        while not isinstance(step, Commit | Done):
            if may_commit:  # and goes on in another transaction, with a time of its own
                yield Commit()
                begun = None
            # The name is put in before the COMMIT, which therefore goes alone.
            may_commit, sent = False, step
            if isinstance(step, Together) and step.commits:
                may_commit, sent = True, Together(step.queries[:-1])
            rows = yield sent
            if isinstance(step, Together):
                begun = rows[1] if rows else None
                may_commit = may_commit and bool(rows)
                rows = [*rows, ()] if may_commit else rows
            else:
                begun = begun or rows
            step = resume(program, rows)
        if isinstance(step, Done) and not may_commit:
            alone: tuple[Outcome, ...] = step.value
            return alone
        end = step if isinstance(step, Done) else resume(program, ())
        assert isinstance(end, Done)
        outcomes: tuple[Outcome, ...] = end.value
        if any(type(op) not in READS for op in ops):
            name = f"{os.getpid()}-{next(numbers)}"
            yield Query(_NAME, (name,))
            now_ms = begun[0][0]
            batch = Batch(tuple(ops), outcomes, Moment(now_ms, now_ms, EPOCH))
            here.note(Kind.BATCH, value=Stored(name, batch, ()))
        yield Commit()
        for op, outcome in zip(ops, outcomes, strict=True):
            if isinstance(op, Cancel) and isinstance(outcome, Cancelled):
                here.note(Kind.CANCELLED, op.task_id, value=outcome.was)
        return outcomes

    module.apply_batch = apply_batch_watched


def kept_in_database(server: Server, database: str) -> Kept:
    rows = server.sql("SELECT id, state FROM sitq.tasks", database)
    committed: dict[str, list[tuple[str, Any]]] = {}
    for (line,) in server.sql(_CHANGES, database):
        name, old, new = json.loads(line)
        changes = committed.setdefault(name, [])
        if old or new:
            changes.append(_change(old, new))

    def changes_of(records: Sequence[Stored]) -> list[Changes | None]:
        found = [committed.get(str(stored.number)) for stored in records]
        return [None if changes is None else _lasting(changes) for changes in found]

    return Kept(
        {task_id: TaskState(state) for task_id, state in rows},
        is_whole=True,
        changes=changes_of,
        may_be_away=True,
        unjudged=UNJUDGED,
    )


def _change(old: dict[str, Any] | None, new: dict[str, Any] | None) -> tuple[str, Any]:
    row = new or old
    assert row is not None
    of = "both" if old and new else "new" if new else "old"
    values = [(side or {}).get(column) for side in (old, new) for column in COLUMNS]
    return changed(of, row["id"], *values)


def _lasting(changes: list[tuple[str, Any]]) -> Changes:
    """Leave out what was stored and taken back before anybody could see it."""
    lasting: list[tuple[str, Any]] = []
    own: set[str] = set()
    for id_, change in changes:
        if change.old is None:
            own.add(id_)
        if change.new is None and id_ in own:
            lasting = [(other, before) for other, before in lasting if other != id_]
        else:
            lasting.append((id_, change))
    return tuple(lasting)
