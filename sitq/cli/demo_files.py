"""Which files the demo takes, and which queue file it may use, or delete.

A task's id is made from the file's path, size and time of change, so the same command on the
same files enqueues nothing twice. The Python version is in it, too: a path that speaks of
`__main__` is pickled by value, which another version could not read.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from sitq.cli import queue_file
from sitq.cli.demo_tasks import examine
from sitq.cli.terminal import shown
from sitq.serialization import BY_VALUE
from sitq.validation import name_of

PREFIX: Final = "demo-"
NAME: Final = name_of(examine)
PASSED_OVER: Final = frozenset({"__pycache__", "site-packages"})


class File(NamedTuple):
    """A file as it was found; its task's id changes whenever it does."""

    path: str
    size: int
    changed_ns: int

    @property
    def task_id(self) -> str:
        facts = f"{self.path}\0{self.size}\0{self.changed_ns}\0{BY_VALUE}"
        digest = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{PREFIX}{digest[:32]}"

    def is_as_found(self) -> bool:
        try:
            return _found(self.path) == self
        except OSError:
            return False


class Found(NamedTuple):
    files: dict[str, File]
    """By task id."""
    unreadable: list[str]
    """Files and folders that this user may not read."""


def below(root: Path, queue_path: str) -> Found:
    """Find every regular file below *root*, but for the queue file's own."""
    unreadable: list[str] = []
    files: dict[str, File] = {}
    for path in _paths(root, unreadable):
        if path == queue_path or path.startswith(f"{queue_path}-"):
            continue
        if not os.access(path, os.R_OK):
            unreadable.append(path)
            continue
        with contextlib.suppress(OSError):  # it vanished since its folder was read
            file = _found(path)
            files[file.task_id] = file
    return Found(files, unreadable)


def _paths(root: Path, unreadable: list[str]) -> Iterator[str]:
    def cannot(error: OSError) -> None:
        unreadable.append(str(error.filename))

    for folder, folders, names in os.walk(root, onerror=cannot):
        folders[:] = sorted(set(folders) - PASSED_OVER)
        for name in sorted(names):
            path = os.path.join(folder, name)  # noqa: PTH118
            if os.path.isfile(path) and not os.path.islink(path):  # noqa: PTH113, PTH114
                yield path


def _found(path: str) -> File:
    stat = os.stat(path)  # noqa: PTH116
    return File(path, stat.st_size, stat.st_mtime_ns)


# -- the queue file --------------------------------------------------------------------


def require_ours(path: str) -> None:
    """Refuse a queue file that holds other work, or that somebody else has put there.

    The demo's workers run what is in the file.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return
    if hasattr(os, "geteuid") and stat.st_uid != os.geteuid():
        raise click.ClickException(
            f"{shown(path)} belongs to another user, and whoever can write a queue file can run"
            " code as its workers; choose another one with --file"
        )
    if stat.st_size == 0:
        return
    _, others, _ = queue_file.look(path, _counted)
    if others:
        raise click.ClickException(
            f"{shown(path)} holds tasks that are not of a demo ({others:,}); it was not touched."
            " Choose another one with --file"
        )


def forget(path: str) -> None:
    """Delete the file of an earlier demo, and nothing else."""
    require_ours(path)
    if queue_file.size(path) == 0:
        return
    ours, _, pids = queue_file.look(path, _counted)
    if pids:
        raise click.ClickException(
            f"a worker is at work on {shown(path)} (pid {', '.join(map(str, pids))}), so it was"
            " not deleted; end that demo first"
        )
    if ours:
        for part in (path, f"{path}-wal", f"{path}-shm"):
            Path(part).unlink(missing_ok=True)


def _counted(db: sqlite3.Connection, path: str) -> tuple[int, int, list[int]]:
    """Return how many tasks are of a demo, how many are not, and who is at work."""
    ((ours, everything),) = db.execute(
        "SELECT count(*) FILTER (WHERE name = ? AND substr(id, 1, ?) = ?), count(*)"
        " FROM sitq_tasks",
        (NAME, len(PREFIX), PREFIX),
    ).fetchall()
    pids = [worker.pid for worker in queue_file.workers(db, path) if worker.alive]
    return ours, everything - ours, pids


def relative(paths: Iterable[str], root: Path, most: int) -> str:
    """Return the first *most* of *paths*, seen from *root*, and how many more there are."""
    names = [shown(os.path.relpath(path, root)) for path in paths]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
