"""One connection to Postgres, for any event loop or none: the only file that knows psycopg.

psycopg does not wait itself: it says what it waits for. Here that is passed on by `await`ing a
`Ready`, up to whoever runs the coroutine: a thread that blocks, or callbacks of an event loop. No
task of the loop is ever involved, so no cancellation can reach a statement that is under way.

Connecting blocks (names are looked up, certificates checked), so it is done in threads.
"""

import re
import select
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeVar, cast

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.adapt import Buffer, Dumper, PyFormat, Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row

from sitq.adapters.postgres_announced import Announced
from sitq.storage.postgres_arrays import Blobs, Ints, Texts
from sitq.storage.program import Query, Row

T = TypeVar("T")
PgError = psycopg.Error

# A network that is gone is noticed: while we wait for an answer after the first three, while we
# send after the last (milliseconds). All can be set in the DSN.
DEFAULTS: Final[dict[str, str]] = {
    "fallback_application_name": "sitq",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "target_session_attrs": "read-write",
}


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """*timeout* in seconds; without *prepare* no statement outlives its transaction.

    *origin* is whom hints come from: nobody is told of what was done here. *announced* is what was
    heard of the batches of others.
    """

    dsn: str
    schema: str = "sitq"
    timeout: float = 10.0
    prepare: bool = True
    listen: bool = True
    origin: str = ""
    announced: Announced = field(default_factory=Announced, compare=False, repr=False)

    def public(self) -> "PostgresSettings":
        """Return the same without a password."""
        given = _parts(self.dsn)
        given.pop("password", None)
        return replace(self, dsn=make_conninfo(**given), origin="")


READABLE: Final = 1
WRITABLE: Final = 2
_UNPLANNED: Final = b"BEGIN", b"COMMIT"
_WENT_WELL: Final = {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}


class _Dumped(NamedTuple):
    """A statement as it is sent."""

    sql: bytes
    values: Sequence[Buffer | None]
    types: tuple[int, ...]
    formats: Sequence[pq.Format]


class Ready:
    """Awaited until *descriptor* is ready for one of *events*, as `selectors` numbers them."""

    __slots__ = ("descriptor", "events")

    def __init__(self, descriptor: int, events: int) -> None:
        self.descriptor = descriptor
        self.events = events

    def __await__(self) -> Generator["Ready", int, int]:
        return (yield self)


class Connection(psycopg.AsyncConnection[Row]):
    """Runs one statement after another; whoever runs its coroutines does the waiting."""

    def __init__(self, pgconn: pq.abc.PGconn, settings: PostgresSettings) -> None:
        super().__init__(pgconn, tuple_row)
        self.prepare_threshold = 2 if settings.prepare else None
        for kind, dumper in DUMPERS.items():
            self.adapters.register_dumper(kind, dumper)
        self.descriptor = self.pgconn.socket
        self._quoted = f'"{settings.schema}".'
        self._placed: dict[str, bytes] = {}
        self._cursor = psycopg.AsyncRawCursor(self)
        self._transformer = Transformer.from_context(self)
        self._plan_names: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self._planned: set[bytes] = set()
        self._bell_prepares: Sequence[bytes | None] = ()
        self.rings = False
        self._is_direct: bool | None = None

    async def wait(
        self,
        gen: PQGen[T],
        interval: float = 0.0,  # noqa: ARG002  # whoever waits decides for how long
        timeout: float | None = None,  # noqa: ARG002
    ) -> T:
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(await Ready(self.descriptor, wanted))
        except StopIteration as stop:
            return cast(T, stop.value)

    async def ask(self, sql: str, params: Sequence[Any] = ()) -> Sequence[Row]:
        """Run a statement; without *params* it may be several, and the last one's rows count."""
        cursor = self._cursor
        await self._be_ready()
        if params:
            await cursor.execute(self._place(sql), params, binary=True)
        else:
            await cursor.execute(self._place(sql), prepare=False)
            while cursor.nextset():
                pass
        return await cursor.fetchall() if cursor.description else ()

    async def ask_together(self, queries: Sequence[Query], bell: Query | None = None) -> list[Row]:
        """Send all of *queries* at once; return the rows of each. The first that fails is raised.

        A *bell* is sent along: what comes after the last of them, which commits, in a transaction of
        its own. It `rings` until `rung` has heard what became of it.
        """
        await self._be_ready()
        dumped = [self._dumped(query) for query in queries]  # what cannot be sent fails here
        dumped_bell = None if bell is None else self._dumped(bell)
        self.pgconn.enter_pipeline_mode()
        prepares = self._send_all(dumped)
        if dumped_bell is not None:
            self._bell_prepares = self._send_all([dumped_bell])
            self.rings = True
        await self._flush()
        results = await self._until_the_sync()
        if not self.rings:
            self.pgconn.exit_pipeline_mode()
        return self._rows(results, prepares)

    async def rung(self) -> None:
        """Return once the bell has rung. Raises `PgError`."""
        results = await self._until_the_sync()
        self.pgconn.exit_pipeline_mode()
        self.rings = False
        self._rows(results, self._bell_prepares)

    async def is_direct(self) -> bool:
        """Say whether its session is ours alone: no pooler gives it to others, with our locks."""
        if self._is_direct is None:
            ((pid,),) = await self.ask("SELECT pg_backend_pid()")
            self._is_direct = bool(pid == self.announced_pid)
        return self._is_direct

    async def _be_ready(self) -> None:
        if self.rings:
            await self.rung()
        if not self.autocommit:  # psycopg would begin a transaction of its own
            await self.set_autocommit(True)

    def _send_all(self, dumped: Sequence["_Dumped"]) -> list[bytes | None]:
        """Send them up to a sync. Return for each result the name of what that prepares."""
        prepares = [name for one in dumped for name in self._send(*one)]
        self.pgconn.pipeline_sync()
        return prepares

    async def _flush(self) -> None:
        while self.pgconn.flush():
            if await Ready(self.descriptor, READABLE | WRITABLE) & READABLE:
                self.pgconn.consume_input()

    def _rows(
        self, results: Sequence[pq.abc.PGresult], prepares: Sequence[bytes | None]
    ) -> list[Row]:
        answers: list[Row] = []
        for result, prepared in zip(results, prepares, strict=False):
            if result.status not in _WENT_WELL:
                raise psycopg.errors.error_from_result(result, encoding="utf-8")
            if prepared is None:
                self._transformer.set_pgresult(result)
                answers.append(tuple(self._transformer.load_rows(0, result.ntuples, tuple)))
            else:
                self._planned.add(prepared)
        return answers

    def _dumped(self, query: Query) -> "_Dumped":
        sql, params, tx = self._place(query.sql), query.params, self._transformer
        if not params:
            return _Dumped(sql, (), (), ())
        values = tx.dump_sequence(params, [PyFormat.BINARY] * len(params))
        assert tx.types is not None
        assert tx.formats is not None
        return _Dumped(sql, values, tx.types, tx.formats)

    def _send(
        self,
        sql: bytes,
        values: Sequence[Buffer | None],
        types: tuple[int, ...],
        formats: Sequence[pq.Format],
    ) -> list[bytes | None]:
        """Send one statement. Return for each of its results the name of what that prepares."""
        if self.prepare_threshold is None or sql.startswith(_UNPLANNED):
            self.pgconn.send_query_params(sql, values, types, formats, pq.Format.BINARY)
            return [None]
        name = self._plan_names.setdefault((sql, types), b"sitq_%d" % len(self._plan_names))
        asks: list[bytes | None] = [None]
        if name not in self._planned:
            self.pgconn.send_prepare(name, sql, types)
            asks.insert(0, name)
        self.pgconn.send_query_prepared(name, values, formats, pq.Format.BINARY)
        return asks

    async def _until_the_sync(self) -> list[pq.abc.PGresult]:
        results: list[pq.abc.PGresult] = []
        while self.pgconn.status == pq.ConnStatus.OK:
            while self.pgconn.is_busy():
                await Ready(self.descriptor, READABLE)
                self.pgconn.consume_input()
            result = self.pgconn.get_result()
            if result is None:  # it stands between two results
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)
        self._rows(results, [None] * len(results))  # the server may have said why
        raise psycopg.OperationalError("the connection was lost")

    def _place(self, sql: str) -> bytes:
        placed = self._placed.get(sql)
        if placed is None:
            placed = self._placed[sql] = sql.replace("sitq.", self._quoted).encode()
        return placed

    def has_news(self) -> bool:
        """Say whether something has come, or the connection has ended."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def look(self) -> bool:
        """Read what has come unasked; say whether the connection still stands."""
        try:
            self.pgconn.consume_input()
        except psycopg.Error:
            return False
        return self.stands

    def heard(self) -> list[bytes]:
        """Return the payloads of all notifications that `look` has read."""
        payloads: list[bytes] = []
        while (notification := self.pgconn.notifies()) is not None:
            payloads.append(notification.extra)
        return payloads

    @property
    def stands(self) -> bool:
        """Whether it can be used for another batch."""
        return (
            self.pgconn.status == pq.ConnStatus.OK
            and self.pgconn.transaction_status == pq.TransactionStatus.IDLE
        )

    @property
    def is_lost(self) -> bool:
        return self.pgconn.status != pq.ConnStatus.OK

    @property
    def is_encrypted(self) -> bool:
        return bool(self.pgconn.ssl_in_use)

    @property
    def is_local(self) -> bool:
        """Whether it goes through a socket of this host, and no network."""
        return self.pgconn.host.startswith((b"/", b"@"))

    @property
    def announced_pid(self) -> int:
        """The number of the server's process, as whoever answered said when we connected."""
        return self.pgconn.backend_pid

    def shut(self) -> None:
        """Close it, whatever it is doing; the server then rolls back what was not committed."""
        self.pgconn.finish()

    def __del__(self, *_: object) -> None:
        """Say nothing: a program need not close its backends."""


class _Opened(psycopg.Connection[Row]):
    def __del__(self, *_: object) -> None:
        """Say nothing: what it had opened lives on in a `Connection`."""


def connect(settings: PostgresSettings) -> Connection:
    """Connect, and block the thread meanwhile. Raises `PgError`."""
    given = _parts(settings.dsn)
    whole = make_conninfo(**{**DEFAULTS, **given, "client_encoding": "utf8"})
    opened = _Opened.connect(whole, autocommit=True)
    return Connection(opened.pgconn, settings)


def _parts(dsn: str) -> dict[str, Any]:
    parts = dict(conninfo_to_dict(dsn))
    for host in str(parts.get("host", "")).split(","):
        if "@" in host[1:]:  # the first is that of an abstract socket's name
            raise psycopg.ProgrammingError(
                "the name of a host has no @ in it; one in a user's name or password is written %40"
            )
    return parts


def checked_dsn(dsn: str) -> str:
    """Return *dsn* in libpq's own form. Raises `ValueError`, without a password in its text."""
    try:
        return make_conninfo(**_parts(dsn))
    except psycopg.ProgrammingError as error:
        said = str(error).strip()
        if not said.startswith(_NAMES_AN_OPTION):  # it may quote a password
            said = re.sub('"[^"]*"', "...", said)
        raise ValueError(said) from None


_NAMES_AN_OPTION: Final = ("invalid URI query parameter", "invalid connection option")


def with_option(dsn: str, name: str, value: str) -> str:
    """Return *dsn* with another value for one of its options."""
    return make_conninfo(**{**_parts(dsn), name: value})


def option(dsn: str, name: str) -> str | None:
    """Return what *dsn* says of one of its options."""
    value = _parts(dsn).get(name)
    return None if value is None else str(value)


def shown(dsn: str) -> str:
    """Return *dsn* as people may see it."""
    given = _parts(dsn)
    where = {name: given[name] for name in ("host", "port", "dbname", "user") if name in given}
    return " ".join(f"{name}={value}" for name, value in where.items()) or "the default database"


# -- parameters: each kind has one type, whatever its values are ---------------------------


def _header(count: int, oid: int, *, has_null: bool = False) -> bytes:
    """The first bytes of an array in binary: dimensions, nulls, type; then length and lower bound."""
    if not count:
        return struct.pack("!iiI", 0, 0, oid)
    return struct.pack("!iiIii", 1, has_null, oid, count, 1)


def _array(oid: int, items: Sequence[bytes | None]) -> bytes:
    parts = [_header(len(items), oid, has_null=None in items)]
    for item in items:
        if item is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts += (len(item).to_bytes(4), item)
    return b"".join(parts)


class _Int(Dumper):
    oid = 20  # int8
    format = pq.Format.BINARY

    def dump(self, obj: int) -> Buffer:
        return struct.pack("!q", obj)


class _Ints(Dumper):
    oid = 1016  # int8[]
    format = pq.Format.BINARY

    def dump(self, obj: Ints) -> Buffer:
        flat = [8] * (2 * len(obj))
        flat[1::2] = obj
        return _header(len(obj), 20) + struct.pack("!" + "iq" * len(obj), *flat)


class _Texts(Dumper):
    oid = 1009  # text[]
    format = pq.Format.BINARY

    def dump(self, obj: Texts) -> Buffer:
        return _array(25, [None if item is None else item.encode() for item in obj])


class _Blobs(Dumper):
    oid = 1001  # bytea[]
    format = pq.Format.BINARY

    def dump(self, obj: Blobs) -> Buffer:
        return _array(17, obj)


class _Text(Dumper):
    oid = 25  # text
    format = pq.Format.BINARY

    def dump(self, obj: str) -> Buffer:
        return obj.encode()


DUMPERS: Final[dict[type, type[Dumper]]] = {
    int: _Int,
    str: _Text,
    Ints: _Ints,
    Texts: _Texts,
    Blobs: _Blobs,
}
