"""What is done within a transaction of the caller's, of whatever kind that is.

The promises:
- It neither begins nor ends, and sets nothing: how long to wait for a lock is the caller's to say.
- No migration takes place until the caller's end, as for any batch.
- Others are told by the server itself, as soon as the caller has committed.
- A finish changes its row, or is refused: also where an earlier transaction has finished the same
  attempt. So what one attempt does is committed once.
"""

from typing import Final, NamedTuple

from sitq.exceptions import StoreError
from sitq.protocol.lifecycle import Move
from sitq.protocol.ops import Completed, Enqueue, Enqueued, Outcome, Settle, Settled
from sitq.storage.postgres import enqueue
from sitq.storage.postgres_arrays import Blobs, Texts
from sitq.storage.postgres_schema import refuse_newer
from sitq.storage.postgres_statements import RING, RING_IF_WANTED
from sitq.storage.program import Program, Query
from sitq.storage.sql import allows, moves_to

LOOK_UP: Final = """
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
        (SELECT version FROM sitq.schema_version), current_setting('transaction_read_only') = 'on'
"""

# The row is locked until the caller's transaction has ended: until then nobody rescues it.
FINISH: Final = f"""
    UPDATE sitq.tasks
    SET {moves_to(Move.COMPLETE)}, finished_ms = $4, result = ($5::bytea[])[1], error = NULL,
        error_type = NULL, traceback = NULL
    WHERE id = $1 AND seq = $2 AND token = $3 AND {allows(Move.COMPLETE)}
    RETURNING 1
"""

SPOIL: Final = "SELECT 'sitq: this attempt is over, so its transaction is rolled back'::bigint"
"""It fails, and from then on the transaction can only be rolled back."""

FROM_OUTSIDE: Final = ""
"""Where a notification comes from that every process is to hear."""


class Place(NamedTuple):
    """*work* and *ends* are the channels on which others are told, None if nobody is."""

    schema: str
    work: str | None
    ends: str | None


def apply_within(op: Enqueue | Settle, place: Place) -> Program[Outcome]:
    """Apply *op* in the transaction that is open."""
    ((now, version, is_read_only),) = yield Query(LOOK_UP)
    refuse_newer(version, place.schema)
    if is_read_only:
        raise StoreError(
            "this transaction may only read, and nothing was stored: begin one that may write, on a"
            " server that takes writes"
        )
    if isinstance(op, Enqueue):
        return (yield from _enqueue(op, now, place))
    return (yield from _finish(op, now, place))


def _enqueue(op: Enqueue, now: int, place: Place) -> Program[Outcome]:
    outcomes = yield from enqueue([(0, op)], now)
    if place.work is not None and isinstance(outcomes[0], Enqueued):
        yield Query(RING, (place.work, FROM_OUTSIDE))
    return outcomes[0]


def _finish(op: Settle, now: int, place: Place) -> Program[Outcome]:
    assert isinstance(op.verdict, Completed)
    about = (op.task_id, *op.key, now, Blobs([op.verdict.value]))
    if not (yield Query(FINISH, about)):
        return Settled(False)
    if place.ends is not None:
        told = Texts([f"{FROM_OUTSIDE}\n{op.task_id}"])
        yield Query(RING_IF_WANTED, (place.ends, told, place.schema))
    return Settled(True)
