"""The n-th call of a scenario fails: once, or from then on until the fault is lifted.

The promises that are judged, whatever fails: the step succeeds, or raises what the store promises;
its blame is true; nothing hangs; and once the fault is lifted the same store goes on to the end.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sitq.adapters.base import BatchError
from sitq.adapters.sqlite import SqliteStore
from sitq.exceptions import BackendError, StoreError
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Count
from tests.disk import vfs
from tests.disk.crashing import Found
from tests.disk.files import files_of, new_folder
from tests.disk.judging import Judge, play, store_on
from tests.disk.recorder import Recorder
from tests.disk.scenarios import Scenario
from tests.disk.vfs import Call

FULL: Final = sqlite3.SQLITE_FULL
NOMEM: Final = sqlite3.SQLITE_NOMEM
BUSY: Final = sqlite3.SQLITE_BUSY
IOERR: Final = sqlite3.SQLITE_IOERR

CODES: Final[dict[str, Sequence[int]]] = {
    "open": (sqlite3.SQLITE_CANTOPEN, NOMEM, sqlite3.SQLITE_READONLY, IOERR),
    "access": (sqlite3.SQLITE_IOERR_ACCESS,),
    "delete": (sqlite3.SQLITE_IOERR_DELETE,),
    "read": (sqlite3.SQLITE_IOERR_READ, NOMEM),
    "write": (FULL, NOMEM, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_READONLY),
    "truncate": (sqlite3.SQLITE_IOERR_TRUNCATE, FULL),
    "sync": (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC),
    "size": (sqlite3.SQLITE_IOERR_FSTAT,),
    "lock": (BUSY, sqlite3.SQLITE_IOERR_LOCK),
    "unlock": (sqlite3.SQLITE_IOERR_UNLOCK,),
    "reserved": (sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,),
    "close": (sqlite3.SQLITE_IOERR_CLOSE,),
    "shm map": (
        sqlite3.SQLITE_IOERR_SHMMAP,
        NOMEM,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
    ),
    "shm lock": (BUSY, sqlite3.SQLITE_IOERR_SHMLOCK),
    "shm unlock": (sqlite3.SQLITE_IOERR_SHMLOCK,),
    "shm unmap": (sqlite3.SQLITE_IOERR,),
}
"""With what a call of each kind can fail, the most telling first. A barrier cannot; a control is a
question of SQLite."""

DISK: Final = frozenset({"read", "write", "truncate", "sync", "delete", "open"})


class Fault:
    """Call *n* fails with *code*; *then* says which calls after it fail as well.

    `once`: none. `kind`: all of its kind. `disk`: all that need the disk, with an I/O error. `torn`:
    none, but the half of what was to be written is.
    """

    def __init__(self, n: int, code: int, kind: str, then: str) -> None:
        self._n, self._code, self._kind, self._then = n, code, kind, then
        self.lifted = False

    def code(self, n: int, call: Call) -> int | None:
        if self.lifted or n < self._n:
            return None
        if n == self._n:
            return self._code
        if self._then == "kind" and call.kind == self._kind:
            return self._code
        if self._then == "disk" and call.kind in DISK:
            return IOERR
        return None

    def part(self, call: Call) -> int:
        return call.size // 2 if self._then == "torn" else 0

    def __str__(self) -> str:
        return f"{self._kind} {self._n} fails with {self._code} ({self._then})"


def faults(n: int, call: Call, *, long: bool) -> Iterator[Fault]:
    for code in CODES.get(call.kind, ())[: None if long else 2]:
        yield Fault(n, code, call.kind, "once")
        if long or code in {FULL, BUSY}:
            yield Fault(n, code, call.kind, "kind")
    if call.kind == "write":
        yield Fault(n, FULL, call.kind, "torn")
    if call.kind in (DISK if long else {"write", "sync"}):
        yield Fault(n, IOERR, call.kind, "disk")


class Outcome(NamedTuple):
    """How far a scenario came, and what it raised."""

    acked: int
    error: Exception | None
    left: frozenset[int]
    """In which states the files may be, by what was raised."""


def failures(
    scenario: Scenario, judge: Judge, calls: Sequence[Call], *, long: bool = False
) -> Found:
    """Let each of *calls*, which are those of a run without faults, fail in each way."""
    tried, problems = 0, []
    for n, call in enumerate(calls, 1):
        for fault in faults(n, call, long=long):
            tried += 1
            problems += [f"{call}, {fault}: {p}" for p in _fail(scenario, judge, fault)]
    return Found(tried, problems)


def _fail(scenario: Scenario, judge: Judge, fault: Fault) -> list[str]:
    image = scenario.prepared()
    recorder = Recorder(image, keep=False, fault=fault)
    problems = []
    vfs.forget_dice()
    with new_folder(image) as folder, contextlib.closing(store_on(folder)) as store:
        outcome, problem = _outcome(scenario, store, recorder)
        recorder.counts = False
        if problem is not None:
            problems.append(problem)
        if not recorder.struck:
            problems.append("the call was never reached")
        fault.lifted = True
        vfs.raise_what_broke()
        # If the process were killed now: what was said must be true even then.
        index, problem = judge(recorder.disk.now().killed())
        if problem is not None:
            problems.append(f"killed then: {problem}")
        elif index not in outcome.left:
            problems.append(f"killed then: state {index}, after {outcome}")
        try:
            problems += _went_on(scenario, judge, store, outcome)
        except Exception as error:
            problems.append(f"it did not go on once the fault was lifted: {error!r}")
    return problems


def forgetful_syncs(scenario: Scenario, judge: Judge, calls: Sequence[Call]) -> Found:
    """Let each sync fail once, and what it was to write never get to the disk; go on, and cut the
    power at the end. What was answered afterwards must be there."""
    tried, problems = 0, []
    for n, call in enumerate(calls, 1):
        if call.kind != "sync":
            continue
        tried += 1
        image = scenario.prepared()
        fault = Fault(n, sqlite3.SQLITE_IOERR_FSYNC, call.kind, "once")
        recorder = Recorder(image, keep=False, fault=fault)
        with new_folder(image) as folder, contextlib.closing(store_on(folder)) as store:
            outcome, _ = _outcome(scenario, store, recorder)
            with vfs.watched_by(recorder):
                problems += _went_on(scenario, judge, store, outcome, close=False)
            index, problem = judge(recorder.disk.now().synced())
            if problem or index < scenario.least(len(scenario.steps)):
                problems.append(f"{call}, {fault}: power cut at the end: state {index}, {problem}")
    return Found(tried, problems)


def _outcome(
    scenario: Scenario, store: SqliteStore, recorder: Recorder
) -> tuple[Outcome, str | None]:
    """Run until a step raises, and check that it may raise this."""
    error: Exception | None = None
    try:
        for _ in play(scenario, store, recorder):
            pass
    except Exception as raised:
        error = raised
    acked = recorder.acked
    before, either = frozenset({acked}), frozenset({acked, acked + 1})
    if error is None:
        return Outcome(acked, None, before), None
    if not isinstance(error, BatchError) and store._db is None:
        migrates = any(step.migrates for step in scenario.steps)
        allowed = either if migrates else before
        wrong = None if isinstance(error, BackendError) else f"opening raised {error!r}"
        return Outcome(acked, error, allowed), wrong
    if not isinstance(error, BatchError):
        return Outcome(acked, error, either), f"a step raised {error!r}"
    wrong = None
    if isinstance(error.error, MemoryError):
        pass  # an op that is too large may be at fault; callers are told by a StoreError
    elif not isinstance(error.error, StoreError):
        wrong = f"the error is no StoreError: {error.error!r}"
    elif error.blame is Blame.OP:
        wrong = f"an op is blamed for {error.error!r}"
    return Outcome(acked, error, either if error.blame is Blame.UNKNOWN else before), wrong


def _went_on(
    scenario: Scenario, judge: Judge, store: SqliteStore, outcome: Outcome, *, close: bool = True
) -> Iterator[str]:
    if store._db is None:
        store.open()
    else:
        index = judge.index(store._db)
        if index not in outcome.left:
            yield f"another reader sees state {index}, after {outcome}"
    changing = [step for step in scenario.steps if step.changes]
    for step in changing[outcome.acked :]:
        if step.what == "apply":
            step.again().do(store)
    store.apply([Count()])
    store.tidy()
    if judge.index(store._db) != len(changing):
        yield f"it went on to another end, after {outcome}"
    if not close:
        return
    store.close()
    index, problem = judge(files_of(Path(store._settings.path).parent))
    if problem is not None or index != len(changing):
        yield f"closed, it is in state {index}, {problem}, after {outcome}"
