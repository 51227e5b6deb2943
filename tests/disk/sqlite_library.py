"""The SQLite that Python's `sqlite3` uses, as seen from C: its structs and where it is.

Field by field as in sqlite3.h, "OS Interface Objects". The promise: what is found is the very
library that `sqlite3` calls, or `NoWayInError` says why there is none.
"""

import ctypes
import sqlite3
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from typing import Final


class NoWayInError(Exception):
    """This Python's SQLite cannot be reached by ctypes."""


def library() -> ctypes.CDLL:
    import _sqlite3

    # The extension module itself: a symbol that it lacks is looked up in what it is linked to. A
    # Python that has it built in shows its own symbols.
    file = getattr(_sqlite3, "__file__", None)
    lib = ctypes.CDLL(file)
    try:
        version, find, register = (
            lib.sqlite3_libversion,
            lib.sqlite3_vfs_find,
            lib.sqlite3_vfs_register,
        )
    except AttributeError as error:
        raise NoWayInError(
            f"the SQLite of this Python is linked into {file or 'the interpreter'} and hides its"
            f" names ({error}), so no VFS can be put before it; use a Python with a shared SQLite"
        ) from error
    version.restype = c_char_p
    if version().decode() != sqlite3.sqlite_version:
        raise NoWayInError(
            f"found SQLite {version().decode()} by {file}, but sqlite3 uses"
            f" {sqlite3.sqlite_version}: that is another library"
        )
    find.restype, find.argtypes = c_void_p, [c_char_p]
    register.argtypes = [c_void_p, c_int]
    lib.sqlite3_randomness.argtypes = [c_int, c_void_p]
    return lib


Address = c_void_p
_FILE: Final = c_void_p  # sqlite3_file *


class IoMethods(ctypes.Structure):
    """sqlite3_io_methods: what can be done with an open file."""

    _fields_ = (
        ("iVersion", c_int),
        ("xClose", CFUNCTYPE(c_int, _FILE)),
        ("xRead", CFUNCTYPE(c_int, _FILE, Address, c_int, c_int64)),
        ("xWrite", CFUNCTYPE(c_int, _FILE, Address, c_int, c_int64)),
        ("xTruncate", CFUNCTYPE(c_int, _FILE, c_int64)),
        ("xSync", CFUNCTYPE(c_int, _FILE, c_int)),
        ("xFileSize", CFUNCTYPE(c_int, _FILE, Address)),
        ("xLock", CFUNCTYPE(c_int, _FILE, c_int)),
        ("xUnlock", CFUNCTYPE(c_int, _FILE, c_int)),
        ("xCheckReservedLock", CFUNCTYPE(c_int, _FILE, Address)),
        ("xFileControl", CFUNCTYPE(c_int, _FILE, c_int, Address)),
        ("xSectorSize", CFUNCTYPE(c_int, _FILE)),
        ("xDeviceCharacteristics", CFUNCTYPE(c_int, _FILE)),
        # version 2
        ("xShmMap", CFUNCTYPE(c_int, _FILE, c_int, c_int, c_int, POINTER(Address))),
        ("xShmLock", CFUNCTYPE(c_int, _FILE, c_int, c_int, c_int)),
        ("xShmBarrier", CFUNCTYPE(None, _FILE)),
        ("xShmUnmap", CFUNCTYPE(c_int, _FILE, c_int)),
        # version 3
        ("xFetch", CFUNCTYPE(c_int, _FILE, c_int64, c_int, POINTER(Address))),
        ("xUnfetch", CFUNCTYPE(c_int, _FILE, c_int64, Address)),
    )


_VFS: Final = c_void_p  # sqlite3_vfs *


class Vfs(ctypes.Structure):
    """sqlite3_vfs: a way to the files. What is not called from here is a bare address."""

    _fields_ = (
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", Address),
        ("zName", c_char_p),
        ("pAppData", Address),
        # Names are addresses: behind a name stand the parameters of its URI.
        ("xOpen", CFUNCTYPE(c_int, _VFS, Address, _FILE, c_int, Address)),
        ("xDelete", CFUNCTYPE(c_int, _VFS, Address, c_int)),
        ("xAccess", CFUNCTYPE(c_int, _VFS, Address, c_int, Address)),
        ("xFullPathname", Address),
        ("xDlOpen", Address),
        ("xDlError", Address),
        ("xDlSym", Address),
        ("xDlClose", Address),
        ("xRandomness", CFUNCTYPE(c_int, _VFS, c_int, Address)),
        ("xSleep", CFUNCTYPE(c_int, _VFS, c_int)),
        ("xCurrentTime", Address),
        ("xGetLastError", Address),
        # version 2
        ("xCurrentTimeInt64", Address),
        # version 3
        ("xSetSystemCall", Address),
        ("xGetSystemCall", Address),
        ("xNextSystemCall", Address),
    )
