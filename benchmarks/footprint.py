"""What a process costs, as Linux has it in /proc: processor time and memory."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return what these processes have used, and their children that are gone."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        except OSError:
            continue
        total += sum(int(ticks) for ticks in text.rpartition(")")[2].split()[11:15])
    return total / TICKS


def running_seconds(pids: Iterable[int]) -> float:
    """Return how long the threads that these processes have now have run, to the nanosecond.

    What is idle uses a tick or two of `cpu_seconds` in ten seconds. Where Linux was built without
    that count, there are only ticks.
    """
    if not Path("/proc/self/schedstat").exists():
        return cpu_seconds(pids)
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # it has ended
                total += int(thread.read_text(encoding="ascii").split()[0])
    return total / 1e9


def memory_kib(pid: int) -> int:
    """Return its share of the memory: what it has alone, and a part of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no line that begins with 'Pss:'")


def with_children(root: int) -> list[int]:
    """Return the process and all that come from it."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            parents[int(folder.name)] = int(text.rpartition(")")[2].split()[1])
    family = [root]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def busy_seconds() -> float:
    """Return what all processes of the machine have used, all cores together."""
    with Path("/proc/stat").open(encoding="ascii") as stat:
        ticks = [int(text) for text in stat.readline().split()[1:9]]
    user, nice, system, _idle, _waiting, *interrupts, _stolen = ticks
    return (user + nice + system + sum(interrupts)) / TICKS
