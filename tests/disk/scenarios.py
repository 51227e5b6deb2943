"""What a store is asked to do while its disk fails: one scenario for each op, and the file's life.

A scenario is a prepared file and steps. Those that change the store take it to its next state; each
of them can be asked again when its answer was lost.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, NamedTuple, get_args

from sitq.adapters.sqlite import SqliteSettings, SqliteStore
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Completed,
    Count,
    Enqueue,
    Failed,
    Failure,
    Fetch,
    Op,
    Parked,
    Prune,
    Released,
    Renew,
    Rescue,
    Reserve,
    Retire,
    RetryIn,
    Settle,
    TaskKey,
    Unpark,
    Watch,
    WriteOp,
)
from sitq.storage.sqlite import LOSABLE
from sitq.storage.sqlite_schema import STEPS, VERSION
from tests.adapters.asked import new_task, register
from tests.disk.disk import Image
from tests.disk.files import files_of, new_folder

BOOM: Final = Failure("boom", "ValueError", "a traceback")
NAME: Final = "tasks.db"
HELD: Final = (1, 2, 4, 5, 6)
"""What "w" knows to hold in the file that `busy` prepares."""


class Step(NamedTuple):
    """`open`, `apply`, `tidy` or `close`."""

    what: str
    ops: tuple[Op, ...] = ()
    migrates: bool = False

    @property
    def changes(self) -> bool:
        """Say whether it takes the store to its next state."""
        return self.migrates or any(isinstance(op, get_args(WriteOp)) for op in self.ops)

    @property
    def outlives_a_power_cut(self) -> bool:
        return self.migrates or not LOSABLE.issuperset(map(type, self.ops))

    def do(self, store: SqliteStore) -> None:
        if self.what == "apply":
            store.apply(self.ops)
        else:
            getattr(store, self.what)()

    def again(self) -> "Step":
        """Return how it is asked again, by one who does not know whether it was done."""
        return self._replace(ops=tuple(_again(op) for op in self.ops))


def _again(op: Op) -> Op:
    match op:
        case Enqueue():
            return op._replace(may_exist=True)
        case Reserve():
            return op._replace(known=HELD)
        case _:
            return op


OPEN: Final = Step("open")
MAKE: Final = Step("open", migrates=True)
TIDY: Final = Step("tidy")
CLOSE: Final = Step("close")


def asks(*ops: Op) -> Step:
    return Step("apply", ops)


class Scenario(NamedTuple):
    name: str
    prepared: Callable[[], Image]
    steps: Sequence[Step]
    first: int = 1
    """The first step whose calls are counted: most begin with an open store."""

    def least(self, acked: int) -> int:
        """Return the first state that a power cut may leave, once *acked* changes were answered."""
        changes = [step for step in self.steps if step.changes][:acked]
        while changes and not changes[-1].outlives_a_power_cut:
            changes.pop()
        return len(changes)

    def __str__(self) -> str:
        return self.name


# -- prepared files --------------------------------------------------------------------------


def prepared(*batches: Sequence[Op], closed: bool = True) -> Image:
    """Return the files of a store that was asked *batches*; not *closed*: its process was killed."""
    with new_folder() as folder:
        store = SqliteStore(SqliteSettings(str(folder / NAME)))
        store.open()
        for batch in batches:
            store.apply(batch)
        if closed:
            store.close()
        image = files_of(folder)
        store.close()
        return image


def _busy() -> list[list[Op]]:
    """A store in which every op has something to do; tokens are 1, seqs count from 1."""
    everyone = [register(name) for name in ("w", "dead", "gone")]
    tasks = tuple(new_task(str(n), b"payload") for n in range(14))
    batches: list[list[Op]] = [
        [*everyone, Enqueue(tasks)],
        [Reserve("w", ("default",), 7)],
        [Reserve("dead", ("default",), 2), Reserve("gone", ("default",), 1)],
        [_settle(7, Completed(b"v"))],
        [Cancel("1"), Enqueue((new_task("late", delay_ms=60_000),))],
        [_settle(3, Parked("stamp", "why"))],
    ]
    return batches


def _settle(seq: int, verdict) -> Settle:
    return Settle(TaskKey(seq, 1), str(seq - 1), "w", verdict)


@cache
def busy() -> Image:
    return prepared(*_busy())


@cache
def killed() -> Image:
    """As left by a process that was killed: all is in the WAL."""
    return prepared(*_busy(), closed=False)


@cache
def of_version(version: int) -> Image:
    """A file as the sitq of that schema made it."""
    with new_folder() as folder:
        db = sqlite3.connect(folder / NAME, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        for statement in (s for step in STEPS[:version] for s in step):
            db.execute(statement)
        db.execute("INSERT INTO sitq_schema (version) VALUES (?)", (version,))
        db.close()
        return files_of(folder)


# -- the scenarios ---------------------------------------------------------------------------


def _one(name: str, *ops: Op) -> Scenario:
    return Scenario(name, busy, (OPEN, asks(*ops)))


BIG: Final = Enqueue(tuple(new_task(f"bulk{n}", b"x" * 700) for n in range(40)))

SCENARIOS: Final[Sequence[Scenario]] = (
    Scenario("a new file", tuple, (MAKE, CLOSE), first=0),
    Scenario("an empty file", lambda: ((NAME, b""),), (MAKE, CLOSE), first=0),
    *(
        Scenario(f"a file of version {n}", lambda n=n: of_version(n), (MAKE, CLOSE), first=0)
        for n in range(1, VERSION)
    ),
    Scenario("open and close", busy, (OPEN, CLOSE), first=0),
    _one("enqueue", Enqueue((new_task("a"),))),
    _one("enqueue many", BIG),
    _one("reserve", Reserve("w", ("default",), 3)),
    Scenario(
        "reserve, then complete",
        busy,
        (OPEN, asks(Reserve("w", ("default",), 1)), asks(_settle(11, Completed(b"v")))),
    ),
    _one("register", register("new")),
    _one("renew", Renew("w", 60.0)),
    _one("complete", _settle(1, Completed(b"v"))),
    _one("fail", _settle(1, Failed(BOOM))),
    _one("retry", _settle(1, RetryIn(1.0, BOOM))),
    _one("release", _settle(1, Released())),
    _one("park", _settle(1, Parked("stamp", "why"))),
    _one("abort", _settle(2, Aborted())),
    _one("settle many", *(_settle(n, Completed(b"v" * 300)) for n in (1, 2, 4, 5, 6))),
    _one("settle and refill", _settle(1, Completed(b"v")), Reserve("w", ("default",), 1)),
    _one("rescue", Rescue(("dead",))),
    _one("retire", Retire("gone")),
    _one("cancel", Cancel("12")),
    _one("ask to stop", Cancel("0")),
    _one("unpark", Unpark(("stamp",))),
    _one("prune", Prune(0.0, 100)),
    _one("look", Watch("w"), Fetch(("1", "late")), Count()),
    Scenario(
        "checkpoints between commits",
        busy,
        (
            OPEN,
            asks(Enqueue((new_task("a", b"x" * 6000),))),
            TIDY,
            asks(Enqueue((new_task("b"),))),
            asks(_settle(1, Completed(b"v"))),
            TIDY,
            asks(Enqueue((new_task("c", b"x" * 9000),))),
            CLOSE,
        ),
    ),
    Scenario(
        "a life after a kill",
        killed,
        (OPEN, asks(Enqueue((new_task("a"),))), asks(_settle(1, Released())), CLOSE),
        first=0,
    ),
    Scenario(
        "two lives",
        busy,
        (OPEN, asks(Enqueue((new_task("a"),))), CLOSE, OPEN, asks(_settle(1, Released())), CLOSE),
        first=2,
    ),
)


def scenario_named(name: str) -> Scenario:
    (found,) = (scenario for scenario in SCENARIOS if scenario.name == name)
    return found
