"""A storage program: a generator that yields statements and is sent their rows.

The program says what to run and decides on what comes back; a driver runs it. The program
begins and commits; rolling back is the driver's, for only it knows that a program has died.
A program uses no `try/finally` around a yield, so it may be dropped at any of them: that is
how the simulator crashes between two statements.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from sitq.protocol.message import message

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]


@message
class Query(NamedTuple):
    """Run one statement; the program is sent its rows."""

    sql: str
    params: Sequence[Any] = ()


@message
class Change(NamedTuple):
    """Run one statement once for each of *rows*.

    The program is sent one row, of one number: how many rows of the table were changed.
    """

    sql: str
    rows: Sequence[Sequence[Any]]


@message
class Together(NamedTuple):
    """Send several statements at once: each is run unless one before it has failed.

    The program is sent one row for each of them: its rows. If one has failed, all is rolled back
    and the program is sent nothing: it goes on one by one, and whatever is wrong shows again. If it
    *commits*, the last of them makes it last, as `Commit` does.
    """

    queries: tuple[Query, ...]
    commits: bool = False


@message
class Commit(NamedTuple):
    """Make it last. A failure of this step leaves the outcome unknown to whoever asked."""


Step: TypeAlias = Query | Together | Change | Commit
Program: TypeAlias = Generator[Step, Sequence[Row], T]


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    value: T


def resume(program: Program[T], rows: Sequence[Row] | None) -> Step | Done[T]:
    """Run *program* to its next step. The one place where StopIteration is caught."""
    try:
        return program.send(rows)  # type: ignore[arg-type]  # None starts a generator
    except StopIteration as stop:
        return Done(stop.value)
