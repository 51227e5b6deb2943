"""What a process writes down of itself, so that it can be judged after its death.

The format is the history of the simulator, so that the same invariants judge both. Each process
appends to a file of its own; one record is one `write`, which a SIGKILL does not undo.

Transactions are written down between their last statement and their COMMIT, while the process
holds the write lock: the order of the records is that of the commits. Each of them counts
`PRAGMA user_version` on, which the file keeps only if the COMMIT was made; so what a process that
died within COMMIT has stored is known from the number that the next one finds.

`install` puts the witness into the code of production, around the places where it speaks to the
store and to the tasks. Nothing else of it is changed.
"""

import os
import pickle
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import sitq.adapters.sqlite
import sitq.request
from sitq.adapters import clocks
from sitq.adapters.calls import Execution
from sitq.adapters.committer import Committer
from sitq.adapters.worker import WorkerDriver
from sitq.protocol.lease import Hold, LetGo
from sitq.protocol.ops import (
    Cancel,
    Cancelled,
    Count,
    Fetch,
    Moment,
    Op,
    Outcome,
    Settle,
    TaskKey,
    Watch,
)
from sitq.protocol.worker import Execute, Interrupt
from sitq.storage.program import Commit, Done, Program, Query, Step, resume
from sitq.testing.simulation.history import Batch, Change, Kind
from sitq.testing.simulation.mutants import MUTANTS
from sitq.testing.simulation.row_triggers import watch_rows
from torture.where import is_postgres

FILE: Final = "TORTURE_WITNESS"
"""The environment variable that names the file of this process."""
MUTANT: Final = "TORTURE_MUTANT"
"""The one that names a bug to be planted, to show that it would be found."""
WRONG_BY: Final = "TORTURE_CLOCK_IS_WRONG_BY"
"""The one that says by how many seconds the wall clock of this process is to be wrong."""
_HEADER: Final = struct.Struct(">I")
_READS: Final = frozenset({Watch, Fetch, Count})


class Record(NamedTuple):
    """*ns* is on the clock that all processes of this machine share.

    What a task says of itself is of no *kind* of the history; its value is `Called`.
    """

    ns: int
    kind: Kind | None
    task: str = ""
    token: int = 0
    value: Any = None


class Stored(NamedTuple):
    """A transaction that is about to be committed: the *number*-th of its file, or of that name."""

    number: int | str
    batch: Batch
    changes: tuple[tuple[str, Change], ...]


class Called(NamedTuple):
    """The function of a task was entered, or left; it knows itself by a number only."""

    number: int
    left: bool


# -- writing -----------------------------------------------------------------------------


class Witness:
    def __init__(self, path: str) -> None:
        self._pid = os.getpid()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, kind: Kind | None, task: str = "", token: int = 0, value: Any = None) -> None:
        self.write(Record(time.monotonic_ns(), kind, task, token, value))

    def write(self, record: Record) -> None:
        if os.getpid() == self._pid:  # the child of a fork is no witness
            data = pickle.dumps(tuple(record), pickle.HIGHEST_PROTOCOL)
            os.write(self._file, _HEADER.pack(len(data)) + data)


_here: Witness | None = None
_planted = ExitStack()  # never left: it is there for as long as the process


def open_witness() -> Witness:
    """Open the file that the environment names."""
    return Witness(os.environ[FILE])


def note(kind: Kind | None, task: str = "", token: int = 0, value: Any = None) -> None:
    """Write down that something happened in this process, if it is one that is watched."""
    if _here is not None:
        _here.note(kind, task, token, value)


def read(path: Path) -> Iterator[Record]:
    """Yield the records of a file; the last may have been cut off."""
    data = path.read_bytes() if path.exists() else b""
    at = 0
    while at + _HEADER.size <= len(data):
        (size,) = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        if at + size > len(data):
            return
        yield Record(*pickle.loads(data[at : at + size]))
        at += size


# -- watching ----------------------------------------------------------------------------


def install(where: str) -> None:
    """Have this process watched, which works on the store *where*, if the environment says so."""
    global _here  # noqa: PLW0603  # one process, one witness
    if FILE not in os.environ:
        return
    _set_the_clock(float(os.environ.get(WRONG_BY, "0")))
    mutant = os.environ.get(MUTANT)
    _here = open_witness()
    if is_postgres(where):
        from torture import postgres_witness  # its library may not be there, for a file

        if mutant is not None:
            postgres_witness.plant(mutant)
        postgres_witness.watch(_here)
    else:
        if mutant is not None:
            _planted.enter_context(MUTANTS[mutant].planted())
        _watch_store(_here)
    _watch_callers(_here)
    _watch_worker(_here)
    _here.note(Kind.UP)


def _set_the_clock(wrong_by: float) -> None:
    if wrong_by:
        right = clocks.wall_ms
        clocks.wall_ms = lambda: right() + round(wrong_by * 1000)


def _watch_store(here: Witness) -> None:
    module: Any = sitq.adapters.sqlite
    apply_batch, open_ = module.apply_batch, module.SqliteStore.open
    changes: dict[int, list[tuple[str, Change]]] = {}  # by thread: a store is used by one at a time

    def open_watched(store: Any) -> Any:
        db = open_(store)
        seen: list[tuple[str, Change]] = []
        watch_rows(db, lambda task_id, change: seen.append((task_id, change)))
        apply = store.apply

        def apply_watched(ops: Sequence[Op]) -> tuple[Outcome, ...]:
            changes[threading.get_ident()] = seen
            outcomes: tuple[Outcome, ...] = apply(ops)
            for op, outcome in zip(ops, outcomes, strict=True):
                if isinstance(op, Cancel) and isinstance(outcome, Cancelled):
                    here.note(Kind.CANCELLED, op.task_id, value=outcome.was)
            return outcomes

        store.apply = apply_watched
        return db

    def apply_batch_watched(ops: Sequence[Op], now: Moment) -> Program[tuple[Outcome, ...]]:
        seen = changes[threading.get_ident()]
        seen.clear()
        program = apply_batch(ops, now)
        step: Step | Done[Any] = resume(program, None)
        while not isinstance(step, Commit):
            assert not isinstance(step, Done)
            step = resume(program, (yield step))
        end = resume(program, ())
        assert isinstance(end, Done)
        if any(type(op) not in _READS for op in ops):
            ((number,),) = yield Query("PRAGMA user_version")
            yield Query(f"PRAGMA user_version = {number + 1}")
            batch = Batch(tuple(ops), end.value, now)
            here.note(Kind.BATCH, value=Stored(number + 1, batch, tuple(seen)))
        yield Commit()
        outcomes: tuple[Outcome, ...] = end.value
        return outcomes

    module.apply_batch, module.SqliteStore.open = apply_batch_watched, open_watched


def _watch_callers(here: Witness) -> None:
    module: Any = sitq.request
    new_id = module.new_id

    def new_id_watched() -> str:
        task_id: str = new_id()
        here.note(Kind.ENQUEUE, value=(task_id,))
        return task_id

    module.new_id = new_id_watched


def _watch_worker(here: Witness) -> None:
    driver: Any = WorkerDriver
    tell, do = driver._tell, driver._do

    def tell_watched(self: Any, news: Any) -> None:
        match news:
            case Hold(worker_id):
                here.note(Kind.HELD, value=worker_id)
            case LetGo(worker_id):
                here.note(Kind.LET_GO, value=worker_id)
            case _:
                pass
        tell(self, news)

    def do_watched(self: Any, effect: Any) -> None:
        match effect:
            case Interrupt(key) if key in self._executions:
                here.note(Kind.INTERRUPT, self._executions[key].task.id, key.token)
            case Execute(task):
                _worker_ids[task.key] = self._machine._running[task.key].worker_id
            case _:
                pass
        do(self, effect)

    driver._tell, driver._do = tell_watched, do_watched
    _watch_verdicts(here)
    _watch_executions(here)


def _watch_verdicts(here: Witness) -> None:
    committer: Any = Committer
    submit = committer.submit_nowait

    def submit_watched(self: Any, ops: tuple[Op, ...], reply: Any) -> None:
        def reply_watched(answer: Any) -> None:
            if isinstance(answer, tuple):
                for op, outcome in zip(ops, answer, strict=True):
                    if isinstance(op, Settle):
                        here.note(Kind.TOLD, op.task_id, op.key.token, outcome.applied)
            reply(answer)

        submit(self, ops, reply_watched)

    committer.submit_nowait = submit_watched


def _watch_executions(here: Witness) -> None:
    execution: Any = Execution
    run = execution.run

    async def run_watched(self: Any) -> Any:
        task = self.task
        value = _worker_ids.pop(task.key), task.payload
        here.note(Kind.START, task.id, task.key.token, value)
        how = "died"
        try:
            ending = await run(self)
            how = type(ending).__name__.lower()
            return ending
        finally:
            here.note(Kind.END, task.id, task.key.token, how)

    execution.run = run_watched


_worker_ids: dict[TaskKey, str] = {}
