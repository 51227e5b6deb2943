"""A VFS between SQLite and the operating system: all that a connection does passes through here.

It is the default VFS while it is installed, so production code runs through it unchanged. A file
is opened by the VFS below, in the memory that SQLite has given; then its table of methods is
swapped for one of ours, whose entries tell the watcher and call those below.

The promises: without a watcher nothing is changed but what is listed in `_QUIET`; and what goes
wrong in here is not lost (SQLite would see an I/O error): `uninstall` raises it.
"""

import contextlib
import ctypes
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from ctypes import c_void_p
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from tests.disk.sqlite_library import IoMethods, NoWayInError, Vfs, library

OK: Final = sqlite3.SQLITE_OK
_QUIET: Final = """
- A sync is not passed on: no power cut will ever meet the files of a test.
- A pause takes no time: SQLite makes some when a lock of the WAL is taken.
- Dice are always the same, so that a run can be made again, byte for byte.
"""


class Call(NamedTuple):
    """One call of SQLite to its VFS."""

    kind: str
    file: str
    """The last part of its path."""
    offset: int = 0
    size: int = 0
    data: bytes = b""
    """What is written."""
    dirsync: bool = False
    """Whether the folder is synced, too."""
    detail: str = ""

    def __str__(self) -> str:
        where = f" @{self.offset}+{self.size}" if self.kind in {"read", "write"} else ""
        size = f" to {self.size}" if self.kind == "truncate" else ""
        return f"{self.kind} {self.file}{where}{size}{self.detail}"


class Watcher(Protocol):
    def before(self, call: Call) -> int | None:
        """Return None to let *call* be done, or the code with which it is refused."""
        ...

    def part_of(self, call: Call) -> int:
        """Return how many bytes of a write that is refused were written nevertheless."""
        ...

    def after(self, call: Call, code: int) -> None: ...


class _File:
    def __init__(self, name: str, base: IoMethods, flags: int) -> None:
        self.name = name
        self.base = base
        # unixOpen sets UNIXFILE_DIRSYNC for a journal or a WAL that is opened to be created: the
        # first sync of such a file syncs its folder as well.
        new = flags & _OPEN_CREATE and flags & (
            _OPEN_MAIN_JOURNAL | _OPEN_SUPER_JOURNAL | _OPEN_WAL
        )
        self.dirsync = bool(new)


_OPEN_CREATE: Final = 0x4
_OPEN_MAIN_JOURNAL: Final = 0x800
_OPEN_SUPER_JOURNAL: Final = 0x4000
_OPEN_WAL: Final = 0x80000
_LOCKS: Final = {0: "none", 1: "shared", 2: "reserved", 3: "pending", 4: "exclusive"}

_watcher: Watcher | None = None
_broken: list[BaseException] = []
_files: dict[int, _File] = {}
_tables: dict[int, IoMethods] = {}  # ours, by the address of the one below; kept for ever


class _Base:
    lib: ctypes.CDLL
    vfs: Vfs
    address: int
    ours: Vfs


@contextlib.contextmanager
def watched_by(watcher: Watcher | None) -> Iterator[None]:
    """Let *watcher* see every call of every connection of this process; None: nobody."""
    global _watcher  # noqa: PLW0603  # as there is one default VFS
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def _passed(call: Call, do: Callable[[], int]) -> int:
    watcher = _watcher
    if watcher is None:
        return do()
    try:
        code = watcher.before(call)
        if code is None:
            code = do()
        watcher.after(call, code)
        return code
    except BaseException as error:  # it must not pass through C
        _broken.append(error)
        return sqlite3.SQLITE_IOERR


# -- the methods of a file -----------------------------------------------------------------


def _close(p: int) -> int:
    file = _files[p]
    # Whatever the watcher answers: a file that is not closed would leak.
    code = OK if _watcher is None else _passed(Call("close", file.name), lambda: OK)
    done = file.base.xClose(p)
    _files.pop(p, None)
    return code or done


def _read(p: int, to: int, size: int, offset: int) -> int:
    file = _files[p]
    if _watcher is None:
        return file.base.xRead(p, to, size, offset)
    call = Call("read", file.name, offset, size)
    return _passed(call, lambda: file.base.xRead(p, to, size, offset))


def _write(p: int, data: int, size: int, offset: int) -> int:
    file, watcher = _files[p], _watcher
    if watcher is None:
        return file.base.xWrite(p, data, size, offset)
    call = Call("write", file.name, offset, size, ctypes.string_at(data, size))
    try:
        code = watcher.before(call)
        if code is None:
            code = file.base.xWrite(p, data, size, offset)
        elif part := watcher.part_of(call):
            file.base.xWrite(p, data, part, offset)
        watcher.after(call, code)
        return code
    except BaseException as error:
        _broken.append(error)
        return sqlite3.SQLITE_IOERR


def _truncate(p: int, size: int) -> int:
    file = _files[p]
    return _passed(Call("truncate", file.name, size=size), lambda: file.base.xTruncate(p, size))


def _sync(p: int, flags: int) -> int:
    file = _files[p]
    code = _passed(Call("sync", file.name, dirsync=file.dirsync), lambda: OK)
    if code == OK:
        file.dirsync = False
    return code


def _size(p: int, to: int) -> int:
    file = _files[p]
    return _passed(Call("size", file.name), lambda: file.base.xFileSize(p, to))


def _lock(p: int, level: int) -> int:
    file = _files[p]
    call = Call("lock", file.name, detail=f" {_LOCKS[level]}")
    return _passed(call, lambda: file.base.xLock(p, level))


def _unlock(p: int, level: int) -> int:
    # Done in any case, as the one below does: what may be refused is the answer.
    file = _files[p]
    done = file.base.xUnlock(p, level)
    return _passed(Call("unlock", file.name, detail=f" {_LOCKS[level]}"), lambda: done)


def _check_reserved(p: int, to: int) -> int:
    file = _files[p]
    return _passed(Call("reserved", file.name), lambda: file.base.xCheckReservedLock(p, to))


def _control(p: int, op: int, arg: int) -> int:
    file = _files[p]
    call = Call("control", file.name, detail=f" {op}")
    return _passed(call, lambda: file.base.xFileControl(p, op, arg))


def _shm_map(p: int, page: int, size: int, extend: int, to: Any) -> int:
    file = _files[p]
    to[0] = None  # as it is where it fails
    call = Call("shm map", file.name, detail=f" {page}")
    return _passed(call, lambda: file.base.xShmMap(p, page, size, extend, to))


def _shm_lock(p: int, offset: int, n: int, flags: int) -> int:
    file = _files[p]
    what = "exclusive" if flags & 8 else "shared"
    detail = f" {what} {offset}+{n}"
    if flags & 1:
        done = file.base.xShmLock(p, offset, n, flags)
        return _passed(Call("shm unlock", file.name, detail=detail), lambda: done)
    call = Call("shm lock", file.name, detail=detail)
    return _passed(call, lambda: file.base.xShmLock(p, offset, n, flags))


def _shm_barrier(p: int) -> None:
    file = _files[p]
    file.base.xShmBarrier(p)
    _passed(Call("shm barrier", file.name), lambda: OK)


def _shm_unmap(p: int, delete: int) -> int:
    file = _files[p]
    done = file.base.xShmUnmap(p, delete)
    return _passed(Call("shm unmap", file.name), lambda: done)


_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "xClose": _close,
    "xRead": _read,
    "xWrite": _write,
    "xTruncate": _truncate,
    "xSync": _sync,
    "xFileSize": _size,
    "xLock": _lock,
    "xUnlock": _unlock,
    "xCheckReservedLock": _check_reserved,
    "xFileControl": _control,
    "xShmMap": _shm_map,
    "xShmLock": _shm_lock,
    "xShmBarrier": _shm_barrier,
    "xShmUnmap": _shm_unmap,
}


def _table_over(address: int) -> IoMethods:
    """Return our table for files whose methods are in the table at *address*."""
    if address not in _tables:
        base = IoMethods.from_address(address)
        table = _tables[address] = IoMethods()
        ctypes.memmove(ctypes.addressof(table), address, ctypes.sizeof(IoMethods))
        for name, kind in IoMethods._fields_:
            since = 3 if "etch" in name else 2 if name.startswith("xShm") else 1
            if since <= base.iVersion and name in _METHODS and getattr(base, name):
                setattr(table, name, kind(_METHODS[name]))
    return _tables[address]


# -- the methods of the VFS ----------------------------------------------------------------


def _name_at(address: int | None) -> str:
    if not address:
        return "temporary"
    return os.path.basename(os.fsdecode(ctypes.string_at(address)))


def _open(vfs: int, name: int | None, p: int, flags: int, out: int | None) -> int:
    methods = c_void_p.from_address(p)  # the first field of every sqlite3_file
    methods.value = None  # as it is where it fails

    def do() -> int:
        code = _Base.vfs.xOpen(_Base.address, name, p, flags, out)
        if code == OK:
            assert methods.value
            base = IoMethods.from_address(methods.value)
            methods.value = ctypes.addressof(_table_over(methods.value))
            _files[p] = _File(_name_at(name), base, flags)
        return code

    return _passed(Call("open", _name_at(name)), do)


def _delete(vfs: int, name: int, dirsync: int) -> int:
    call = Call("delete", _name_at(name), dirsync=bool(dirsync))
    return _passed(call, lambda: _Base.vfs.xDelete(_Base.address, name, 0))


def _access(vfs: int, name: int, flags: int, out: int) -> int:
    call = Call("access", _name_at(name))
    return _passed(call, lambda: _Base.vfs.xAccess(_Base.address, name, flags, out))


def _randomness(vfs: int, size: int, to: int) -> int:
    ctypes.memmove(to, bytes(n * 37 % 251 for n in range(size)), size)
    return size


def _sleep(vfs: int, microseconds: int) -> int:
    return microseconds


# -- putting it in its place ---------------------------------------------------------------


def install() -> None:
    """Make it the default VFS. Raises `NoWayInError` where that cannot be done."""
    if not hasattr(_Base, "ours"):
        _Base.lib = library()
        _Base.address = _Base.lib.sqlite3_vfs_find(None)
        _Base.vfs = Vfs.from_address(_Base.address)
        ours = Vfs()
        ctypes.memmove(ctypes.addressof(ours), _Base.address, ctypes.sizeof(Vfs))
        ours.pNext, ours.zName = None, b"sitq-tests"
        kinds = dict(Vfs._fields_)
        ours.xOpen = kinds["xOpen"](_open)
        ours.xDelete = kinds["xDelete"](_delete)
        ours.xAccess = kinds["xAccess"](_access)
        ours.xRandomness = kinds["xRandomness"](_randomness)
        ours.xSleep = kinds["xSleep"](_sleep)
        _Base.ours = ours
    code = _Base.lib.sqlite3_vfs_register(ctypes.addressof(_Base.ours), 1)
    if code != OK:
        raise NoWayInError(f"SQLite does not take a VFS (code {code})")
    if not _is_seen():
        uninstall()
        raise NoWayInError("a VFS was put before an SQLite that is not the one sqlite3 uses")


def uninstall() -> None:
    """Give the place back; connections that are open go on through here."""
    _Base.lib.sqlite3_vfs_register(_Base.address, 1)
    raise_what_broke()


def raise_what_broke() -> None:
    if _broken:
        error = _broken[0]
        _broken.clear()
        raise error


def forget_dice() -> None:
    """Let SQLite roll the same dice again."""
    _Base.lib.sqlite3_randomness(0, None)


def _is_seen() -> bool:
    before = len(_tables)
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder, "seen.db"))
        try:
            db.execute("PRAGMA user_version").fetchall()
            return len(_files) > 0 or len(_tables) > before
        finally:
            db.close()
