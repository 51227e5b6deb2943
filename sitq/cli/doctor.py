"""`sitq doctor`: what could go wrong here, said before it does."""

import json
import os
import platform
import sqlite3
import stat
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import click
from rich.console import Console
from rich.table import Table

import sitq
from sitq.adapters import clocks, sqlite_file
from sitq.adapters.sqlite import needs_gate
from sitq.cli import queue_file
from sitq.exceptions import SitqError

LARGE_WAL = 64 * 2**20

Verdict: TypeAlias = Literal["OK", "WARN", "FAIL"]


class Finding(NamedTuple):
    verdict: Verdict
    about: str
    found: str
    to_do: str = ""


def run(path: str | None, *, as_json: bool) -> int:
    """Print the findings; return the exit code."""
    findings = list(environment())
    if path is not None:
        findings += file(os.path.abspath(path))  # noqa: PTH100
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        colours = {"OK": "green", "WARN": "yellow", "FAIL": "red"}
        table = Table("", "about", "found", "what to do")
        for finding in findings:
            verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
            table.add_row(verdict, *(_plain(text) for text in finding[1:]))
        Console().print(table)
    return int(any(finding.verdict == "FAIL" for finding in findings))


def environment() -> Iterator[Finding]:
    """Find out about this Python and its SQLite."""
    yield Finding("OK", "platform", f"{platform.platform()}, Python {sys.version.split()[0]}")
    versions = [f"sitq {sitq.__version__}"]
    for name in ("anyio", "aiosqlite", "cloudpickle", "trio"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    yield Finding("OK", "packages", ", ".join(versions))
    version = sqlite3.sqlite_version_info
    if version < sqlite_file.OLDEST:
        oldest = ".".join(map(str, sqlite_file.OLDEST))
        yield Finding("FAIL", "SQLite", sqlite3.sqlite_version, f"needs {oldest} or newer")
    elif needs_gate(version):
        yield Finding(
            "WARN",
            "SQLite",
            f"{sqlite3.sqlite_version}, which has the WAL-reset bug (3.7.0 to 3.51.2)",
            "sitq checkpoints only under the write lock, so its own commits are safe; let no other"
            " program write to a queue file, or use SQLite 3.51.3 or newer",
        )
    else:
        yield Finding("OK", "SQLite", sqlite3.sqlite_version)
    if clocks.epoch() == "wall":
        yield Finding(
            "WARN", "lease clock", "the wall clock", "do not let it jump while workers run"
        )
    else:
        yield Finding("OK", "lease clock", "boot time: a jump of the wall clock costs no lease")


def file(path: str) -> Iterator[Finding]:
    """Find out about one queue file."""
    try:
        with queue_file.opened(path) as db:
            yield Finding("OK", "file", f"{path}, {queue_file.size(path):,} bytes")
            yield from _permissions(path)
            yield from _health(db, path)
            yield from _tasks(db, path)
    except SitqError as error:
        yield Finding("FAIL", "file", str(error), "nothing was changed")


def _permissions(path: str) -> Iterator[Finding]:
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if mode & 0o022:
        yield Finding("WARN", "mode", f"{mode:o}: others can write it", f"chmod 600 {path}")
    else:
        yield Finding("OK", "mode", f"{mode:o}")
    folder = Path(path).parent
    folder_mode = stat.S_IMODE(folder.stat().st_mode)
    if folder_mode & 0o022 and not folder_mode & stat.S_ISVTX:
        yield Finding(
            "WARN",
            "folder",
            f"{folder} has mode {folder_mode:o}: others can replace the file",
            "whoever can write a queue file can run code as its workers: move it",
        )
    kind = sqlite_file.file_system(Path(path))
    yield Finding("OK", "file system", kind or "of a kind that cannot be told here")


def _health(db: sqlite3.Connection, path: str) -> Iterator[Finding]:
    ((mode,),) = db.execute("PRAGMA journal_mode").fetchall()
    yield Finding("OK" if mode == "wal" else "WARN", "journal mode", mode)
    wal = queue_file.size(path + "-wal")
    if wal > LARGE_WAL:
        to_do = "a program keeps a long read open; find and end it"
        yield Finding("WARN", "WAL", f"{wal:,} bytes", to_do)
    else:
        yield Finding("OK", "WAL", f"{wal:,} bytes")
    found = "; ".join(row[0] for row in db.execute("PRAGMA integrity_check(5)").fetchall())
    if found == "ok":
        yield Finding("OK", "integrity", found)
    else:
        to_do = "stop all workers, keep a copy, then: sqlite3 FILE .recover"
        yield Finding("FAIL", "integrity", found, to_do)


def _tasks(db: sqlite3.Connection, path: str) -> Iterator[Finding]:
    for error, count in queue_file.parked(db):
        to_do = "start a worker with the Python and the serializer that wrote them"
        yield Finding("WARN", "parked tasks", f"{count:,}: {error}", to_do)
    workers = queue_file.workers(db, path)
    dead = [worker for worker in workers if not worker["alive"]]
    if dead:
        pids = ", ".join(str(worker["pid"]) for worker in dead)
        to_do = "start a worker: it takes back what they held"
        yield Finding("WARN", "workers", f"{len(dead)} died (pid {pids})", to_do)
    else:
        yield Finding("OK", "workers", f"{len(workers)} at work")
    ((ahead,),) = db.execute(
        "SELECT count(*) FROM sitq_tasks WHERE enqueued_ms > ?", (clocks.wall_ms() + 60_000,)
    ).fetchall()
    if ahead:
        to_do = "set the clock: tasks with a delay wait until it has caught up"
        yield Finding("WARN", "clock", f"{ahead:,} tasks were enqueued in the future", to_do)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
