"""A pooler as small as one can be: it hands out connections to a server by transaction, or by session.

It speaks Postgres' protocol as far as that takes. Its server must trust whoever comes by the socket.
"""

import queue
import select
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

PID = 1
"""What it announces as the process of the server: its own invention, as all poolers do."""


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


class Stream:
    """One direction of a connection, cut into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def messages(self, data: bytes) -> list[tuple[bytes, bytes]]:
        self._rest += data
        found = []
        while len(self._rest) >= 5:
            (size,) = struct.unpack("!I", self._rest[1:5])
            if len(self._rest) < size + 1:
                break
            found.append((self._rest[:1], self._rest[5 : size + 1]))
            self._rest = self._rest[size + 1 :]
        return found


class Pooler:
    """Listens in *folder*, and passes on to the server's *there*."""

    def __init__(
        self,
        folder: Path,
        there: str,
        *,
        user: str,
        database: str,
        size: int = 2,
        by: Literal["transaction", "session"] = "transaction",
    ) -> None:
        self.by = by
        self._pool: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        self._parameters = b""
        self._all: list[socket.socket] = []
        for _ in range(size):
            self._pool.put(self._connect(there, user, database))
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(folder / ".s.PGSQL.5432"))
        self._door.listen()
        self.url = f"postgresql://{user}@/{database}?host={folder}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._open_door, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        for each in (self._door, *self._all):
            each.close()

    def _connect(self, there: str, user: str, database: str) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.connect(there)
        self._all.append(server)
        said = f"user\0{user}\0database\0{database}\0client_encoding\0utf8\0\0".encode()
        server.sendall(struct.pack("!II", len(said) + 8, 196608) + said)
        self._parameters = b""
        while True:
            kind = _exactly(server, 1)
            (size,) = struct.unpack("!I", _exactly(server, 4))
            body = _exactly(server, size - 4)
            if kind == b"S":
                self._parameters += kind + struct.pack("!I", size) + body
            if kind == b"R":
                assert body == b"\0\0\0\0", "the server must trust"
            if kind == b"Z":
                return server

    def _open_door(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            self._all.append(client)
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            (size,) = struct.unpack("!I", _exactly(client, 4))
            _exactly(client, size - 4)
            client.sendall(
                b"R" + struct.pack("!II", 8, 0) + self._parameters
                + b"K" + struct.pack("!III", 12, PID, 1) + b"Z" + struct.pack("!I", 5) + b"I"
            )  # fmt: skip
            self._pass_on(client)
        except OSError:
            return  # either end is gone

    def _pass_on(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        asked = 0
        from_client, from_server = Stream(), Stream()
        while True:
            ready, _, _ = select.select([client, *([server] if server else [])], [], [])
            if client in ready:
                data = client.recv(65536)
                kinds = [kind for kind, _ in from_client.messages(data)]
                if not data or b"X" in kinds:
                    while server is not None and asked:  # nobody is to hear another's answers
                        told = from_server.messages(server.recv(65536))
                        asked -= sum(kind == b"Z" for kind, _ in told)
                    if server is not None:
                        self._pool.put(server)
                    return
                asked += sum(kind in b"QS" for kind in kinds)
                if server is None:
                    server = self._pool.get()
                server.sendall(data)
            elif server is not None:
                data = server.recv(65536)
                client.sendall(data)
                ends = [body for kind, body in from_server.messages(data) if kind == b"Z"]
                asked -= len(ends)
                if self.by == "transaction" and ends and ends[-1] == b"I" and not asked:
                    self._pool.put(server)
                    server = None
