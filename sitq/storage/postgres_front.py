"""Where to look, for one connection that takes or forgets many tasks in a row.

On Postgres, a task that is given out leaves its entry in the index of the queue behind, until the
table is swept; so does one that is forgotten, in the index of those that have ended. Whoever looks
from the beginning steps over all of them: after a million, that takes longer than all the rest. So who
has taken many looks from where it has found the last ones.

The promise: order is kept, but for a task that comes behind that place while many of its priority
are given out, one batch after the other: it is tried again, its worker has died, or others that were
numbered after it were committed first. It may have to wait for as many as `LOOK_AGAIN_AFTER` of those
that should come later. Where a queue runs out, nothing waits.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sitq.storage.program import Row

MANY: Final = 1_000
"""Tasks that are taken without a break before it is worth it."""
LOOK_AGAIN_AFTER: Final = 20_000
"""Tasks that are taken until it is looked from the beginning again: some 8 ms, for each million."""
BEGINNING: Final = 0
"""Milliseconds since 1970: no task has ended before."""


class Place(NamedTuple):
    """No task of this priority, and before this one, is to be found."""

    priority: int
    seq: int


class Front:
    """Where to look in each queue; and *pruned_to*, before which no task is left that has ended."""

    def __init__(self) -> None:
        self.pruned_to = BEGINNING
        self._taken: dict[str, int] = {}
        self._places: dict[str, Place] = {}

    def of(self, queue: str) -> Place | None:
        """Return where to look; None: from the beginning."""
        return self._places.get(queue)

    def gave(self, queue: str, rows: Sequence[Row], limit: int) -> None:
        """Take note of what was given, in its order; as many as *limit*, unless it has run out.

        A row has the columns of `RESERVATION`.
        """
        taken = self._taken.get(queue, 0) + len(rows)
        self.forget(queue)
        if len(rows) < limit:
            return
        if taken >= LOOK_AGAIN_AFTER:
            taken = MANY
        elif taken >= MANY:
            priority = rows[-1][8]
            first = next(row for row in rows if row[8] == priority)
            self._places[queue] = Place(priority, first[0])
        self._taken[queue] = taken

    def forget(self, queue: str) -> None:
        """Look from the beginning."""
        self._taken.pop(queue, None)
        self._places.pop(queue, None)

    def forget_all(self) -> None:
        """Nobody knows what became of what was given."""
        self._taken.clear()
        self._places.clear()
        self.pruned_to = BEGINNING
