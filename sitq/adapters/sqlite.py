"""One connection to a queue file, used by one thread at a time.

The promises:
- Every writing transaction is `BEGIN IMMEDIATE`. A busy file is asked again, after pauses
  with jitter, for `busy_timeout` seconds; nobody sees "database is locked" before that.
- A connection that was carried across a fork is not used.
- Nothing is acknowledged that went into a file which is not at its path any more, and nothing is
  written to one that a newer sitq has migrated meanwhile.
- On an SQLite with the WAL-reset bug, no commit can fall inside a checkpoint: see
  `needs_gate` and `_checkpoint`.
"""

import contextlib
import os
import sqlite3
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from sitq.adapters import chance, clocks, sqlite_file
from sitq.adapters.base import BatchError
from sitq.adapters.sqlite_identity import OpenedFile, inode
from sitq.adapters.sqlite_wal import Wal
from sitq.exceptions import (
    BackendInUseError,
    FileRefusedError,
    FileReplacedError,
    SitqError,
    StoreBusyError,
    StoreError,
)
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Op, Outcome, Prune
from sitq.storage.program import Change, Commit, Done, Program, Query, resume
from sitq.storage.sqlite import LOSABLE, READS, apply_batch
from sitq.storage.sqlite_schema import check_again, check_database, open_database

T = TypeVar("T")
Durability: TypeAlias = Literal["full", "normal"]

CHECKPOINT_AT: Final = 4 * 2**20
"""Bytes of WAL after which we checkpoint ourselves: SQLite's own 1,000 pages of 4 KiB."""
MEANWHILE: Final = 0.003
"""Seconds that whoever has pruned gives the others before it checkpoints.

They have waited for it to prune, and would wait as long again, and more, for the checkpoint. Most of
them ask for the lock within that time: after 5 ms their pauses are between 0.7 and 2.2 ms.
"""
HELD_UP: Final = 8
"""Batches until we try again, where a reader still needs what we would checkpoint."""
OPENING_TRIES: Final = 3
"""An overlay gives a file another inode when it is first opened for writing."""
FIRST_PAUSE: Final = 0.0005
LONGEST_PAUSE: Final = 0.01

# sqlite.org/wal.html, "The WAL-reset bug": in 3.7.0 to 3.51.2, fixed in 3.51.3 and in the
# branches 3.44.6 and 3.50.7.
_FIXED_BRANCHES: Final = {(3, 44): 6, (3, 50): 7, (3, 51): 3}


def needs_gate(version: tuple[int, int, int]) -> bool:
    """Say whether this SQLite has the WAL-reset bug.

    There a checkpoint that races with another connection's commit and a reset of the WAL can
    lose commits. On such a version automatic checkpoints are off on every connection, and we
    checkpoint only while we hold the write lock.
    """
    major, minor, patch = version
    if (major, minor) in _FIXED_BRANCHES:
        return patch < _FIXED_BRANCHES[major, minor]
    return (3, 7) <= (major, minor) < (3, 51)


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """*busy_timeout* in seconds; *durability* decides on `PRAGMA synchronous`."""

    path: str
    durability: Durability = "full"
    busy_timeout: float = 30.0


class SqliteStore:
    """A connection that applies batches in whichever thread calls it, one at a time."""

    def __init__(self, settings: SqliteSettings) -> None:
        self._settings = settings
        self._pid = os.getpid()
        self._gate = needs_gate(sqlite3.sqlite_version_info)
        self._db: sqlite3.Connection | None = None
        self._sibling: sqlite3.Connection | None = None
        self._opened: OpenedFile
        self._wal = Wal(settings.path)
        self._pruned = False  # in the last batch
        self._tidied = -1  # rows changed, when we last looked whether to checkpoint
        self._held_up = 0  # batches until we look again
        self._syncs = settings.durability == "full"  # at the next COMMIT
        self._schema = -1  # SQLite's count of changes of the schema, when it was last looked at
        _live.add(self)

    # -- opening -------------------------------------------------------------------------

    def open(self) -> sqlite3.Connection:
        """Connect, after the file has been found fit; raise `FileRefusedError` if it is not."""
        path = self._settings.path
        sqlite_file.require_sqlite()
        try:
            found = sqlite_file.inspect(path)
            if found is not None:
                with contextlib.closing(found):
                    self._patiently(lambda: _run(found, check_database(path)))
            else:
                sqlite_file.create(path)
            self._db, self._opened = self._connect_to_one_file()
        except (_CommitError, *_OF_SQLITE) as error:
            self.close()
            cause = error.cause if isinstance(error, _CommitError) else error
            raise sqlite_file.refusal(path, cause) or _translate(cause, path) from error
        except sqlite_file.NONSENSE as error:
            self.close()
            raise sqlite_file.damaged(path, error) from error
        except SitqError:
            self.close()
            raise
        return self._db

    def _connect_to_one_file(self) -> tuple[sqlite3.Connection, OpenedFile]:
        """Connect, and know to which file: one that was at its path before and afterwards."""
        path = self._settings.path
        for _ in range(OPENING_TRIES):
            before = inode(path)
            db = self._connect()
            try:
                self._make_current(db)
                opened = OpenedFile(path)  # SQLite makes -wal and -shm when it first reads
            except BaseException:
                db.close()
                raise
            if opened.database == before:
                return db, opened
            db.close()
        raise FileReplacedError(f"{path!r} is replaced again and again while it is being opened")

    def _make_current(self, db: sqlite3.Connection) -> None:
        self._patiently(lambda: _run(db, open_database(self._settings.path)))

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            # A file name is bytes: as such it is quoted. One that is gone is not made anew here.
            f"file:{quote(os.fsencode(self._settings.path))}?mode=rw",
            uri=True,
            timeout=0,  # we wait ourselves, with jitter
            isolation_level=None,  # programs begin and commit themselves
            check_same_thread=False,  # whoever holds the store takes care of that
            cached_statements=256,
        )
        try:
            self._patiently(lambda: self._prepare(db))
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        # sqlite.org/security.html: what a hostile file could use against us is turned off.
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA mmap_size = 0")
        if self._gate:
            db.execute("PRAGMA wal_autocheckpoint = 0")
        ((mode,),) = db.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise FileRefusedError(
                f"{self._settings.path!r} cannot be put into WAL mode (it stays in {mode!r}):"
                " its file system does not offer what SQLite needs"
            )
        db.execute(f"PRAGMA synchronous = {self._settings.durability}")
        # What a long reader has made longer than that is cut when it is begun anew.
        db.execute(f"PRAGMA journal_size_limit = {2 * CHECKPOINT_AT}")

    def _connection(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            raise BatchError(
                BackendInUseError(
                    f"this connection to {self._settings.path!r} was opened by process {self._pid}"
                    f" and carried across a fork into {os.getpid()}, where SQLite must not use it;"
                    " make a new backend in the child"
                ),
                Blame.STORE,
            )
        assert self._db is not None, "a store is opened before it is used"
        return self._db

    # -- applying ------------------------------------------------------------------------

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        """Apply *ops* in one transaction, or raise `BatchError`."""
        kinds = set(map(type, ops))
        self._pruned = Prune in kinds
        outcomes = self.run(
            lambda: apply_batch(ops, clocks.moment()), outlives_a_power_cut=not kinds <= LOSABLE
        )
        if not kinds <= READS:
            self._check_committed()
        return outcomes

    def run(self, make: Callable[[], Program[T]], *, outlives_a_power_cut: bool = True) -> T:
        """Run what *make* returns, which is one transaction, or raise `BatchError`."""
        db = self._connection()
        path = self._settings.path
        try:
            if outlives_a_power_cut is not self._syncs and self._settings.durability == "full":
                self._sync(db, outlives_a_power_cut)
            return self._patiently(lambda: _run(db, make(), self))
        except SitqError as error:  # it is not our file any more, and nothing was written to it
            raise BatchError(error, Blame.STORE) from error
        except _CommitError as error:
            raise BatchError(_translate(error.cause, path), _blame_commit(error.cause)) from error
        except sqlite3.OperationalError as error:
            raise BatchError(_translate(error, path), Blame.STORE) from error
        except sqlite3.DatabaseError as error:  # damage, mostly: other ops may not touch it
            raise BatchError(_translate(error, path), Blame.OP) from error
        except Exception as error:  # what the ops hold may be at fault: a text, a number
            raise BatchError(error, Blame.OP) from error

    def _sync(self, db: sqlite3.Connection, syncs: bool) -> None:
        """Have the next COMMIT wait for the disk, or not."""
        # This pragma acts when it is compiled; `execute` would find it compiled already.
        db.executescript(f"PRAGMA synchronous = {'FULL' if syncs else 'NORMAL'}")
        self._syncs = syncs

    def begun(self, db: sqlite3.Connection) -> None:
        """See that the schema is the one that we know; what is seen from here on stays so."""
        ((schema,),) = db.execute("PRAGMA schema_version").fetchall()
        if schema != self._schema:
            _run(db, check_again(self._settings.path))
            self._schema = schema

    def commits(self) -> None:
        """See that the file is still the one that was opened."""
        self._opened.check()

    def _check_committed(self) -> None:
        try:
            self._opened.check()
        except SitqError as error:  # was it so before the commit, or only since?
            raise BatchError(error, Blame.UNKNOWN) from error

    def tidy(self) -> None:
        """Checkpoint, where SQLite must not do it by itself."""
        if not self._gate:
            return
        db = self._connection()
        changed = db.total_changes
        if changed == self._tidied:
            return  # what only reads has added nothing
        self._tidied = changed
        if self._held_up:
            self._held_up -= 1
        # A look costs some us. Only every eighth, and the WAL held thrice as much: pauses of 80 ms.
        elif self._wal.has_grown_to(CHECKPOINT_AT):
            if self._pruned:
                clocks.step_aside(MEANWHILE)
                if not self._wal.has_grown_to(CHECKPOINT_AT):
                    return  # one of them has done it
            self._checkpoint(db)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Return what *attempt* returns; while the file is busy, try again, then raise."""
        give_up_at: float | None = None
        pause = FIRST_PAUSE
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
                now = clocks.monotonic()
                give_up_at = give_up_at or now + self._settings.busy_timeout
                if now >= give_up_at:
                    raise
            # Each is about a sixth of what was waited before: nobody sleeps long past the end.
            clocks.sleep(pause * (0.5 + chance.unit()))
            pause = min(pause * 1.2, LONGEST_PAUSE)

    def _checkpoint(self, db: sqlite3.Connection) -> None:
        """Checkpoint a WAL that has grown, while this thread holds the write lock.

        `PRAGMA wal_checkpoint(FULL)` takes that lock itself, but where another writer has it,
        SQLite goes on without: it falls back to a passive checkpoint, the very case of the bug
        (sqlite3WalCheckpoint in wal.c). So *db* takes the lock first, by `BEGIN IMMEDIATE`, and a
        second connection copies the pages meanwhile. No commit and no reset of the WAL can fall
        inside, and no reader is waited for.
        """
        # Whatever fails here, the WAL keeps what it has, and the next commit comes by again.
        with contextlib.suppress(*_OF_SQLITE, SitqError):
            if self._sibling is None:
                self._sibling = self._connect()
            self._opened.check()
            db.execute("BEGIN IMMEDIATE")
            try:
                query = self._sibling.execute("PRAGMA wal_checkpoint(FULL)")
                ((_, frames, copied),) = query.fetchall()
                self._held_up = 0 if copied == frames else HELD_UP
            finally:
                db.execute("ROLLBACK")

    def close(self) -> None:
        for db in (self._sibling, self._db):
            if db is not None and self._pid == os.getpid():
                db.close()
        self._sibling = self._db = None
        self._wal.close()


_live: "weakref.WeakSet[SqliteStore]" = weakref.WeakSet()
_carried_over: list[SqliteStore] = []


def _after_fork() -> None:
    # Not even closed may they be (sqlite.org/howtocorrupt.html, section 2.6), so they are kept
    # from being collected.
    _carried_over.extend(_live)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# What SQLite has no memory for is raised as if Python had none.
_OF_SQLITE: Final = (sqlite3.Error, MemoryError)
_OfSqlite: TypeAlias = sqlite3.Error | MemoryError


class _CommitError(Exception):
    def __init__(self, cause: _OfSqlite) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _run(db: sqlite3.Connection, program: Program[T], guard: SqliteStore | None = None) -> T:
    """Run *program* to its end; roll back if it dies.

    The *guard* is asked once it has begun, and before it commits.
    """
    try:
        step = resume(program, None)
        if guard is not None:
            assert type(step) is Query
            rows = db.execute(*step).fetchall()
            guard.begun(db)
            step = resume(program, rows)
        while not isinstance(step, Done):
            if type(step) is Query:  # `match` takes several times as long
                step = resume(program, db.execute(step.sql, step.params).fetchall())
            elif type(step) is Change:
                count = db.executemany(step.sql, step.rows).rowcount
                step = resume(program, ((count,),))
            else:
                assert type(step) is Commit, "a file is near: one asks it step by step"
                if guard is not None:
                    guard.commits()
                _commit(db)
                step = resume(program, ())
        return step.value
    except BaseException:
        if db.in_transaction:
            # What had failed before says more: where a COMMIT was cut off, nobody knows.
            with contextlib.suppress(*_OF_SQLITE):
                db.execute("ROLLBACK")
        raise


def _commit(db: sqlite3.Connection) -> None:
    if not db.in_transaction:
        return
    try:
        db.execute("COMMIT")
    except _OF_SQLITE as error:
        if _is_busy(error):
            raise  # nothing was written; all of it can be done again
        raise _CommitError(error) from error


def _blame_commit(error: _OfSqlite) -> Blame:
    """Say whether a failed COMMIT may have stored something after all.

    The last thing a commit writes is the frame that makes it valid. If there was no room for
    that, nothing is stored; if it was the sync that failed, nobody knows.
    """
    return Blame.STORE if _code(error) == sqlite3.SQLITE_FULL else Blame.UNKNOWN


# The last is what SQLite says when it has lost the race for a lock of the WAL a hundred times: a
# process that was stopped holds it, say. Nothing has been read or written then.
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


def _is_busy(error: _OfSqlite) -> bool:
    return _code(error) in _BUSY


def _code(error: _OfSqlite) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _translate(error: _OfSqlite, path: str) -> StoreError:
    if _is_busy(error):
        return StoreBusyError(
            f"{path!r} was kept locked by another program for longer than busy_timeout; nothing"
            " was stored. Look for a long transaction of another program on this file"
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return StoreError(f"no room is left on the disk of {path!r}; nothing was stored")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreError(
                f"{path!r} may only be read by now ({name}); nothing was stored. Look whether its"
                " file system was mounted read-only, and who may write the file and its folder"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreError(
                f"{path!r} is damaged ({error}); nothing was stored. Restore a backup, or save what"
                " can be read with: sqlite3 FILE .recover"
            )
        case _:
            return StoreError(f"{path!r} could not be used: {error} ({name})")
