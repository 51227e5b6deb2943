"""Runs it all: in each round every workload, and in each workload every peer, one after the other.

So the peers of one workload run within seconds of each other, and whatever else the machine does
meets them alike. Every run has a process, a folder and an empty store of its own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks.footprint import busy_seconds, cpu_seconds, with_children
from benchmarks.job import SIZES, Job
from benchmarks.peers import PEERS
from benchmarks.servers import SERVERS
from benchmarks.workloads import WORKLOADS

PATIENCE = 300.0
ROOT = Path(__file__).parents[1]


def pythons(peers: Sequence[str], venvs: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the Python that has each peer's library, and why the others are left out."""
    found, missing = {}, {}
    for name in peers:
        peer = PEERS[name]
        own = venvs and venvs / peer.file / "bin" / "python"
        if peer.store in SERVERS and SERVERS[peer.store].program() is None:
            missing[name] = f"there is no {peer.store} server here"
        elif own and own.exists():
            found[name] = str(own)
        elif peer.is_importable_here:
            found[name] = sys.executable
        else:
            missing[name] = f"{' and '.join(peer.needs) or peer.loop} is not installed"
    return found, missing


def run(
    pythons: Mapping[str, str],
    workloads: Sequence[str],
    *,
    rounds: int,
    size: str,
    folder: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield each run as it ends: its peer, workload and round, and its figures or why it has none."""
    with ExitStack() as stack:
        place = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="bench-", dir=folder, ignore_cleanup_errors=True)
        )
        Path(place).chmod(0o755)  # a server may belong to somebody else
        stores = {PEERS[name].store for name in pythons} & SERVERS.keys()
        servers = {store: stack.enter_context(SERVERS[store](place)) for store in sorted(stores)}
        number = 0
        for turn in range(rounds):
            for workload in workloads:
                if turn >= WORKLOADS[workload].rounds:
                    continue
                names = list(pythons) if turn % 2 == 0 else reversed(pythons)
                for name in names:  # nobody is always the first
                    if lack(name, workload, size) is not None:
                        continue
                    number += 1
                    server = servers.get(PEERS[name].store)
                    own = tempfile.mkdtemp(prefix=f"{name}-", dir=place)
                    url, pid = (server.emptied(number), server.root) if server else (None, None)
                    job = Job(name, workload, size, own, url, pid)
                    about = {"peer": name, "workload": workload, "round": turn}
                    yield about | _watched(pythons[name], job)
                    shutil.rmtree(own, ignore_errors=True)


def lack(name: str, workload: str, size: str) -> str | None:
    """Return what *name* has not for this workload, None if it has all that it needs."""
    for need in WORKLOADS[workload].needs:
        if need == "deep" and SIZES[size].deep > PEERS[name].most:
            return f"{SIZES[size].deep:,} tasks take too long to enqueue"
        if need in PEERS[name].lacks:
            return PEERS[name].lacks[need]
    return None


def _watched(python: str, job: Job) -> dict[str, Any]:
    """Measure, and look at what others did meanwhile, in cores."""
    pid = job.server_pid
    began, busy, own = time.monotonic(), busy_seconds(), _own_seconds(pid)
    result = _measure(python, job)
    took = time.monotonic() - began
    others = (busy_seconds() - busy) - (_own_seconds(pid) - own)
    return result | {"seconds": round(took, 2), "others": round(max(0.0, others) / took, 2)}


def _measure(python: str, job: Job) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [python, "-m", "benchmarks.measure", job.text()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=job.folder,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return {"error": f"it had not ended after {PATIENCE:.0f} s"}
        finally:
            # It is a group of its own: no worker outlives it, whatever becomes of it or of us.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    last = printed.strip().rpartition("\n")[2]
    try:
        return dict(json.loads(last))
    except ValueError:
        return {"error": complaints[-3000:] or f"it printed {printed[-3000:]!r}"}


def _own_seconds(server: int | None) -> float:
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + (cpu_seconds(with_children(server)) if server else 0.0)
