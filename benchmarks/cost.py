"""What it costs to have it: when nothing happens, when much waits, and when Python loads it."""

import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

from benchmarks import loop
from benchmarks.bench import Bench
from benchmarks.footprint import memory_kib, running_seconds, with_children
from benchmarks.peers import PEERS
from benchmarks.peers.base import NOTHING

SETTLE = 0.5
AT_ONCE = 100
IMPORTS = 7


async def idle(bench: Bench) -> dict[str, float]:
    """Watch a worker that has run one task and has no more to do."""
    await bench.crew.hire(1, bench.slots)
    await bench.peer.enqueue(*NOTHING)
    await bench.crew.until(bench.done, "begin the task")
    await loop.sleep(SETTLE)
    pids = bench.crew.pids
    server = with_children(bench.job.server_pid) if bench.job.server_pid else []
    before, server_before = running_seconds(pids), running_seconds(server)
    began = time.monotonic()
    await loop.sleep(bench.size.idle)
    took = time.monotonic() - began
    return {
        "worker": 100 * (running_seconds(pids) - before) / took,
        "server": 100 * (running_seconds(server) - server_before) / took,
        "memory": memory_kib(pids[0]) / 1024,
    }


async def importing(bench: Bench) -> dict[str, float]:
    """Time the import, less an empty interpreter: the quickest of some, since noise only adds.

    Python keeps what it has compiled, as it does for any program, whatever this one was told.
    """
    environment = dict(os.environ, PYTHONPYCACHEPREFIX=f"{bench.job.folder}/compiled")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def quickest(code: str) -> float:
        took = []
        for _ in range(IMPORTS if bench.size.seconds > 0.1 else 1):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            took.append(time.perf_counter() - began)
        return min(took)

    return {"time": (quickest(PEERS[bench.job.peer].imports) - quickest("pass")) * 1e3}


async def waiting(bench: Bench) -> dict[str, float]:
    """Let many async tasks wait in one worker."""
    many = bench.size.waiting
    await bench.crew.hire(1, many)
    await bench.peer.enqueue(*NOTHING)
    await bench.crew.until(bench.done, "begin the task")
    await loop.sleep(SETTLE)
    before = memory_kib(bench.crew.pids[0])
    await bench.peer.feed([("wait", 0)] * many)
    await bench.crew.until(lambda: bench.done() > many, f"begin {many} tasks")
    await loop.sleep(SETTLE)
    return {"memory": (memory_kib(bench.crew.pids[0]) - before) / many}


async def callers(bench: Bench) -> dict[str, float]:
    """Let many callers wait for a result that does not come."""
    many = bench.size.callers
    handles: list[Any] = []

    async def enqueue() -> None:
        handles.append(await bench.peer.enqueue_among_many(*NOTHING))

    for start in range(0, many, AT_ONCE):
        await loop.together([enqueue] * min(AT_ONCE, many - start))
    calls = [partial(bench.peer.result, handle) for handle in handles]
    before = memory_kib(os.getpid())
    for call in calls:
        bench.start(call)
    await loop.sleep(SETTLE + many / 5000)
    return {"memory": (memory_kib(os.getpid()) - before) / many}
