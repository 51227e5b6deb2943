"""Group commit: many requests, one transaction at a time.

    IDLE        --Submitted-->               COMMITTING
    COMMITTING  --Submitted-->               COMMITTING   (the request waits)
    COMMITTING  --Committed, some wait-->    COMMITTING   (the next batch)
    COMMITTING  --Committed, none wait-->    IDLE

The promise: `Resolve` leaves this machine only in answer to the `Committed` event of the
batch that holds the request. There is no linger timer: the batch that forms while the disk
is busy is the coalescing.

Ops submitted together are one group. A group is never split over two transactions.
"""

from collections import deque
from enum import Enum
from typing import Final, NamedTuple, TypeAlias, assert_never

from sitq.protocol.message import message
from sitq.protocol.ops import Enqueue, Op, Outcome

MAX_BATCH: Final = 500
"""Tasks in one transaction: beyond some hundreds a batch gets longer but no cheaper."""


class Blame(Enum):
    """What a failed transaction says of its ops."""

    STORE = "store"
    """The disk or a lock refused; nothing was stored, and no op is at fault."""
    OP = "op"
    """Nothing was stored, and one of the ops may be at fault."""
    UNKNOWN = "unknown"
    """It was cut off inside COMMIT: all of it is stored, or none."""


@message
class Group(NamedTuple):
    """Ops of one caller, answered together.

    One that goes *along* was asked because of another that is submitted with it.
    """

    ticket: int
    ops: tuple[Op, ...]
    along: bool = False

    @property
    def size(self) -> int:
        """Tasks and other ops in it; 1 at least, so that half of a batch is less than it."""
        size = 0
        for op in self.ops:
            size += len(op.tasks) if type(op) is Enqueue else 1
        return size or 1


# -- events ----------------------------------------------------------------------------


@message
class Submitted(NamedTuple):
    groups: tuple[Group, ...]


@message
class Committed(NamedTuple):
    batch_id: int
    outcomes: tuple[Outcome, ...]


@message
class CommitFailed(NamedTuple):
    batch_id: int
    error: Exception
    blame: Blame


@message
class CloseRequested(NamedTuple):
    pass


CommitEvent: TypeAlias = Submitted | Committed | CommitFailed | CloseRequested

# -- effects ---------------------------------------------------------------------------


@message
class Commit(NamedTuple):
    """Apply *ops* in one transaction; answered by `Committed` or `CommitFailed`."""

    batch_id: int
    ops: tuple[Op, ...]


@message
class Resolve(NamedTuple):
    ticket: int
    outcomes: tuple[Outcome, ...]


@message
class Reject(NamedTuple):
    """Nothing of this group was stored; if *error* is None, the backend has been closed."""

    ticket: int
    error: Exception | None


@message
class Doubt(NamedTuple):
    """Whether this group was stored is not known."""

    ticket: int
    error: Exception


@message
class Close(NamedTuple):
    """All that was submitted has been answered."""


CommitEffect: TypeAlias = Commit | Resolve | Reject | Doubt | Close


class CommitMachine:
    def __init__(self, *, max_batch: int = MAX_BATCH) -> None:
        assert max_batch > 0
        self._max_batch = max_batch
        self._waiting: deque[Group] = deque()
        self._in_flight: tuple[Group, ...] = ()
        self._together = 0  # groups in the last batch, without those that went along
        self._batch_id = 0
        self._closing = False
        self._closed = False

    @property
    def is_at_leisure(self) -> bool:
        """Whether nothing is under way, and the last batch held what one caller had asked.

        What comes now need not wait for company.
        """
        return self._together <= 1 and not self._in_flight and not self._waiting

    def next_deadline(self) -> float | None:
        return None  # no timers, by design

    def receive(self, event: CommitEvent, now: float) -> list[CommitEffect]:  # noqa: ARG002
        """Take in *event*; return what to do, in order."""
        limit = self._max_batch
        effects: list[CommitEffect] = []
        match event:
            case Submitted():
                if self._closing:
                    effects += [Reject(group.ticket, None) for group in event.groups]
                else:
                    self._waiting.extend(event.groups)
            case Committed():
                if not self._is_awaited(event.batch_id):
                    return []
                effects += self._resolve(self._land(), event.outcomes)
            case CommitFailed(batch_id, error, blame):
                if not self._is_awaited(batch_id):
                    return []
                groups = self._land()
                if blame is Blame.UNKNOWN:
                    effects += [Doubt(group.ticket, error) for group in groups]
                elif blame is Blame.OP and len(groups) > 1:
                    # Halve until the one at fault stands alone; its neighbours go through.
                    self._waiting.extendleft(reversed(groups))
                    limit = sum(group.size for group in groups[: len(groups) // 2])
                else:
                    effects += [Reject(group.ticket, error) for group in groups]
            case CloseRequested():
                self._closing = True
            case _:
                assert_never(event)
        if self._waiting and not self._in_flight:
            effects.insert(0, self._take_off(limit))  # the disk first, then the callers
        if self._closing and not self._in_flight and not self._closed:
            self._closed = True
            effects.append(Close())
        return effects

    def _take_off(self, limit: int) -> Commit:
        first = self._waiting.popleft()
        groups, ops = [first], first.ops
        self._together = 1
        if self._waiting:
            size = first.size
            while self._waiting and (size := size + self._waiting[0].size) <= limit:
                groups.append(self._waiting.popleft())
            ops = tuple([op for group in groups for op in group.ops])
            self._together = len(groups) - sum(group.along for group in groups)
        self._in_flight = tuple(groups)
        self._batch_id += 1
        return Commit(self._batch_id, ops)

    def _is_awaited(self, batch_id: int) -> bool:
        """Whether an answer is the first to its batch; what comes twice counts once."""
        assert batch_id <= self._batch_id, "an answer to a batch that was never asked for"
        return bool(self._in_flight) and batch_id == self._batch_id

    def _land(self) -> tuple[Group, ...]:
        groups, self._in_flight = self._in_flight, ()
        return groups

    def _resolve(
        self, groups: tuple[Group, ...], outcomes: tuple[Outcome, ...]
    ) -> list[CommitEffect]:
        effects: list[CommitEffect] = []
        start = 0
        for group in groups:
            end = start + len(group.ops)
            effects.append(Resolve(group.ticket, outcomes[start:end]))
            start = end
        assert start == len(outcomes), "every op has one outcome"
        return effects
