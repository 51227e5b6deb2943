"""Whether a path can hold a queue.

The promise: what is refused is refused by name, and is byte-identical afterwards. Hence an
existing file is looked at through a read-only connection before any other is opened, and
never through a descriptor of our own: closing one would drop SQLite's locks on the file for
the whole process (sqlite.org/howtocorrupt.html, section 2.2).
"""

import contextlib
import os
import re
import sqlite3
import threading
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sitq.exceptions import (
    BackendError,
    FileRefusedError,
    NetworkFileSystemError,
    NotADatabaseError,
    ValidationError,
)

OLDEST: Final = (3, 37, 0)
"""The SQLite that first had STRICT tables; RETURNING came with 3.35."""

SMALLEST: Final = 512
"""Bytes in the smallest database (sqlite.org/fileformat2.html, section 1.2)."""

_JOURNAL: Final = bytes.fromhex("d9d505f920a163d7")
"""How a journal begins that is to be played back."""

# Locks over a network are not those of one host, and WAL needs shared memory besides
# (sqlite.org/wal.html, "all processes must be on the same host computer").
_NETWORK: Final = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.blobfuse", "fuse.blobfuse2",
        "fuse.ceph", "fuse.ceph-fuse", "fuse.curlftpfs", "fuse.davfs", "fuse.gcsfuse",
        "fuse.glusterfs", "fuse.goofys", "fuse.grpcfuse", "fuse.juicefs", "fuse.mount-s3",
        "fuse.mountpoint-s3", "fuse.osxfs", "fuse.rclone", "fuse.s3fs", "fuse.seaweedfs",
        "fuse.sshfs", "fuse.vmhgfs-fuse", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
        "orangefs", "panfs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
        "wekafs",
    }
)  # fmt: skip
_MOUNTS: Final = "/proc/self/mountinfo"

NONSENSE: Final = (ValueError, TypeError, AttributeError, OverflowError)
"""What comes of reading the schema where it is text no more, or no text. SQLite does not look."""

_creating = threading.Lock()


def require_sqlite() -> None:
    """Refuse an SQLite that is too old for the statements."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise BackendError(
            f"sitq needs SQLite {'.'.join(map(str, OLDEST))} or newer, and this Python is linked"
            f" to {sqlite3.sqlite_version}"
        )


def checked_path(path: object) -> str:
    """Return *path* as an absolute path; refuse what cannot be the path of a file."""
    if not isinstance(path, str | os.PathLike):
        raise ValidationError(f"path must be a str or a Path, not {path!r}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise ValidationError(f"path must be text, not {text!r}")
    if not text or "\0" in text:
        raise ValidationError(f"path must name a file, not {text!r}")
    if text == ":memory:":
        raise ValidationError("':memory:' is not a file; for a queue in memory use MemoryBackend()")
    if text.startswith("file:"):
        raise ValidationError(f"path must be a plain path, not the URI {text!r}")
    return os.path.abspath(text)  # noqa: PTH100  # a chdir later must not move the queue


def inspect(path: str) -> sqlite3.Connection | None:
    """Return a read-only connection to the file, None if there is nothing in it yet."""
    file = Path(path)
    try:
        stat = file.stat()
    except FileNotFoundError:
        if not file.parent.is_dir():
            raise FileRefusedError(
                f"{path!r} cannot be created: there is no folder {str(file.parent)!r}; make it first"
            ) from None
        _refuse_network(file)  # a link may lead to where nothing is yet
        return None
    except OSError as error:
        raise FileRefusedError(f"{path!r} cannot be looked at: {error.strerror}") from error
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "not a regular file"
        raise FileRefusedError(f"{path!r} is {kind}; give sitq the path of a file of its own")
    _refuse_network(file)
    if stat.st_size == 0:
        return None
    if stat.st_size < SMALLEST:
        raise NotADatabaseError(
            f"{path!r} is not an SQLite database: it has {stat.st_size} bytes; nothing was changed"
        )
    # A check of the rights alone: SQLite would go on with a file that it may only read.
    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise _unwritable(path, "it may only be read")
    # A file name is bytes: as such it is quoted.
    uri = f"file:{quote(os.fsencode(path))}?mode={'ro' if _was_cut_off(path) else 'rw'}"
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)


def _was_cut_off(path: str) -> bool:
    """Say whether a WAL or a journal is there that whoever opens the file would play back.

    A read-only connection does not: it changes nothing before the file is known to be ours. One
    that may write, in turn, leaves no empty WAL behind.
    """
    path = os.path.realpath(path)  # SQLite, too, follows a link first
    header = b""
    with contextlib.suppress(OSError), open(path + "-journal", "rb") as journal:  # noqa: PTH123
        header = journal.read(20)  # not the database itself
    # Bytes 16 to 19 are the size to go back to (sqlite.org/fileformat2.html, section 3). None: the
    # file was being made, by whomever, and there is nothing in it to be lost, nor in a WAL that a
    # power cut has left there together with that journal.
    if any(header[16:20]):
        return True
    made_anew = len(header) == 20 and header.startswith(_JOURNAL)
    return not made_anew and os.path.exists(path + "-wal")  # noqa: PTH110


def create(path: str) -> None:
    """Create the file for its owner alone, unless it is there. SQLite gives -wal and -shm its mode."""
    with _creating:  # so that no connection of this process can open it before the close below
        try:
            # A link is followed first: what it leads to must be ours as well.
            target = os.path.realpath(path)
            descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        except OSError as error:
            raise FileRefusedError(f"{path!r} cannot be created: {error.strerror}") from error
        os.close(descriptor)


def refusal(path: str, error: sqlite3.Error | MemoryError) -> BackendError | None:
    """Return what *error* means for a file that is being opened, None if it says no more."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return FileRefusedError(
            f"{path!r} was left in the midst of a change by another program that has died (its"
            " -journal is there); nothing was changed. Open it with that program, which mends it"
        )
    match code & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return NotADatabaseError(f"{path!r} is not an SQLite database; nothing was changed")
        case sqlite3.SQLITE_CORRUPT:
            return damaged(path, error)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return _unwritable(path, str(error))
        case _:
            return None


def damaged(path: str, error: Exception) -> NotADatabaseError:
    return NotADatabaseError(
        f"{path!r} is damaged ({error}); nothing was changed. Restore a backup, or save what can be"
        " read with: sqlite3 FILE .recover"
    )


def _unwritable(path: str, why: str) -> FileRefusedError:
    return FileRefusedError(
        f"{path!r} cannot be written ({why}): SQLite needs to write the file and its folder, where"
        " -wal and -shm lie beside it"
    )


def _refuse_network(path: Path) -> None:
    kind = file_system(path)
    if kind in _NETWORK:
        raise NetworkFileSystemError(
            f"{str(path)!r} lies on a network file system ({kind}), where SQLite's locks cannot be"
            " trusted and commits can be lost; use a local disk"
        )


def file_system(path: Path) -> str | None:
    """Return the type of the file system that holds *path*, None where that cannot be told."""
    try:
        lines = Path(_MOUNTS).read_bytes().splitlines()
        real = os.fsencode(path.resolve())
    except OSError:
        return None
    best, kind = b"", None
    for line in lines:
        # mountinfo(5): fields, then a lone dash, then the type; odd characters stand in octal
        before, _, after = line.partition(b" - ")
        mount = re.sub(rb"\\([0-7]{3})", lambda m: bytes((int(m[1], 8),)), before.split()[4])
        inside = real == mount or real.startswith(mount.rstrip(b"/") + b"/")
        if inside and len(mount) >= len(best):
            best, kind = mount, after.split()[0].decode("ascii", "replace")
    return kind
