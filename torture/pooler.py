"""A pooler that gives each transaction another connection of the server, as PgBouncer's mode does.

It is as unkind as such a pooler may be: of its connections, that one is given which has been idle
for the longest, so no client meets the same twice in a row; and nothing that a client leaves in a
session is cleared away. What a client relies on that outlives its transaction is not there; what it
leaves behind is in the way of others, and `left_behind` says what it was.

It can also be kinder: give again what has just come back, or keep a client's session together.
"""

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import psycopg

T = TypeVar("T")

ANNOUNCED_PID: Final = 1
"""What clients are told as the process of the server: an invention, as with all poolers."""
_ASKS_FOR_ENCRYPTION: Final = (80877103, 80877104)
_REPORTED: Final = (
    "server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone", "in_hot_standby",
    "integer_datetimes", "standard_conforming_strings", "default_transaction_read_only",
)  # fmt: skip
_ASKS_FOR_READY: Final = b"QSF"
"""The messages that the server answers with a `ReadyForQuery`: Query, Sync, FunctionCall."""
_READY_AND_IDLE: Final = b"Z\0\0\0\5I"
_LEFT_BEHIND: Final = """
    SELECT 'prepared: ' || statement FROM pg_prepared_statements
    UNION ALL SELECT 'listens: ' || pg_listening_channels()
    UNION ALL SELECT 'locks: ' || objid FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT 'set: ' || name FROM pg_settings WHERE source = 'session'
        AND name <> 'client_encoding'
"""


class _Session:
    """A connection of the server, which psycopg has made, and lets us speak on."""

    def __init__(self, dsn: str) -> None:
        self.opened = psycopg.connect(dsn, autocommit=True, client_encoding="utf8")
        self.socket = socket.socket(fileno=os.dup(self.opened.fileno()))
        self.socket.setblocking(False)

    def greeting(self) -> bytes:
        """Return what a client is told that has just logged in."""
        told = _message(b"R", struct.pack("!I", 0))
        for name in _REPORTED:
            value = self.opened.pgconn.parameter_status(name.encode())
            if value is not None:
                told += _message(b"S", name.encode() + b"\0" + value + b"\0")
        return told + _message(b"K", struct.pack("!II", ANNOUNCED_PID, 1)) + _message(b"Z", b"I")

    def close(self) -> None:
        self.socket.close()
        self.opened.close()


class Pooler:
    """Listens on a port of loopback, and has *size* connections to the database at *dsn*."""

    def __init__(
        self,
        dsn: str,
        size: int = 6,
        by: Literal["transaction", "session"] = "transaction",
        gives: Literal["longest idle", "last used"] = "longest idle",
    ) -> None:
        self._dsn, self._size, self._by = dsn, size, by
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        queue = asyncio.Queue if gives == "longest idle" else asyncio.LifoQueue
        self._idle: asyncio.Queue[_Session] = queue()
        for _ in range(size):
            self._idle.put_nowait(_Session(dsn))
        self.transactions = 0
        self._clients: set[asyncio.Task[None]] = set()
        self._server = self._do(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def dsn(self) -> str:
        """What leads here."""
        return f"postgresql://anybody@127.0.0.1:{self.port}/pooled"

    def left_behind(self) -> list[str]:
        """Return what clients have left in the sessions, once all of these are idle."""
        found: list[str] = []
        for session in [self._do(self._idle.get()) for _ in range(self._size)]:
            session.opened.prepare_threshold = None
            found += [what for (what,) in session.opened.execute(_LEFT_BEHIND)]
            self._loop.call_soon_threadsafe(self._idle.put_nowait, session)
        return found

    def close(self) -> None:
        async def close() -> None:
            self._server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            while not self._idle.empty():
                self._idle.get_nowait().close()

        self._do(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await self._log_in(reader, writer)
                said = _Messages(reader)
                try:
                    while True:
                        await self._transaction(said, writer)
                finally:
                    said.reading.cancel()
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            length, code = struct.unpack("!II", await reader.readexactly(8))
            await reader.readexactly(length - 8)
            if code not in _ASKS_FOR_ENCRYPTION:
                break
            writer.write(b"N")
        session = await self._idle.get()
        writer.write(session.greeting())
        self._idle.put_nowait(session)

    async def _transaction(self, said: "_Messages", writer: asyncio.StreamWriter) -> None:
        """Serve a client from its next message until its session is free for others."""
        first = await said.get()
        session = await self._idle.get()
        is_free = False
        try:
            is_free = await self._serve(session, first, said, writer)
        finally:
            if is_free:
                self.transactions += 1
                self._idle.put_nowait(session)
            else:  # its client is gone: so is what it had begun
                session.close()
                self._idle.put_nowait(_Session(self._dsn))

    async def _serve(
        self, session: _Session, first: bytes, said: "_Messages", writer: asyncio.StreamWriter
    ) -> bool:
        """Pass messages on both ways; say whether it came to an end that leaves the session free."""
        ends = self._by == "transaction"
        asked = 0  # answers of ReadyForQuery that are still to come
        is_whole = True  # what was sent, up to a message that asks for such an answer

        async def up() -> None:
            nonlocal asked, is_whole
            message = first
            while True:
                is_whole = message[:1] in _ASKS_FOR_READY
                asked += is_whole
                await self._loop.sock_sendall(session.socket, message)
                message = await said.get()

        async def down() -> None:
            nonlocal asked
            heard = b""
            while True:
                data = await self._loop.sock_recv(session.socket, 65536)
                if not data:
                    raise EOFError
                heard += data
                while len(heard) >= 5 and len(heard) >= (size := _size(heard)):
                    message, heard = heard[:size], heard[size:]
                    writer.write(message)
                    asked -= message[:1] == b"Z"
                    if ends and message == _READY_AND_IDLE and is_whole and not asked:
                        return

        ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
            return ways[1] in done
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


class _Messages:
    """What a client says, message by message; who stops waiting for one misses none."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self.reading = asyncio.ensure_future(self._read(reader))

    async def get(self) -> bytes:
        """Return the next; EOFError if it has said goodbye, or is gone."""
        message = await self._said.get()
        if not message:
            raise EOFError
        return message

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, EOFError):
            while (head := await reader.readexactly(5))[:1] != b"X":
                self._said.put_nowait(head + await reader.readexactly(_size(head) - 5))
        self._said.put_nowait(b"")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _size(heard: bytes) -> int:
    size: int = struct.unpack("!I", heard[1:5])[0]
    return size + 1
