"""Ops within a transaction on the caller's own psycopg connection, of either kind.

A cursor of our own is made on it, so that what the caller has set for others does not matter here:
the kind of its rows, how values are read and written. Of the connection nothing is changed.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import psycopg
from psycopg import pq
from psycopg.abc import Loader
from psycopg.rows import tuple_row
from psycopg.types.bool import BoolBinaryLoader
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import ByteaBinaryLoader, TextBinaryLoader

from sitq.adapters.bells import Want
from sitq.adapters.postgres_connection import DUMPERS, PostgresSettings
from sitq.adapters.postgres_errors import BUSY, said
from sitq.adapters.postgres_news import channel
from sitq.exceptions import SitqError, StoreBusyError, StoreError, ValidationError
from sitq.protocol.ops import Enqueue, Outcome, Settle, Settled
from sitq.storage.postgres_within import SPOIL, Place, apply_within
from sitq.storage.program import Done, Query, Row, Step, resume

_LOADERS: Final[dict[str, type[Loader]]] = {
    "bool": BoolBinaryLoader,
    "int8": Int8BinaryLoader,
    "text": TextBinaryLoader,
    "bytea": ByteaBinaryLoader,
}
_NO_TABLES: Final = ("42P01", "3F000")

_Status: Final = pq.TransactionStatus


class CallersTransaction:
    """The transaction that is open on *connection*, or that its next statement begins."""

    def __init__(self, connection: object, settings: PostgresSettings) -> None:
        if not isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
            raise ValidationError(
                "within takes a psycopg Connection or AsyncConnection, not"
                f" {type(connection).__module__}.{type(connection).__qualname__}; give the one that"
                " lies below it"
            )
        self.is_async = isinstance(connection, psycopg.AsyncConnection)
        self._connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] = connection
        self._quoted = f'"{settings.schema}".'
        self._place = Place(
            settings.schema,
            channel(settings.schema, Want.WORK) if settings.listen else None,
            channel(settings.schema, Want.ENDS) if settings.listen else None,
        )

    def apply(self, op: Enqueue | Settle) -> Outcome:
        """Apply *op*, and block this thread meanwhile."""
        self._check()
        assert isinstance(self._connection, psycopg.Connection)
        cursor = psycopg.RawCursor(self._connection, row_factory=tuple_row)
        _prepare(cursor)
        program = apply_within(op, self._place)
        try:
            step = resume(program, None)
            while not isinstance(step, Done):
                cursor.execute(*self._asked(step), binary=True)
                step = resume(program, cursor.fetchall())
            if step.value == Settled(False):
                with contextlib.suppress(psycopg.Error):
                    cursor.execute(SPOIL)
        except psycopg.Error as error:
            self._refuse(error)
        return step.value

    async def apply_async(self, op: Enqueue | Settle) -> Outcome:
        """Apply *op*, on asyncio."""
        self._check()
        assert isinstance(self._connection, psycopg.AsyncConnection)
        cursor = psycopg.AsyncRawCursor(self._connection, row_factory=tuple_row)
        _prepare(cursor)
        program = apply_within(op, self._place)
        try:
            step = resume(program, None)
            while not isinstance(step, Done):
                await cursor.execute(*self._asked(step), binary=True)
                step = resume(program, await cursor.fetchall())
            if step.value == Settled(False):
                with contextlib.suppress(psycopg.Error):
                    await cursor.execute(SPOIL)
        except psycopg.Error as error:
            self._refuse(error)
        return step.value

    def _asked(self, step: Step) -> tuple[bytes, Sequence[Any] | None]:
        assert isinstance(step, Query), "what is the caller's is not committed here"
        return step.sql.replace("sitq.", self._quoted).encode(), step.params or None

    def _check(self) -> None:
        """Refuse a connection on which nothing can be stored within a transaction."""
        connection = self._connection
        status = connection.pgconn.transaction_status
        if status == _Status.IDLE and connection.autocommit:
            raise ValidationError(
                "this connection is in autocommit mode and no transaction is open on it, so there"
                " is nothing to be within: open one by `with connection.transaction():`, `async"
                " with` for an AsyncConnection"
            )
        if status == _Status.ACTIVE:
            raise ValidationError(
                "something else is under way on this connection (a COPY, a pipeline or a statement"
                " of another task): end that first"
            )
        if status == _Status.INERROR:
            raise StoreError(
                "the transaction on this connection has failed before, and nothing more can be"
                " stored within it: roll it back, and begin again"
            )
        if status == _Status.UNKNOWN:
            raise StoreError("this connection is closed or lost, and its transaction with it")
        if connection.info.encoding != "utf-8":
            raise ValidationError(
                f"this connection speaks {connection.info.encoding}, and sitq needs UTF8: connect"
                " with client_encoding='utf8'"
            )

    def _refuse(self, error: psycopg.Error) -> NoReturn:
        raise self._told(error) from error

    def _told(self, error: psycopg.Error) -> SitqError:
        state = error.sqlstate or ""
        if state in _NO_TABLES:
            return StoreError(
                f"the database {self._connection.info.dbname!r} of this connection has no queue in"
                f" the schema {self._place.schema!r} ({said(error)}): connect to the one of the"
                " backend; or have the backend make its tables first, by `await"
                " backend.connect()`"
            )
        if state in BUSY:
            return StoreBusyError(
                f"this transaction cannot go on ({BUSY[state]}): roll it back, and run it again"
            )
        return StoreError(
            f"the server refused this, and the transaction has failed: roll it back ({said(error)})"
        )


def _prepare(cursor: "psycopg.RawCursor[Row] | psycopg.AsyncRawCursor[Row]") -> None:
    for kind, dumper in DUMPERS.items():
        cursor.adapters.register_dumper(kind, dumper)
    for name, loader in _LOADERS.items():
        cursor.adapters.register_loader(name, loader)
