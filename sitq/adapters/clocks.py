"""The only file that reads a clock, and the names of machines and boots.

Leases are measured on a clock that goes on while the machine sleeps and that nobody can set:
`CLOCK_BOOTTIME` on Linux. It begins anew at each boot, so a time on it is worth nothing
without the name of the boot. Elsewhere there is no such pair at hand: there leases are
measured on the wall clock, as the epoch `wall` says, and a jump of it can cost a lease
(never a result).
"""

import os
import platform
import time
from functools import cache
from typing import Final

from sitq.protocol.ops import Moment

_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_TIME_NAMESPACE: Final = "/proc/self/ns/time_for_children"


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def lease_seconds() -> float:
    """Return seconds on the clock that leases are measured by."""
    return lease_ms() / 1000


def lease_ms() -> int:
    if epoch() == "wall":
        return wall_ms()
    assert _BOOTTIME is not None
    return time.clock_gettime_ns(_BOOTTIME) // 1_000_000


def moment() -> Moment:
    return Moment(wall_ms(), lease_ms(), epoch())


def monotonic() -> float:
    """Return seconds on a clock for pauses of this process."""
    return time.monotonic()


def sleep_until(deadline: float | None) -> None:
    """Block this thread until `monotonic()` has reached *deadline*."""
    if deadline is not None:
        time.sleep(max(0.0, deadline - time.monotonic()))


@cache
def epoch() -> str:
    """Name the run of the lease clock: this boot, in this time namespace."""
    if _BOOTTIME is None:
        return "wall"
    try:
        with open(_BOOT_ID, encoding="ascii") as file:  # noqa: PTH123
            boot = file.read().strip()
    except OSError:
        return "wall"
    return f"{boot}/{_time_namespace()}"


@cache
def host() -> str:
    return platform.node() or "localhost"


def _time_namespace() -> str:
    try:
        return str(os.stat(_TIME_NAMESPACE).st_ino)  # noqa: PTH116
    except OSError:
        return "0"
