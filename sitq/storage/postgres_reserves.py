"""How tasks are given out on Postgres.

The promises: what has become due is there before anything is given; what an answer named that was lost
is given once more; and what is in a row that cannot be read is put aside, and stays.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sitq.protocol.ops import Outcome, Reserve, Reserved, Settle, Unregistered
from sitq.storage import postgres_statements as sql
from sitq.storage.postgres_arrays import Ints, Texts
from sitq.storage.postgres_front import Front, Place
from sitq.storage.postgres_settles import settle
from sitq.storage.program import Program, Query, Row
from sitq.storage.sql import in_turn, reservations


class Given(NamedTuple):
    """What a reserve found: whether the worker is there, when the next task is due, and tasks.

    They come in turn.
    """

    registered: bool
    due_at: int | None
    rows: list[Row]

    def waits_for_promotion(self, now: int) -> bool:
        return self.registered and self.due_at is not None and self.due_at <= now

    def beside(self, rows: Sequence[Row]) -> "Given":
        """Return the same with *rows* as well."""
        return self._replace(rows=in_turn([*self.rows, *rows])) if rows else self


def reserve(reserves: list[tuple[int, Reserve]], now: int) -> Program[dict[int, Outcome]]:
    """Answer *reserves*, one after the other; each by its number."""
    outcomes: dict[int, Outcome] = {}
    for i, op in reserves:
        outcomes[i] = yield from _reserve_one(op, now)
    return outcomes


def _reserve_one(op: Reserve, now: int) -> Program[Outcome]:
    forgotten: Sequence[Row] = ()
    if op.known is not None:
        yield Query(sql.WAIT_FOR_WORKER, (op.worker_id,))
        known = Ints(op.known)
        forgotten = yield Query(sql.FORGOTTEN, (op.worker_id, known, op.limit))
    rest = op._replace(limit=op.limit - len(forgotten))
    given = yield from all_given(rest, as_given((yield next_of(op, rest.limit))), now, None)
    return (yield from reserved(op, given.beside(forgotten), now))


def all_given(op: Reserve, given: Given, now: int, place: Place | None) -> Program[Given]:
    """Return what is given once what has become due is there, and what is before *place*."""
    if given.waits_for_promotion(now):
        yield Query(sql.PROMOTE, (Texts(op.queues), now))
        return as_given((yield next_of(op, op.limit, promoted=True)))
    if place is not None and given.registered and len(given.rows) < op.limit:
        before = yield next_of(op, op.limit - len(given.rows))
        return given.beside(as_given(before).rows)
    return given


def note(op: Reserve, given: Given, front: Front) -> None:
    """Have *front* know what was found."""
    if len(op.queues) == 1:
        front.gave(op.queues[0], given.rows, op.limit)


def reserved(op: Reserve, given: Given, now: int) -> Program[Outcome]:
    """Put aside what cannot be read; return what the worker is told."""
    outcome, damaged = given_out(op, given, now)
    if damaged:
        yield from settle(damaged, now)
    return outcome


def given_out(op: Reserve, given: Given, now: int) -> tuple[Outcome, list[tuple[int, Settle]]]:
    """Return what the worker is told, and how those are put aside that it is not given."""
    if not given.registered:
        return Unregistered(), []
    tasks, damaged = reservations(given.rows, op.worker_id)
    if given.due_at is None or len(given.rows) == op.limit:
        return Reserved(tasks), damaged
    return Reserved(tasks, max(0, given.due_at - now) / 1000), damaged


def next_of(
    op: Reserve, limit: int, *, promoted: bool = False, place: Place | None = None
) -> Query:
    """Give out the next tasks; unless one is due that was not *promoted*."""
    about = op.worker_id, Texts(op.queues), limit, promoted
    if place is not None:
        return Query(sql.RESERVE_FROM_THERE, (*about, *place))
    return Query(sql.RESERVE if len(op.queues) == 1 else sql.RESERVE_FROM_SEVERAL, about)


def as_given(rows: Sequence[Row]) -> Given:
    """Read what `next_of` has returned."""
    registered, due_at, *_ = rows[0]
    given = in_turn([row[2:] for row in rows if row[2] is not None])
    return Given(registered, due_at, given)
