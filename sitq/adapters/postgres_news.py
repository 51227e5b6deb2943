"""What is told to other processes of what was committed: by NOTIFY, after the batch.

A few new tasks that are alone in their batch are told of ahead of it: see `postgres_announced`.
That tasks have ended is told only if somebody wants to hear of it, which is looked up now and then.
"""

from collections.abc import Sequence
from typing import Final

from sitq.adapters import clocks
from sitq.adapters.bells import Want
from sitq.adapters.hints import ended_by, gives_work
from sitq.adapters.postgres_connection import Connection, PostgresSettings
from sitq.protocol.ops import Enqueue, Op, Outcome
from sitq.storage.postgres_arrays import Texts
from sitq.storage.postgres_statements import (
    ANNOUNCE,
    BEGIN_ALONE,
    COMMIT,
    RING,
    RING_IF_WANTED,
)
from sitq.storage.program import Query

LONGEST_PAYLOAD: Final = 7000
"""Bytes: the server takes less than 8,000."""
MOST_IDS: Final = 10_000
RING_EVERY: Final = 0.01
"""Seconds between two rings, where one batch follows upon the other."""
MOST_TOGETHER: Final = 100
"""New tasks of a batch that goes together with its bell: no longer than that takes, others wait."""
LOOK_EVERY: Final = 0.05
"""Seconds for which ends are collected, where nobody wanted to hear of the last ones."""


def channel(schema: str, want: Want) -> str:
    return f"{schema}_{want}"


class News:
    """What has been committed, and was not told yet."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._work = False
        self._ended: list[str] = []
        self._rang_at = self._unwanted_at = -LOOK_EVERY

    @property
    def due_in(self) -> float | None:
        """Seconds until something is to be told; None if there is nothing."""
        if self._work:
            due_at = self._rang_at + RING_EVERY
        elif self._ended:
            due_at = max(self._rang_at + RING_EVERY, self._unwanted_at + LOOK_EVERY)
        else:
            return None
        return max(0.0, due_at - clocks.monotonic())

    def bell_of(self, ops: Sequence[Op]) -> Query | None:
        """Return what tells of *ops*, if it may be told at once: it goes along with the COMMIT."""
        due = clocks.monotonic() >= self._rang_at + RING_EVERY
        tells = due and self._settings.listen and gives_work(ops, ())
        return self._ring() if tells and _new_tasks(ops) <= MOST_TOGETHER else None

    def announcement(self, key: int) -> Sequence[Query]:
        """Return what tells of a batch ahead of it."""
        about = channel(self._settings.schema, Want.WORK), f"{self._settings.origin}\n{key}", key
        return Query(BEGIN_ALONE), Query(ANNOUNCE, about), Query(COMMIT)

    def _ring(self) -> Query:
        return Query(RING, (channel(self._settings.schema, Want.WORK), self._settings.origin))

    def add(self, ops: Sequence[Op], outcomes: Sequence[Outcome], *, rang: bool = False) -> None:
        """Take note of what was committed; if it *rang*, others know already that there is work."""
        if self._settings.listen:
            if rang:
                self._rang_at = clocks.monotonic()
            self._work = not rang and (self._work or gives_work(ops, outcomes))
            self._ended += ended_by(ops, outcomes)
            del self._ended[:-MOST_IDS]

    def note(self, want: Want, ids: Sequence[str]) -> None:
        """Take in what was committed otherwise than by ops."""
        if want is Want.WORK:
            self._work = True
        else:
            self._ended += ids

    def clear(self) -> None:
        self._work = False
        self._ended.clear()

    async def tell(self, connection: Connection) -> None:
        schema, origin = self._settings.schema, self._settings.origin
        work, ended = self._work, _payloads(origin, self._ended)
        self.clear()
        self._rang_at = clocks.monotonic()
        if work:
            await connection.ask(*self._ring())
        if ended:
            about = (channel(schema, Want.ENDS), Texts(ended), schema)
            ((told,),) = await connection.ask(RING_IF_WANTED, about)
            if not told:
                self._unwanted_at = clocks.monotonic()


def _new_tasks(ops: Sequence[Op]) -> int:
    return sum(len(op.tasks) for op in ops if type(op) is Enqueue)


def _payloads(origin: str, ids: Sequence[str]) -> list[str]:
    """Return *ids* as the bodies of notifications, each of which begins with its origin."""
    payloads: list[str] = []
    lines: list[str] = []
    size = 0
    for id_ in ids:
        more = len(id_.encode()) + 1
        if size + more > LONGEST_PAYLOAD:
            payloads.append("\n".join([origin, *lines]))
            lines, size = [], 0
        lines.append(id_)
        size += more
    if lines:
        payloads.append("\n".join([origin, *lines]))
    return payloads
