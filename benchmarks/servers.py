"""A private Redis and a private Postgres, if their programs are there: on loopback, and gone after.

Postgres refuses to run as root. Then it runs as `postgres`, or as `nobody`.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.peers import Store

PATIENCE: Final = 30.0
POSTGRES: Final = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 256MB
max_wal_size = 4GB
"""
"""All that concerns durability is as it comes: fsync and synchronous_commit are on."""


class Server:
    """One of them. *root* is the process from which all of it comes."""

    def __init__(self, folder: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="server-", dir=folder)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # for Postgres: at once, and in good order
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        raise NotImplementedError

    def emptied(self, number: int) -> str:
        """Return the URL of an empty store."""
        raise NotImplementedError

    def _run(self, *command: str, user: str | None = None) -> None:
        with Path(self.folder, "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, user=user)
        began = time.monotonic()
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - began > PATIENCE:
                text = Path(self.folder, "log").read_text(encoding="utf-8")
                raise RuntimeError(f"{command[0]} does not answer:\n{text[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        raise NotImplementedError


class Redis(Server):
    @staticmethod
    def program() -> str | None:
        return shutil.which("redis-server")

    def start(self) -> None:
        program = self.program()
        assert program is not None
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder]
        durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        self._run(program, *place, *durable)

    def emptied(self, number: int) -> str:  # noqa: ARG002  # one database, emptied
        self._ask("FLUSHALL SYNC")
        return f"redis://127.0.0.1:{self.port}/0"

    def _answers(self) -> bool:
        try:
            return self._ask("PING") == "+PONG"
        except OSError:
            return False

    def _ask(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(100).decode().strip()


class Postgres(Server):
    @staticmethod
    def program() -> str | None:
        found = shutil.which("postgres")
        installed = Path("/usr/lib/postgresql").glob("*/bin/postgres")
        newest = max(installed, default=None, key=lambda path: int(path.parts[-3]))
        return str(Path(found or newest).resolve()) if found or newest else None

    def start(self) -> None:
        program = self.program()
        assert program is not None
        self._psql = str(Path(program).with_name("psql"))
        user = None
        if os.getuid() == 0:
            user = "postgres" if _exists("postgres") else "nobody"
            shutil.chown(self.folder, user)
        data = str(Path(self.folder, "data"))
        subprocess.run(
            [
                *(Path(program).with_name("initdb"), "-D", data, "-U", "bench"),
                *("-A", "trust", "-E", "UTF8", "--locale=C"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
            cwd=self.folder,
        )
        with Path(data, "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(f"{POSTGRES}port = {self.port}\n")
        self._run(program, "-D", data, user=user)

    def emptied(self, number: int) -> str:
        self._ask(f"DROP DATABASE IF EXISTS bench{number - 1} WITH (FORCE)")
        self._ask(f"CREATE DATABASE bench{number}")
        self._ask("CHECKPOINT")
        return f"postgresql://bench@127.0.0.1:{self.port}/bench{number}"

    def _answers(self) -> bool:
        try:
            self._ask("SELECT 1")
        except subprocess.CalledProcessError:
            return False
        return True

    def _ask(self, query: str) -> None:
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "bench", "-d", "postgres"]
        subprocess.run([self._psql, "-q", *place, "-c", query], check=True, capture_output=True)


SERVERS: Final[dict[Store, type[Redis | Postgres]]] = {"Redis": Redis, "Postgres": Postgres}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
