"""The only file that reads a clock, and the names of machines, processes and boots.

Leases are measured on a clock that goes on while the machine sleeps and that nobody can set:
`CLOCK_BOOTTIME` on Linux. It begins anew at each boot, so a time on it is worth nothing
without the name of the boot. Elsewhere there is no such pair at hand: there leases are
measured on the wall clock, as the epoch `wall` says, and a jump of it can cost a lease
(never a result).

Inside a virtual run all of them are that run's: the same on every machine.
"""

import os
import platform
import time
from functools import cache
from typing import Final

from sitq.adapters.virtual import virtual
from sitq.exceptions import VirtualTimeError
from sitq.protocol.ops import Moment

_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_TIME_NAMESPACE: Final = "/proc/self/ns/time_for_children"


def wall_ms() -> int:
    run = virtual()
    return time.time_ns() // 1_000_000 if run is None else run.wall_ms()


def lease_seconds() -> float:
    """Return seconds on the clock that leases are measured by."""
    run = virtual()
    return lease_ms() / 1000 if run is None else run.seconds()


def lease_ms() -> int:
    run = virtual()
    if run is not None:
        return run.lease_ms()
    if _boot() == "wall":
        return wall_ms()
    assert _BOOTTIME is not None
    return time.clock_gettime_ns(_BOOTTIME) // 1_000_000


def moment() -> Moment:
    if virtual() is not None or _BOOTTIME is None or _boot() == "wall":
        return Moment(wall_ms(), lease_ms(), epoch())
    lease_ns = time.clock_gettime_ns(_BOOTTIME)
    return Moment(time.time_ns() // 1_000_000, lease_ns // 1_000_000, _boot())


def monotonic() -> float:
    """Return seconds on a clock for pauses of this process."""
    run = virtual()
    return time.monotonic() if run is None else run.seconds()


def sleep(seconds: float) -> None:
    """Block this thread."""
    run = virtual()
    if run is None:
        time.sleep(seconds)
    else:
        run.skip(seconds)


def step_aside(seconds: float) -> None:
    """Let other threads and processes go first; in a virtual run there is none."""
    if virtual() is None:
        time.sleep(seconds)


def wait_until(deadline: float | None) -> None:
    """Block this thread until `monotonic()` has reached *deadline*, while others go on."""
    if virtual() is not None:
        raise VirtualTimeError(
            "SyncTaskQueue waits by blocking its thread, and a virtual run has no other thread in"
            " which something could happen meanwhile; use TaskQueue, or look once with timeout=0"
        )
    if deadline is not None:
        sleep(max(0.0, deadline - monotonic()))


def epoch() -> str:
    """Name the run of the lease clock: this boot, in this time namespace."""
    run = virtual()
    return _boot() if run is None else run.epoch


def host() -> str:
    return _node() if virtual() is None else "virtual"


def pid() -> int:
    return os.getpid() if virtual() is None else 1


@cache
def _boot() -> str:
    if _BOOTTIME is None:
        return "wall"
    try:
        with open(_BOOT_ID, encoding="ascii") as file:  # noqa: PTH123
            boot = file.read().strip()
    except OSError:
        return "wall"
    return f"{boot}/{_time_namespace()}"


@cache
def _node() -> str:
    return platform.node() or "localhost"


def _time_namespace() -> str:
    try:
        return str(os.stat(_TIME_NAMESPACE).st_ino)  # noqa: PTH116
    except OSError:
        return "0"
