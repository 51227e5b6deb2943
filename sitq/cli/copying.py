"""`sitq copy`: the tasks of a live queue move into another store, and are run in one of the two.

The promises, if it is killed between any two steps and run again:
- Nothing is lost, and nothing runs twice for it: see `sitq.storage.moving`.
- Producers and workers may go on in both stores. What runs is left until it has ended, or its
  worker is dead and it was taken back.
- A task keeps its id, priority, attempts, times, result and error. In the second store it comes
  after those that were there before.
- An id that another task has there stays where it is, and is told of.
"""

import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, Protocol, TypeVar

import click

from sitq.adapters import clocks
from sitq.adapters.base import BatchError
from sitq.adapters.bells import NoBells, Want, bells_in
from sitq.adapters.sqlite import SqliteSettings, SqliteStore
from sitq.adapters.sqlite_file import checked_path
from sitq.cli import queue_file
from sitq.cli.places import is_server, named
from sitq.cli.terminal import shown
from sitq.exceptions import StoreError, ValidationError
from sitq.storage import moving
from sitq.storage.moving import AWAY, COMING, SQLITE, Dialect, Found, postgres
from sitq.storage.program import Program, Row

T = TypeVar("T")

BATCH: Final = 100
"""Tasks that are out of reach at a time."""
PASS: Final = 10_000
"""Ids that are looked up at a time."""
LOOK_EVERY: Final = 0.5
SHOWN_IDS: Final = 10


class _Runs(Protocol):
    def run(self, make: Callable[[], Program[T]]) -> T: ...


class _Rings(Protocol):
    def ring(self, want: Want, ids: Sequence[str] = ()) -> None: ...


@dataclass(frozen=True)
class Side:
    """One of the two stores; *bells* tell the workers and waiters there."""

    store: _Runs
    dialect: Dialect
    name: str
    bells: _Rings = field(default_factory=NoBells)

    def run(self, program: Callable[..., Program[T]], *args: object) -> T:
        try:
            return self.store.run(lambda: program(self.dialect, *args))
        except BatchError as error:
            raise error.error from error


@dataclass
class Mover:
    """Moves what is in *source* to *target*."""

    source: Side
    target: Side
    moved: int = 0
    taken: set[str] = field(default_factory=set)
    """Ids that another task has in *target*."""
    is_stopped: Callable[[], bool] = bool
    """Asked before each batch: what is under way is moved to its end."""

    def run(self) -> int:
        """Move all that can be moved now; return how many it were."""
        before = self.moved
        self._let_go_of_what_was_left()
        goes_on = True
        while goes_on:
            goes_on = False
            for ids in self._batches():
                if self.is_stopped():
                    return self.moved - before
                goes_on = self._move(ids) or goes_on
        return self.moved - before

    def _batches(self) -> Iterator[list[str]]:
        found = self.source.run(moving.movable, PASS + len(self.taken))
        ids = [id_ for id_ in found if id_ not in self.taken]
        for start in range(0, len(ids), BATCH):
            yield ids[start : start + BATCH]

    def _let_go_of_what_was_left(self) -> None:
        """Go on where somebody was killed after he had dropped them."""
        while left := self.target.run(moving.coming, BATCH):
            still_there = self.source.run(moving.existing, left)
            gone = [id_ for id_ in left if id_ not in still_there]
            if not gone:
                return  # they come again, with the batches
            self.moved += self.target.run(moving.restore, COMING, gone)
            self.target.bells.ring(Want.WORK)

    def _move(self, ids: Sequence[str]) -> bool:
        """Move a batch; say whether any of it had a place there.

        What was cancelled on its way is not dropped, and comes once more as one that has ended.
        """
        rows = {row[0]: row for row in self.source.run(moving.fence, ids)}
        if not rows:
            return False
        found = self.target.run(moving.put, list(rows.values()))
        arrived = {id_: row for id_, row in rows.items() if _is_there(row, found[id_])}
        others = [id_ for id_ in rows if id_ not in arrived]
        if others:
            self.taken.update(others)
            self.source.run(moving.restore, AWAY, others)
        dropped = self.source.run(moving.drop, list(arrived.values()))
        self.target.run(moving.restore, COMING, dropped)
        self.moved += len(dropped)
        self._tell(rows[id_] for id_ in dropped)
        return bool(arrived)

    def _tell(self, rows: Iterable[Row]) -> None:
        """Tell those who wait in the second store; what is not heard, polling finds."""
        ended: list[str] = []
        gives_work = False
        for row in rows:
            if moving.has_ended(row):
                ended.append(row[0])
            else:
                gives_work = True
        if gives_work:
            self.target.bells.ring(Want.WORK)
        if ended:
            self.target.bells.ring(Want.ENDS, ended)

    def left(self) -> int:
        """Return how many tasks in the first store have not ended: they run, or have no place."""
        return self.source.run(moving.waiting)


def _is_there(row: Row, found: Found) -> bool:
    """Say whether the second store has the task now, so that the first may forget it."""
    if moving.has_ended(row):
        return moving.same_end(row, found)
    return found.is_coming or (moving.same_task(row, found) and not found.is_fenced)


# -- the command -------------------------------------------------------------------------


def run(source: str, target: str, *, schema: str, follow: bool) -> int:
    """Move the tasks, and tell how many; return the exit code."""
    with ExitStack() as opened:
        if _is_one_file(source, target):
            raise _to_itself(source, target)
        first = _open(source, schema, opened, make=False)
        second = _open(target, schema, opened, make=True)
        if _is_one_database(first, second):
            raise _to_itself(source, target)
        heard = opened.enter_context(_stop_signals())
        mover = Mover(first, second, is_stopped=heard)
        try:
            if follow:
                _follow(mover)
            else:
                mover.run()
        finally:
            _tell(mover)
        left = mover.left()
        if left:
            click.echo(
                f"{left:,} tasks are still in {shown(first.name)}, most of them because they run:"
                " do the same again when they have ended, or take --follow",
                err=True,
            )
        return int(bool(left or mover.taken))


@contextmanager
def _stop_signals() -> Generator[Callable[[], bool]]:
    """Hear SIGTERM and Ctrl-C as a wish; the second is an order."""
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(mover: Mover) -> None:
    """Go on until somebody stops it; a store that is away for a while is asked again."""
    while not mover.is_stopped():
        try:
            mover.run()
        except StoreError as error:
            click.echo(f"trying again: {shown(error)}", err=True)
        clocks.sleep(LOOK_EVERY)


def _tell(mover: Mover) -> None:
    source, target = shown(mover.source.name), shown(mover.target.name)
    click.echo(f"moved {mover.moved:,} tasks from {source} to {target}")
    if mover.taken:
        some = ", ".join(sorted(mover.taken)[:SHOWN_IDS])
        click.echo(
            f"{len(mover.taken):,} tasks stay in {source}, since {target} has other tasks with"
            f" their ids: {shown(some)}",
            err=True,
        )


def _is_one_file(source: str, target: str) -> bool:
    """Say whether both are one, before it is opened: by two names, SQLite keeps two WALs of it."""
    if is_server(source) or is_server(target):
        return False
    first, second = Path(checked_path(source)), Path(checked_path(target))
    return first == second or (first.exists() and second.exists() and first.samefile(second))


def _is_one_database(first: Side, second: Side) -> bool:
    if first.dialect is SQLITE or second.dialect is SQLITE:
        return False
    return first.run(moving.which_database) == second.run(moving.which_database)


def _to_itself(source: str, target: str) -> ValidationError:
    return ValidationError(
        f"{named(source)} and {named(target)} are the same store: what is moved would be dropped"
        " where it comes from. Name another one to move to"
    )


def _open(where: str, schema: str, opened: ExitStack, *, make: bool) -> Side:
    if is_server(where):
        from sitq.adapters.postgres import PostgresStore
        from sitq.backends.postgres import PostgresBackend
        from sitq.cli import queue_server

        if not make:
            queue_server.look(where, schema, lambda _: None)  # which refuses what is no queue
        of_server = PostgresBackend(where, schema=schema).open_store()
        assert isinstance(of_server, PostgresStore)
        opened.callback(of_server.close)
        return Side(of_server, postgres(schema), named(where), of_server)
    path = checked_path(where)
    if not make:
        queue_file.look(path, lambda *_: None)
    of_file = SqliteStore(SqliteSettings(path))
    of_file.open()
    opened.callback(of_file.close)
    return Side(of_file, SQLITE, path, bells_in(path + "-workers"))
