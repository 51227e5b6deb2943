"""The network between one host and a server, and all that a network does.

A proxy listens on loopback, or on a socket in a folder, and passes on to the server's socket what
it is told. It can end connections by a reset, refuse new ones, hold back what is said without a
word (the silence of a cut cable: both sides see a connection that is still there), be slow, and
lose one message that matters, such as the answer to a COMMIT. Each way has its own troubles.

What was held back is delivered when the way is open again, as TCP does after a partition; so is the
end of a connection whose client has died meanwhile.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

T = TypeVar("T")

COMMITTED: Final = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""What Postgres answers to COMMIT, as it is on the wire."""
_CHUNK: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)  # linger for no time: a reset instead of an orderly end


class Way:
    """One direction: to the server, or back. All of it may be changed at any time."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds that each piece is late."""
        self.bytes_per_second = float("inf")
        self.loses: bytes | None = None
        """The next piece that holds this is not delivered; the connection is cut in its place."""
        self.lost = 0
        """How many pieces were."""
        self._is_open = asyncio.Event()
        self._is_open.set()

    async def let_pass(self, data: bytes) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.bytes_per_second != float("inf"):
            await asyncio.sleep(len(data) / self.bytes_per_second)
        await self._is_open.wait()

    def loses_this(self, data: bytes) -> bool:
        if self.loses is None or self.loses not in data:
            return False
        self.loses = None
        self.lost += 1
        return True

    def freeze(self) -> None:
        self._is_open.clear()

    def thaw(self) -> None:
        self._is_open.set()


class _Link:
    """A connection of a client, and the one to the server that belongs to it."""

    def __init__(self) -> None:
        self.ends: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        for end in self.ends:
            connection: socket.socket = end.get_extra_info("socket")
            with suppress(OSError):  # it is closed already
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()


class Proxy:
    """A way to *target*, the path of a server's socket; it has a thread of its own."""

    def __init__(self, target: str, folder: Path | None = None) -> None:
        """Listen on a port of loopback; or on a socket in *folder*, if there is one."""
        self._target = target
        self._folder = folder
        self._refuses = False
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.up, self.down = Way(), Way()
        self._server = self._do(self._listen())
        self.port = 5432
        if folder is None:
            self.port = self._server.sockets[0].getsockname()[1]

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
    def where(self) -> str:
        """What leads here instead of to the server, in the query of a DSN."""
        host = "127.0.0.1" if self._folder is None else quote(str(self._folder), safe="")
        return f"host={host}&port={self.port}"

    @property
    def connections(self) -> int:
        return len(self._links)

    # -- what is done to it --------------------------------------------------------------

    def cut(self) -> int:
        """Reset all connections; return how many there were. New ones can be made at once."""

        async def cut() -> int:
            links = list(self._links)
            for link in links:
                link.cut()
            return len(links)

        return self._do(cut())

    def refuse(self, on: bool = True) -> None:
        """Reset whoever connects, as a port where nobody listens does."""
        self._refuses = on

    def freeze(self, *, up: bool = True, down: bool = True) -> None:
        """Deliver nothing more, and say nothing: neither side sees an end."""
        self._do(self._open(up=not up, down=not down))

    def thaw(self) -> None:
        """Deliver what was held back, and go on."""
        self._do(self._open(up=True, down=True))

    async def _open(self, *, up: bool, down: bool) -> None:
        for way, on in ((self.up, up), (self.down, down)):
            way.thaw() if on else way.freeze()

    def lose_the_answer(self, text: bytes = COMMITTED) -> None:
        """Let the next request that is answered so arrive, and cut instead of saying so."""
        self.down.loses = text

    def lose_the_request(self, text: bytes) -> None:
        """Cut instead of delivering the next request with that *text*."""
        self.up.loses = text

    def calm(self) -> None:
        """Have no more troubles; what was armed and not yet lost, will not be."""
        self._refuses = False
        for way in (self.up, self.down):
            way.delay, way.bytes_per_second, way.loses = 0.0, float("inf"), None
        self.thaw()

    def close(self) -> None:
        async def close() -> None:
            self._server.close()
            for link, task in list(self._links.items()):
                link.cut()
                task.cancel()
            await asyncio.gather(*self._links.values(), return_exceptions=True)

        self._do(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- what it does --------------------------------------------------------------------

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    async def _listen(self) -> asyncio.Server:
        if self._folder is None:
            return await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return await asyncio.start_unix_server(self._connected, str(self._folder / ".s.PGSQL.5432"))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link()
        link.ends.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        with suppress(asyncio.CancelledError):  # by `close`, which waits for it to end
            await self._serve(link, reader, writer)

    async def _serve(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self.up.let_pass(b"")
            if not self._refuses:
                away, back = await asyncio.open_unix_connection(self._target)
                link.ends.append(back)
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._pump(link, reader, back, self.up))
                    ways.create_task(self._pump(link, away, writer, self.down))
        except* OSError:
            pass  # the server is not there, or one of the two has left the other
        finally:
            link.cut()
            del self._links[link]

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        before = b""
        while data := await _read(reader):
            await way.let_pass(data)
            if way.loses_this(before + data):
                link.cut()
                return
            before = data[-len(COMMITTED) :]
            writer.write(data)
            await writer.drain()
        await way.let_pass(b"")
        if writer.can_write_eof():
            writer.write_eof()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return what was said; an end is an end, also by a reset."""
    try:
        return await reader.read(_CHUNK)
    except OSError:
        return b""
