"""Bells that other processes of this host can ring: datagram sockets in a folder.

Whoever wants to hear of something hangs a bell, named for what it wants to hear of; whoever has
news rings all bells of that name. Nothing depends on it: a ring that is lost costs a poll, or a
waiter's pause. So nothing here ever waits, and nothing here raises.
"""

import contextlib
import logging
import os
import socket
import sys
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from sitq.adapters import chance, clocks

log: Final = logging.getLogger("sitq.bells")

LONGEST_ADDRESS: Final = 100
"""Bytes: what an address may have on every system (sun_path, unix(7): 108 on Linux, 104 on macOS)."""
SETTLED_AFTER_MS: Final = 50
"""Time stamps of folders are as coarse as a tick of the kernel (10 ms at most): another change may
hide behind one that is younger than this."""
IDS_IN_A_RING: Final = 100
RINGS_IN_A_TURN: Final = 100


class Want(StrEnum):
    """What somebody wants to hear of; the ending of the bell's name."""

    WORK = "work"
    """Tasks were enqueued, or came back."""
    ENDS = "ends"
    """Tasks have ended; the ring says which."""


class Bells(Protocol):
    def hang(self, want: Want) -> "Bell | None":
        """Return what is rung from here on for *want*; None where there can be none."""
        ...

    def ring(self, want: Want, ids: Sequence[str] = ()) -> None:
        """Ring all bells for *want* but those that were hung by this very object."""


class NoBells:
    """Where nobody else can be told: a store in memory, or a platform without such sockets."""

    def hang(self, want: Want) -> "Bell | None":  # noqa: ARG002
        return None

    def ring(self, want: Want, ids: Sequence[str] = ()) -> None: ...


class Bell:
    """A socket that others ring; *end* is called when it is taken down, or with this object."""

    def __init__(self, descriptor: int, end: Callable[[], object]) -> None:
        self.descriptor = descriptor
        self._end = weakref.finalize(self, end)

    def heard(self) -> list[str]:
        """Return the ids in all rings that are there."""
        ids: list[str] = []
        with contextlib.suppress(OSError):
            for _ in range(RINGS_IN_A_TURN):
                ids += os.read(self.descriptor, 65536).decode("utf-8", "replace").split("\n")
        return [id_ for id_ in ids if id_]

    def take_down(self) -> None:
        self._end()


def _remove(descriptor: int, path: Path, pid: int) -> None:
    if os.getpid() == pid:  # the child of a fork leaves it where it is
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError):
        os.close(descriptor)


class SocketFiles:
    """Bells as datagram sockets in a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._path = os.fspath(self._folder)
        self._own: set[str] = set()
        self._sender: socket.socket | None = None
        self._pid = os.getpid()
        self._listed: dict[Want, list[str]] = {}
        self._listed_at = -1  # the folder's time stamp then
        self._may_have_changed = True

    def hang(self, want: Want) -> Bell | None:
        path = self._folder / f"{chance.bits_80():020x}.{want}"
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            receiver.setblocking(False)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with _address(path) as address:
                receiver.bind(address)
            self._own.add(path.name)
            descriptor = receiver.detach()  # a program need not close its backends
            return Bell(descriptor, partial(_remove, descriptor, path, os.getpid()))
        except OSError as error:
            log.info("no doorbell in %s, new tasks are found by polling: %s", self._folder, error)
            return None
        finally:
            receiver.close()

    def ring(self, want: Want, ids: Sequence[str] = ()) -> None:
        try:
            names = self._names(want)
            if names:
                self._ring(names, _rings(ids))
        except OSError as error:
            log.info("the doorbells in %s cannot be rung: %s", self._folder, error)

    def _ring(self, names: Iterable[str], rings: Sequence[bytes]) -> None:
        if self._sender is None or self._pid != os.getpid():
            self._sender, self._pid = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), os.getpid()
            self._sender.setblocking(False)
            weakref.finalize(self, self._sender.close)
        for name in names:
            path = self._folder / name
            with _address(path) as address:
                try:
                    for ring in rings:
                        self._sender.sendto(ring, address)
                except BlockingIOError:
                    pass  # it has been rung often enough
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)  # its process has died
                except FileNotFoundError:
                    pass  # it was taken down just now

    def _names(self, want: Want) -> list[str]:
        try:
            changed_ns = os.stat(self._path).st_mtime_ns  # noqa: PTH116  # this is a hot path
        except FileNotFoundError:
            return []  # nobody has ever listened
        if changed_ns != self._listed_at or self._may_have_changed:
            self._listed = {want: [] for want in Want}
            for name in os.listdir(self._folder):  # noqa: PTH208
                _, _, ending = name.rpartition(".")
                if ending in _WANTS and name not in self._own:
                    self._listed[Want(ending)].append(name)
            self._listed_at = changed_ns
            age_ms = clocks.wall_ms() - changed_ns // 1_000_000
            self._may_have_changed = age_ms < SETTLED_AFTER_MS
        return self._listed[want]


_WANTS: Final = frozenset(want.value for want in Want)


def _rings(ids: Sequence[str]) -> list[bytes]:
    """Return *ids* as datagrams; one without any id, if there are none."""
    parts = [ids[i : i + IDS_IN_A_RING] for i in range(0, len(ids), IDS_IN_A_RING)] or [()]
    return ["\n".join(part).encode() for part in parts]


@contextlib.contextmanager
def _address(path: Path) -> Generator[str]:
    """Give the address of a socket; a long one by way of an open folder, on Linux."""
    text = str(path)
    if len(os.fsencode(text)) <= LONGEST_ADDRESS or sys.platform != "linux":
        yield text
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bells_in(folder: str) -> Bells:
    """Return the bells in *folder*, which is made when the first is hung."""
    has_them = hasattr(socket, "AF_UNIX") and sys.platform != "win32"
    return SocketFiles(folder) if has_them else NoBells()
