"""`PostgresBackend`: a queue in a schema of a PostgreSQL database, for any number of hosts."""

import itertools
import re
import sys
import weakref
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sitq import validation
from sitq.adapters import chance
from sitq.adapters.base import Driver, Loop, Store
from sitq.adapters.bells import Bells, NoBells
from sitq.adapters.presence import NoPresence, Presence, lock_files, own_folder
from sitq.adapters.within import Within
from sitq.backends.base import MAX_PAYLOAD, WEEK, Backend
from sitq.exceptions import BackendError, ValidationError

if TYPE_CHECKING:
    from sitq.adapters.postgres_connection import PostgresSettings

SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,49}")
SCHEME: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
"""What a URL begins with."""
DSNS: Final = "such as 'postgresql://user@host/database' or 'host=... dbname=...'"


class PostgresBackend(Backend):
    """A queue in the database at *dsn*, in a schema of its own, which is made if it is not there.

    Args:
        dsn: where the server is, as libpq has it: a URL such as
            `"postgresql://user@host/database"`, or `"host=... dbname=..."`. What it leaves out
            comes from libpq's environment variables.
        schema: the schema that holds the tables (default: `"sitq"`).
        timeout: seconds to wait for the server: for an answer, for a lock that another program
            has, for a server that is being restarted; then `StoreError` (default: 10).
        listen: hear from other processes, by LISTEN and NOTIFY, that there is something to do.
            False, and new tasks are found by polling alone (default: True).
        prepare: have the server keep prepared statements. False behind a pooler that gives each
            transaction another connection (default: True).
        retention: how long finished tasks are kept (default: 7 days; None: for ever).
        max_payload: bytes that a serialised call or result may have (default: 16 MiB).

    Raises:
        ValidationError: an argument is wrong. The server itself is spoken to on first use.
        BackendError: psycopg is not installed.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "sitq",
        timeout: float = 10.0,
        listen: bool = True,
        prepare: bool = True,
        retention: timedelta | float | None = WEEK,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        super().__init__(retention=retention, max_payload=max_payload)
        require_psycopg()
        from sitq.adapters.postgres_connection import PostgresSettings, checked_dsn

        given: object = schema
        if not isinstance(given, str) or not SCHEMA_NAME.fullmatch(given):
            raise ValidationError(
                "schema must be small letters, digits and underscores, 50 at most, and not begin"
                f" with a digit: {schema!r}"
            )
        if schema.startswith("pg_"):
            raise ValidationError(
                f"schema must not begin with 'pg_', as the server's do: {schema!r}"
            )
        given = dsn
        if not isinstance(given, str):
            raise ValidationError(f"dsn must be {DSNS}, not {given!r}")
        if (scheme := SCHEME.match(dsn)) and scheme[0] not in ("postgresql://", "postgres://"):
            raise ValidationError(f"dsn must begin with 'postgresql://', not with {scheme[0]!r}")
        try:
            dsn = checked_dsn(dsn)
        except ValueError as error:
            raise ValidationError(f"dsn must be {DSNS}: {error}") from None
        self._settings = PostgresSettings(
            dsn=dsn,
            schema=schema,
            timeout=validation.seconds("timeout", timeout, zero=False),
            prepare=bool(prepare),
            listen=bool(listen),
        )
        # What a session of this backend commits, its own listeners hear without the server.
        self._here = replace(self._settings, origin=f"{chance.bits_80():020x}")
        _live[next(_numbers)] = self

    @property
    def schema(self) -> str:
        """The schema that holds the tables."""
        return self._settings.schema

    def open_store(self) -> Store:
        from sitq.adapters.postgres import PostgresStore

        store = PostgresStore(self._settings)
        store.open()
        return store

    def make_driver(self, loop: Loop) -> Driver:
        if sys.platform == "win32":  # where asyncio's usual loop cannot watch a descriptor
            return super().make_driver(loop)
        from sitq.adapters.postgres_driver import PostgresDriver

        return PostgresDriver(loop, self._here)

    def bells(self) -> Bells:
        if not self._settings.listen:
            return NoBells()
        from sitq.adapters.postgres_bells import PostgresBells

        return PostgresBells(self._here)

    def within(self, connection: object) -> Within:
        from sitq.adapters.postgres_within import CallersTransaction

        return CallersTransaction(connection, self._settings)

    def presence(self) -> Presence:
        folder = own_folder("sitq-workers")
        return NoPresence() if folder is None else lock_files(folder)

    def __repr__(self) -> str:
        from sitq.adapters.postgres_connection import shown

        return f"PostgresBackend({shown(self._settings.dsn)!r}, schema={self.schema!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._settings.public(), self.retention, self.max_payload)


def settings_of(backend: PostgresBackend) -> "PostgresSettings":
    """Return how *backend* connects, with its password."""
    return backend._settings  # noqa: SLF001


_numbers = itertools.count(1)
_live: "weakref.WeakValueDictionary[int, PostgresBackend]" = weakref.WeakValueDictionary()


def _again(
    settings: "PostgresSettings", retention: float | None, max_payload: int
) -> PostgresBackend:
    """Return a backend on the same schema, in whichever process it is unpickled.

    As with `SQLiteBackend`: the first that was made and can be used here, or else a new one. A
    password is not pickled, since that would put it into the database: a new backend has it from
    libpq's environment or password file.
    """
    for _, backend in sorted(_live.items()):
        if backend._settings.public() == settings and backend.is_usable_here:  # noqa: SLF001
            return backend
    return PostgresBackend(
        settings.dsn,
        schema=settings.schema,
        timeout=settings.timeout,
        listen=settings.listen,
        prepare=settings.prepare,
        retention=retention,
        max_payload=max_payload,
    )


def require_psycopg() -> None:
    """Raise `BackendError` if psycopg is not there."""
    try:
        import_module("sitq.adapters.postgres_connection")
    except ImportError as error:
        raise BackendError(
            f"PostgresBackend needs psycopg 3, which cannot be imported ({error}): install it, in a"
            " clone of the repository, by pip install '.[postgres]'"
        ) from error
