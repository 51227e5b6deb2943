"""Connections that a test can look at, hold up, or let fail."""

import sqlite3


class Wrapped:
    """An `sqlite3.Connection` behind a proxy that calls *before* with every statement.

    *before* may raise, which is then what the statement does; or return *AFTER*, an error to
    raise once the statement has been run.
    """

    def __init__(self, db: sqlite3.Connection, before) -> None:
        self._db = db
        self._before = before

    def execute(self, sql, *args):
        after = self._before(sql)
        cursor = self._db.execute(sql, *args)
        if after is not None:
            raise after
        return cursor

    def executemany(self, sql, *args):
        after = self._before(sql)
        cursor = self._db.executemany(sql, *args)
        if after is not None:
            raise after
        return cursor

    def __getattr__(self, name):
        return getattr(self._db, name)


def operational_error(code: int, name: str, text: str) -> sqlite3.OperationalError:
    """An error as the `sqlite3` module makes it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


def io_error() -> sqlite3.OperationalError:
    return operational_error(sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC", "disk I/O error")


def disk_full() -> sqlite3.OperationalError:
    return operational_error(sqlite3.SQLITE_FULL, "SQLITE_FULL", "database or disk is full")


def busy() -> sqlite3.OperationalError:
    return operational_error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY", "database is locked")


def lost_race() -> sqlite3.OperationalError:
    return operational_error(sqlite3.SQLITE_PROTOCOL, "SQLITE_PROTOCOL", "locking protocol")
