"""Two connections: at each call of one, the other does its own work in between.

Both are in this process, and in one thread: SQLite's "unix" VFS keeps the locks of connections of
one process apart by itself, and nobody has to wait, for whoever finds a lock taken is told so.

The promise that is judged: what either was answered is there, and nothing else; the file is whole.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from sitq.adapters.base import BatchError
from sitq.adapters.sqlite import SqliteStore
from sitq.exceptions import StoreBusyError
from sitq.protocol.ops import Completed, Enqueue, Reserve, Settle, TaskKey
from tests.adapters.asked import new_task
from tests.disk import vfs
from tests.disk.crashing import Found
from tests.disk.files import new_folder
from tests.disk.judging import broken, store_on
from tests.disk.scenarios import busy
from tests.disk.vfs import Call


class Side(NamedTuple):
    """One of the two, and the ids of the tasks that it was told are stored."""

    store: SqliteStore
    stored: set[str]

    def enqueue(self, id_: str, size: int = 10) -> None:
        try:
            self.store.apply([Enqueue((new_task(id_, b"x" * size),))])
        except BatchError as error:
            if not isinstance(error.error, StoreBusyError):
                raise
        else:
            self.stored.add(id_)


def _settles_and_reserves(side: Side) -> None:
    settle = Settle(TaskKey(1, 1), "0", "w", Completed(b"v"))
    side.store.apply([settle, Reserve("w", ("default",), 1)])


def _commits_and_copies(side: Side) -> None:
    side.enqueue("a1", 9000)
    side.store.tidy()
    side.enqueue("a2")


def _opens_again(side: Side) -> None:
    side.store.close()
    with contextlib.suppress(StoreBusyError):  # the other stands still, at what may be a lock
        side.store.open()


ONE: Final[Mapping[str, Callable[[Side], None]]] = {
    "enqueues": lambda side: side.enqueue("a"),
    "settles and reserves": _settles_and_reserves,
    "commits and copies": _commits_and_copies,
    "closes and opens": _opens_again,
}


def _copies_and_begins_anew(side: Side) -> None:
    """Reset the WAL, as far as the locks allow it: that is when a copy of another may lose."""
    side.enqueue("b1", 9000)
    side.store.tidy()
    side.enqueue("b2")
    side.enqueue("b3", 9000)


OTHER: Final[Mapping[str, Callable[[Side], None]]] = {
    "commits": lambda side: side.enqueue("b"),
    "copies": lambda side: side.store.tidy(),
    "commits, copies and begins anew": _copies_and_begins_anew,
    "closes and opens": _opens_again,
}


def meetings(one: Callable[[Side], None], other: Callable[[Side], None]) -> Found:
    """Let *other* do its work before each call of *one*, a new pair each time."""
    n, problems = 0, []
    while True:
        n += 1
        met, problem = _meet(one, other, n)
        if not met:
            return Found(n - 1, problems)
        if problem is not None:
            problems.append(problem)


class _Meets:
    """A watcher that has *then* done before call *at*."""

    def __init__(self, at: int, then: Callable[[], None]) -> None:
        self._at, self._then = at, then
        self._n = 0
        self.met: Call | None = None

    def before(self, call: Call) -> int | None:
        self._n += 1
        if self._n == self._at:
            self.met = call
            with vfs.watched_by(None):
                self._then()
        return None

    def part_of(self, call: Call) -> int:
        return 0

    def after(self, call: Call, code: int) -> None:
        pass


def _meet(
    one: Callable[[Side], None], other: Callable[[Side], None], at: int
) -> tuple[bool, str | None]:
    with (
        new_folder(busy()) as folder,
        contextlib.closing(store_on(folder)) as a,
        contextlib.closing(store_on(folder)) as b,
    ):
        first, second = Side(a, set()), Side(b, set())
        a.open()
        b.open()
        meets = _Meets(at, lambda: other(second))
        with vfs.watched_by(meets):
            one(first)
        vfs.raise_what_broke()
        a.close()
        b.close()
        with contextlib.closing(store_on(folder)) as store:
            db = store.open()
            rows = db.execute("SELECT id FROM sitq_tasks WHERE id GLOB '[ab]*'").fetchall()
            problem = broken(db)
        stored, answered = {id_ for (id_,) in rows}, first.stored | second.stored
        if problem is None and stored != answered:
            problem = f"{sorted(answered)} were answered, and {sorted(stored)} are stored"
        where = f"at call {at} ({meets.met})"
        return meets.met is not None, problem and f"{where}: {problem}"
