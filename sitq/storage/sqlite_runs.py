"""Which rows one statement can change: those that are alike, and numbered without a gap.

A statement for each row costs twice as much as one for many, and lets the event loop's thread and the
store's contend for the interpreter each time. Tasks that were enqueued together are mostly given out
together, and end together; and many have the same result, since their functions return nothing.

The promise: a run holds the numbers that were given and no others, so its statement changes the rows
that one statement for each would have changed. Where nothing is alike, each is a run of its own.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def runs(rows: Sequence[tuple[int, T]]) -> Iterator[tuple[int, int, T]]:
    """Yield the first and the last number of each run, and what its rows have in common.

    *rows* are numbers, and what is to be done to each; one at least.
    """
    first, what = rows[0]
    last = first
    for seq, same in rows[1:]:
        if seq == last + 1 and same == what:
            last = seq
        else:
            yield first, last, what
            first = last = seq
            what = same
    yield first, last, what
