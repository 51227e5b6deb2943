"""`SQLiteBackend`: a queue in one file, for any number of processes on one host."""

import itertools
import os
import weakref
from datetime import timedelta
from typing import Any

from sitq import validation
from sitq.adapters import sqlite_file
from sitq.adapters.base import Driver, Loop, Store
from sitq.adapters.bells import Bells, bells_in
from sitq.adapters.presence import Presence, lock_files
from sitq.adapters.sqlite import Durability, SqliteSettings, SqliteStore
from sitq.backends.base import MAX_PAYLOAD, WEEK, Backend
from sitq.exceptions import ValidationError


class SQLiteBackend(Backend):
    """A queue in the file at *path*, which is made, for its owner alone, if it is not there.

    Args:
        path: a local file of its own. Network file systems are refused.
        durability: `"full"` (default): what is acknowledged survives a power cut.
            `"normal"`: it survives the death of every process, but a power cut may undo the
            last commits; those that remain are whole and in order.
        busy_timeout: seconds to wait for another program that keeps the file locked, before
            `StoreBusyError` (default: 30).
        retention: how long finished tasks are kept (default: 7 days; None: for ever).
        max_payload: bytes that a serialised call or result may have (default: 16 MiB).

    Raises:
        ValidationError: an argument is wrong. The file itself is looked at on first use.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        busy_timeout: float = 30.0,
        retention: timedelta | float | None = WEEK,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        super().__init__(retention=retention, max_payload=max_payload)
        if durability not in ("full", "normal"):
            raise ValidationError(f"durability must be 'full' or 'normal', not {durability!r}")
        self._settings = SqliteSettings(
            path=sqlite_file.checked_path(path),
            durability=durability,
            busy_timeout=validation.seconds("busy_timeout", busy_timeout),
        )
        _live[next(_numbers)] = self

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return self._settings.path

    def open_store(self) -> Store:
        store = SqliteStore(self._settings)
        store.open()
        return store

    def make_driver(self, loop: Loop) -> Driver:
        if loop.name == "asyncio":
            from sitq.adapters.on_asyncio import AiosqliteDriver, AsyncioLoop

            assert isinstance(loop, AsyncioLoop)
            return AiosqliteDriver(loop, self._settings)
        return super().make_driver(loop)

    def presence(self) -> Presence:
        return lock_files(self.path + "-workers")

    def bells(self) -> Bells:
        return bells_in(self.path + "-workers")

    def __repr__(self) -> str:
        return f"SQLiteBackend({self.path!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._settings, self.retention, self.max_payload)


_numbers = itertools.count(1)
_live: "weakref.WeakValueDictionary[int, SQLiteBackend]" = weakref.WeakValueDictionary()


def _again(settings: SqliteSettings, retention: float | None, max_payload: int) -> SQLiteBackend:
    """Return a backend on the same file, in whichever process it is unpickled.

    A task that enqueues carries its queue along, and is unpickled for every run: it finds the
    backend that is there already, rather than connecting anew: the first that was made, so that
    it is the same one every time.
    """
    for _, backend in sorted(_live.items()):
        if backend._settings == settings and backend.is_usable_here:  # noqa: SLF001
            return backend
    return SQLiteBackend(
        settings.path,
        durability=settings.durability,
        busy_timeout=settings.busy_timeout,
        retention=retention,
        max_payload=max_payload,
    )
