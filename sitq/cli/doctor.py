"""`sitq doctor`: what could go wrong here, said before it does."""

import json
import platform
import sqlite3
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import click
from rich.table import Table

import sitq
from sitq.adapters import clocks, sqlite_file
from sitq.adapters.sqlite import needs_gate
from sitq.backends.postgres import require_psycopg
from sitq.cli import doctor_disk, doctor_queue, queue_file
from sitq.cli.finding import COLOURS, Finding
from sitq.cli.places import check_schema_goes_with, is_server
from sitq.cli.terminal import cell, console
from sitq.exceptions import (
    FileRefusedError,
    ForeignFileError,
    NetworkFileSystemError,
    NewerSchemaError,
    NotADatabaseError,
    SitqError,
    ValidationError,
)
from sitq.storage.sqlite_schema import VERSION

CLOCK_SLACK_MS: Final = 60_000


TO_DO: Final[dict[type[SitqError], str]] = {
    FileRefusedError: "check the path; a queue file is made by the first program that uses it",
    ValidationError: "check the path",
    NetworkFileSystemError: "move it to a local disk",
    NewerSchemaError: "upgrade sitq here, too",
    ForeignFileError: "give sitq a file of its own",
    NotADatabaseError: "restore a backup, or give sitq a file of its own",
}
"""For a file that is refused; nothing was changed."""


def run(where: str | None, schema: str, *, as_json: bool) -> int:
    """Print the findings; return the exit code."""
    check_schema_goes_with(where, schema)
    if where is not None and is_server(where):
        require_psycopg()
        from sitq.cli import doctor_server

        findings = [*_programs("psycopg"), *doctor_server.examine(where, schema)]
    else:
        findings = list(_environment())
        if where is not None:
            findings += _file(where)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        table = Table("", "about", "found", "what to do")
        for finding in findings:
            table.add_row(cell(finding.verdict, COLOURS[finding.verdict]), *map(cell, finding[1:]))
        out = console()
        out.print(table)
        counted = Counter(finding.verdict for finding in findings)
        out.print(", ".join(f"{counted[verdict]} {verdict}" for verdict in COLOURS))
    return int(any(finding.verdict == "FAIL" for finding in findings))


# -- the environment -------------------------------------------------------------------


def _programs(driver: str) -> Iterator[Finding]:
    yield Finding("OK", "platform", f"{platform.platform()}, Python {sys.version.split()[0]}")
    versions = [f"sitq {sitq.__version__}"]
    for name in ("anyio", driver, "cloudpickle", "trio"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    yield Finding("OK", "packages", ", ".join(versions))


def _environment() -> Iterator[Finding]:
    yield from _programs("aiosqlite")
    yield _sqlite()
    if clocks.epoch() == "wall":
        yield Finding(
            "WARN", "lease clock", "the wall clock", "do not let it jump while workers run"
        )
    else:
        yield Finding("OK", "lease clock", "boot time: a jump of the wall clock costs no lease")


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version_info
    if version < sqlite_file.OLDEST:
        oldest = ".".join(map(str, sqlite_file.OLDEST))
        return Finding("FAIL", "SQLite", sqlite3.sqlite_version, f"needs {oldest} or newer")
    if needs_gate(version):
        return Finding(
            "WARN",
            "SQLite",
            f"{sqlite3.sqlite_version}, which has the WAL-reset bug (3.7.0 to 3.51.2)",
            "sitq checkpoints only under the write lock, so its own commits are safe; let no other"
            " program write to a queue file, or use SQLite 3.51.3 or newer",
        )
    return Finding("OK", "SQLite", sqlite3.sqlite_version)


# -- one file --------------------------------------------------------------------------


def _file(path: str) -> list[Finding]:
    try:
        return queue_file.look(path, lambda db, full: [*_outside(full), *_inside(db, full)])
    except SitqError as error:
        return [Finding("FAIL", "file", str(error), TO_DO.get(type(error), "nothing was changed"))]


def _outside(path: str) -> Iterator[Finding]:
    found = Path(path).stat()
    mode = stat.S_IMODE(found.st_mode)
    yield Finding("OK", "file", f"{path}, {found.st_size:,} bytes, of {_owner(Path(path))}")
    if mode & 0o022:
        yield Finding("WARN", "mode", f"{mode:o}: others can write it", f"chmod 600 {path}")
    elif mode & 0o044:
        yield Finding("WARN", "mode", f"{mode:o}: others can read it", f"chmod 600 {path}")
    else:
        yield Finding("OK", "mode", f"{mode:o}: for its owner alone")
    yield _folders(Path(path).resolve())
    kind = sqlite_file.file_system(Path(path))
    yield Finding("OK", "file system", kind or "of a kind that cannot be told here")
    yield from doctor_disk.room(path)


def _folders(path: Path) -> Finding:
    """Find out who else could put another file in this one's place."""
    owners = {0, path.stat().st_uid}
    for folder in path.parents:
        found = folder.stat()
        mode = stat.S_IMODE(found.st_mode)
        others_write = mode & 0o022 and not mode & stat.S_ISVTX
        if others_write or found.st_uid not in owners:
            return Finding(
                "WARN",
                "folder",
                f"{folder} has mode {mode:o} and is of {_owner(folder)}: others can replace"
                " the file",
                "whoever can write a queue file can run code as its workers: move it, or"
                f" chmod go-w {folder}",
            )
    return Finding("OK", "folder", "nobody else can replace the file")


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, NotImplementedError):  # no name is known, or no names at all
        return f"user {path.stat().st_uid}"


def _inside(db: sqlite3.Connection, path: str) -> Iterator[Finding]:
    ((version,),) = db.execute("SELECT version FROM sitq_schema").fetchall()
    if version == VERSION:
        yield Finding("OK", "schema", f"version {version}")
    else:
        to_do = "it is migrated when a program opens it; keep a copy if older ones still use it"
        yield Finding("WARN", "schema", f"version {version}, this sitq has {VERSION}", to_do)
    mode = queue_file.journal_mode(db, path)
    to_do = "" if mode == "wal" else "it becomes wal when a program of sitq opens it"
    yield Finding("OK" if mode == "wal" else "WARN", "journal mode", mode, to_do)
    yield from doctor_disk.wal(db, path)
    found = "; ".join(row[0] for row in db.execute("PRAGMA integrity_check(5)").fetchall())
    if found == "ok":
        yield Finding("OK", "integrity", found)
    else:
        to_do = "stop all workers, keep a copy, then: sqlite3 FILE .recover"
        yield Finding("FAIL", "integrity", found, to_do)
    yield from _workers(db, path)
    yield from _tasks(db)


def _workers(db: sqlite3.Connection, path: str) -> Iterator[Finding]:
    rows = queue_file.workers(db, path)
    yield from doctor_disk.replaced(db, path)
    yield from doctor_queue.alive(rows, "start a worker: it takes back what they held")
    unseen = [str(row.pid) for row in rows if row.alive is None]
    if unseen:
        to_do = "if they are dead, their tasks come back when their leases run out"
        found = f"no liveness lock of pid {', '.join(unseen)}"
        yield Finding("WARN", "liveness locks", found, to_do)
    orphans = queue_file.orphans(path, rows)
    if orphans:
        found = f"{len(orphans)} without a worker: {', '.join(orphans[:3])}"
        yield Finding("WARN", "lock files", found, f"harmless; delete them from {path}-workers")
    yield from doctor_queue.unserved(rows, queue_file.counts(db))


def _tasks(db: sqlite3.Connection) -> Iterator[Finding]:
    yield from doctor_queue.parked(queue_file.parked(db))
    ahead = queue_file.from_the_future(db, CLOCK_SLACK_MS)
    if ahead:
        to_do = "set the clock: tasks with a delay wait until it has caught up"
        yield Finding("WARN", "clock", f"{ahead:,} tasks were enqueued in the future", to_do)
    else:
        yield Finding("OK", "clock", "no task is from the future")
