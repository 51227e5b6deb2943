"""`sitq backup`: a copy of a queue file, while workers and producers go on.

The promises:
- Every task whose enqueue had returned before the copy began is in it.
- Nobody is held up. The pages are copied inside one read transaction, and in WAL mode a reader
  blocks no writer: what is written meanwhile waits in the WAL. SQLite's way to copy begins again
  when the file changes; inside of a transaction it does not see it change.
- No checkpoint of ours: the connection may only read, so it cannot race with a commit.
- At its place is the whole copy or nothing: it is made under another name, for its owner alone,
  checked, synced, and then renamed. What is there already stays, unless it is to be replaced.

The workers of the original are none of the copy: their leases are void there. So the first worker
that opens it takes back at once what was running.
"""

import contextlib
import os
import secrets
import sqlite3
import stat
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import click

from sitq.adapters import clocks, sqlite_file
from sitq.cli import queue_file
from sitq.cli.places import is_server, named
from sitq.cli.terminal import shown
from sitq.exceptions import FileRefusedError, StoreError, ValidationError
from sitq.protocol.lifecycle import FINAL

PAGES: Final = 1024
"""Copied in one step; a Ctrl-C waits for no more."""
BESIDE: Final = ("-wal", "-shm", "-journal")


class Copied(NamedTuple):
    size: int
    states: Counter[str]


def run(path: str, destination: str, *, force: bool) -> None:
    """Copy the queue file, and tell what is in the copy."""
    for where in (path, destination):
        if is_server(where):
            raise _not_of_a_server(where)
    path, destination = sqlite_file.checked_path(path), sqlite_file.checked_path(destination)
    _check_destination(path, destination, force=force)
    began = clocks.monotonic()
    draft = _new_draft(destination)
    try:
        copied = queue_file.look(path, partial(_copy, draft, destination))
        _put(draft, destination, force=force)
    finally:
        for name in (draft, *(draft + suffix for suffix in BESIDE)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108
    _tell(path, destination, copied, clocks.monotonic() - began)


def _not_of_a_server(url: str) -> ValidationError:
    return ValidationError(
        f"{named(url)} is a database, and `sitq backup` copies files alone. Take its provider's"
        " backup, or: pg_dump --format=custom --schema=sitq --file=sitq.dump URL, and to restore it"
        " into an empty database: pg_restore --dbname=URL sitq.dump. The dump is of one moment, and"
        " producers and workers may go on meanwhile"
    )


def _tell(path: str, destination: str, copied: Copied, seconds: float) -> None:
    click.echo(
        f"copied {shown(path)} to {shown(destination)}: {copied.size:,} bytes in {seconds:.2f} s,"
        " integrity ok"
    )
    found = (f"{count:,} {state}" for state, count in sorted(copied.states.items()))
    click.echo(f"tasks: {', '.join(map(shown, found)) or 'none'}")
    left = sum(count for state, count in copied.states.items() if state not in FINAL)
    if left:
        click.echo(
            f"{left:,} of them have not ended: a worker on the copy runs them, whether or not the"
            " original does, too"
        )


# -- where it goes -----------------------------------------------------------------------


def _check_destination(path: str, destination: str, *, force: bool) -> None:
    if not Path(destination).parent.is_dir():
        raise FileRefusedError(f"{destination!r} cannot be made: its folder is not there")
    if os.path.lexists(destination):
        if os.path.exists(path) and os.path.samefile(path, destination):  # noqa: PTH110, PTH121
            raise FileRefusedError(f"{destination!r} is the queue file itself")
        if not stat.S_ISREG(os.lstat(destination).st_mode):
            raise FileRefusedError(f"{destination!r} is there and no regular file")
        if not force:
            raise _exists(destination)
    for suffix in BESIDE:
        if os.path.lexists(destination + suffix):
            raise FileRefusedError(
                f"{destination + suffix!r} is there: a program has {destination!r} open, or it was"
                " left by one that died, and it would be taken for a part of the copy. Choose"
                " another name, or remove it once nobody uses it"
            )


def _exists(destination: str) -> FileRefusedError:
    return FileRefusedError(
        f"{destination!r} is there already, and was left as it is; choose another name, or replace"
        " it with --force"
    )


def _new_draft(destination: str) -> str:
    folder, name = os.path.split(destination)
    draft = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(4)}.draft")  # noqa: PTH118
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise FileRefusedError(f"{destination!r} cannot be made: {error.strerror}") from error
    return draft


def _put(draft: str, destination: str, *, force: bool) -> None:
    """Give the draft its name, once all of it is on the disk."""
    try:
        _sync(draft)
        if force:
            os.replace(draft, destination)  # noqa: PTH105
        else:
            _rename_to_what_is_free(draft, destination)
        _sync(os.path.dirname(destination))  # noqa: PTH120
    except FileExistsError as error:  # it came meanwhile
        raise _exists(destination) from error
    except OSError as error:
        raise StoreError(f"{destination!r} could not be written: {error.strerror}") from error


def _rename_to_what_is_free(draft: str, destination: str) -> None:
    try:
        os.link(draft, destination, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: then a look before the rename has to do
        if os.path.lexists(destination):
            raise _exists(destination) from None
        os.rename(draft, destination)  # noqa: PTH104


def _sync(path: str) -> None:
    # The copy is closed by now: no lock of SQLite's is lost with this descriptor.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- the copy ----------------------------------------------------------------------------


def _copy(draft: str, destination: str, live: sqlite3.Connection, path: str) -> Copied:
    """Copy what *live* sees now; called again if it turns out that it could not see all."""
    live.execute("BEGIN")
    live.execute("SELECT count(*) FROM sitq_schema").fetchall()  # what is seen now stays so
    os.truncate(draft, 0)
    name = f"file:{quote(os.fsencode(draft))}?mode=rw"
    try:
        with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as copy:
            for setting in (
                "trusted_schema = OFF",
                "locking_mode = EXCLUSIVE",
                "synchronous = OFF",
            ):
                copy.execute(f"PRAGMA {setting}")
            live.backup(copy, pages=PAGES)
            # All in one file, that can be read from where nothing can be written, too.
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
            found = "; ".join(row[0] for row in copy.execute("PRAGMA integrity_check(5)"))
            if found != "ok":
                raise StoreError(
                    f"{path!r} is damaged, and was not copied ({found}). Save what can be read"
                    " with: sqlite3 FILE .recover"
                )
            copy.execute("UPDATE sitq_workers SET epoch = ''")
            states = copy.execute("SELECT state, count(*) FROM sitq_tasks GROUP BY state")
            return Copied(queue_file.size(draft), Counter(dict(states.fetchall())))
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
            raise  # of the original
        raise StoreError(
            f"{destination!r} could not be written: {error}; nothing was left there"
        ) from error
