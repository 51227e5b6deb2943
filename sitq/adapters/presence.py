"""Liveness locks: files that the operating system unlocks when a process dies.

The promises: a worker's file is locked before its row is in the store, and every life has a
file of its own, so a lock that is found free means that the life is over. A process that was
killed is known to be dead as soon as somebody looks. Where that cannot be told (no such file,
no such locks on this platform), nobody is called dead, and the lease decides.

`flock` and not `fcntl` locks: closing any other descriptor of a file drops the latter. The
descriptors are closed on exec; a forked child closes its copies, which leaves the lock with
the parent.
"""

import contextlib
import logging
import os
import stat
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

if sys.platform != "win32":  # which has no flock: there the lease alone decides
    import fcntl


log: Final = logging.getLogger("sitq.lease")


class Presence(Protocol):
    def enter(self, worker_id: str) -> None:
        """Hold the lock of this life from here on."""

    def leave(self, worker_id: str) -> None: ...

    def dead(self, worker_ids: Sequence[str]) -> tuple[str, ...]:
        """Return those whose process is certainly dead."""
        ...

    def sweep(self, worker_ids: Sequence[str]) -> None:
        """Remove what dead workers left behind."""


class NoPresence:
    """Where nobody can be seen: a store in memory, or a platform without `flock`."""

    def enter(self, worker_id: str) -> None: ...

    def leave(self, worker_id: str) -> None: ...

    def dead(self, worker_ids: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def sweep(self, worker_ids: Sequence[str]) -> None: ...


class LockFiles:
    """One locked file for each living worker, in a folder beside the queue file."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._held: dict[str, int] = {}
        _held_here.add(self)

    def enter(self, worker_id: str) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._path(worker_id), flags, 0o600)
            self._held[worker_id] = descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Without its file nobody takes this worker for dead, and its lease decides.
            log.warning("no liveness lock in %s, the lease alone decides: %s", self._folder, error)
            self.leave(worker_id)

    def leave(self, worker_id: str) -> None:
        self.sweep((worker_id,))  # before the lock is free: an empty place tells nobody anything
        descriptor = self._held.pop(worker_id, None)
        if descriptor is not None:
            os.close(descriptor)

    def dead(self, worker_ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(id_ for id_ in worker_ids if id_ not in self._held and self._is_free(id_))

    def sweep(self, worker_ids: Sequence[str]) -> None:
        for worker_id in worker_ids:
            with contextlib.suppress(OSError):
                self._path(worker_id).unlink()

    def _is_free(self, worker_id: str) -> bool:
        try:
            descriptor = os.open(self._path(worker_id), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)

    def _path(self, worker_id: str) -> Path:
        return self._folder / f"{worker_id}.lock"

    def _drop_copies(self) -> None:
        for descriptor in self._held.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._held.clear()


_held_here: "weakref.WeakSet[LockFiles]" = weakref.WeakSet()


def _after_fork() -> None:
    for files in list(_held_here):
        files._drop_copies()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def own_folder(name: str) -> str | None:
    """Return the path of a folder for what processes of one user and host share; None if unfit.

    It lies in the user's folder for what does not outlive a boot, or else where temporary files do,
    and is nobody else's: another user's locks would make living workers look dead.
    """
    if sys.platform == "win32":
        return None
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = (
        Path(runtime) / name if runtime else Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    )
    try:
        path.mkdir(mode=0o700, parents=False, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        log.warning("no liveness locks in %s, the lease alone decides: %s", path, error)
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        log.warning("%s is not this user's alone: no liveness locks, the lease alone decides", path)
        return None
    return str(path)


def lock_files(folder: str) -> Presence:
    """Return the liveness locks in *folder*, which is made when the first worker enters."""
    return NoPresence() if sys.platform == "win32" else LockFiles(folder)
