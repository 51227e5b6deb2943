"""Counts of what one task costs, for the comparison of one commit with another.

Time is noisy where others use the machine; counts are not. With valgrind they are instructions of
the processor; without it, calls of Python functions. Each part is played with few tasks and with
many: the difference, divided by that of the tasks, leaves out what it takes to start.
"""

import os
import re
import shutil
import subprocess
import sys
from typing import Final, NamedTuple

from benchmarks.hot_path import LOOPS, NEEDS, PARTS

TASKS: Final = 2000
FEW: Final = 500
REFS: Final = re.compile(r"^==(\d+)== I\s+refs:\s+([\d,]+)", re.MULTILINE)


class Count(NamedTuple):
    loop: str
    part: str
    per_task: float


def report(tasks: int = TASKS) -> str:
    """Return the table, in Markdown."""
    valgrind = shutil.which("valgrind")
    unit = "instructions" if valgrind else "calls of functions"
    rows = [f"| {unit} per task | {' | '.join(LOOPS)} |", "|---|--:|--:|"]
    found = {(n.loop, n.part): n.per_task for n in counts(tasks, valgrind=valgrind)}
    rows += [
        f"| {words} | " + " | ".join(f"{found[loop, part]:,.0f}" for loop in LOOPS) + " |"
        for part, words in PARTS.items()
    ]
    return "\n".join(rows)


def counts(tasks: int, few: int = FEW, *, valgrind: str | None = None) -> list[Count]:
    """Count instructions by the program *valgrind*, or else calls."""
    if tasks <= few:
        raise ValueError(f"--tasks must be more than {few}, and not {tasks}")
    play = [sys.executable, "-m", "benchmarks.hot_path", str(few), str(tasks)]
    if valgrind:
        quiet = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        play = [valgrind, *quiet, *play]
    else:
        play.append("--calls")
    # Hashes of strings are salted, and so is the order of sets, without this.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(play, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"it ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return per_task(done.stdout, done.stderr, few, tasks)


def per_task(printed: str, said: str, few: int, many: int) -> list[Count]:
    """Return the counts: what `hot_path` printed, and what valgrind *said* of its processes."""
    of_process = {pid: int(refs.replace(",", "")) for pid, refs in REFS.findall(said)}
    counted = {}
    for line in printed.splitlines():
        loop, part, tasks, pid, *calls = line.split()
        counted[loop, part, int(tasks)] = int(calls[0]) if calls else of_process[pid]
    slope = {
        (loop, part): (counted[loop, part, many] - counted[loop, part, few]) / (many - few)
        for loop in LOOPS
        for part in PARTS
    }
    return [
        Count(loop, part, cost - slope.get((loop, NEEDS.get(part, "")), 0.0))
        for (loop, part), cost in slope.items()
    ]
