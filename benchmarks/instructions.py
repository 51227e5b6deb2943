"""Counts of what one task costs, for the comparison of one commit with another.

Time is noisy where others use the machine; counts are not. With valgrind they are instructions of
the processor; without it, calls of Python functions. A program is run with few tasks and with many:
the difference, divided by that of the tasks, leaves out what it takes to start.
"""

import os
import re
import shutil
import subprocess
import sys
from typing import Final, NamedTuple

TASKS: Final = 5000
FEW: Final = 1000
PARTS: Final = {
    "enqueue": "enqueue, one after the other",
    "bulk": "enqueue, 1,000 at once",
    "drain": "enqueue so, and drain with 100 slots",
    "results": "and ask for each result",
}
LOOPS: Final = ("asyncio", "trio")
COUNTED: Final = re.compile(r"I\s+refs:\s+([\d,]+)")
CALLS: Final = re.compile(r"(\d+) function calls")


class Count(NamedTuple):
    loop: str
    part: str
    per_task: float


def report(tasks: int = TASKS) -> str:
    """Return the table, in Markdown."""
    unit = "instructions" if shutil.which("valgrind") else "function calls"
    rows = [f"| | loop | {unit} per task |", "|---|---|--:|"]
    rows += [f"| {PARTS[n.part]} | {n.loop} | {n.per_task:,.0f} |" for n in counts(tasks)]
    return "\n".join(rows)


def counts(tasks: int, few: int = FEW) -> list[Count]:
    if tasks <= few:
        raise ValueError(f"--tasks must be more than {few}, and not {tasks}")
    return [
        Count(loop, part, (_count(loop, part, tasks) - _count(loop, part, few)) / (tasks - few))
        for loop in LOOPS
        for part in PARTS
    ]


def _count(loop: str, part: str, tasks: int) -> int:
    play = ["-m", "benchmarks.hot_path", loop, part, str(tasks)]
    valgrind = shutil.which("valgrind")
    if valgrind:
        quiet = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        command = [valgrind, *quiet, sys.executable, *play]
    else:
        command = [sys.executable, "-m", "cProfile", *play]
    # Hashes of strings are salted, and so is the order of sets, without this.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found = (COUNTED if valgrind else CALLS).search(done.stderr if valgrind else done.stdout)
    if found is None:
        raise RuntimeError(f"{command[0]} printed no count:\n{done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))
