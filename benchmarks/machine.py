"""What the figures were measured on, and with which versions."""

import json
import os
import platform
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.servers import SERVERS

ASK = """
import json, re, sys
from importlib.metadata import PackageNotFoundError, version
found = {"Python": sys.version.split()[0]}
for need in json.loads(sys.argv[1]):
    try:
        found[need] = version(need)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def described(pythons: Mapping[str, str], folder: str | None) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(Path(folder or tempfile.gettempdir()).resolve()),
        "SQLite": sqlite3.sqlite_version,
        "servers": _servers(pythons),
        "versions": {name: _versions(name, python) for name, python in pythons.items()},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system whose mount point is nearest above *folder*."""
    kinds = {}
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, *_ = line.split()
        kinds[Path(point)] = kind
    return next(kinds[above] for above in (folder, *folder.parents) if above in kinds)


def _servers(pythons: Mapping[str, str]) -> list[str]:
    """Return the servers with the versions that they say they have."""
    said = []
    for store in sorted({PEERS[name].store for name in pythons} & SERVERS.keys()):
        program = SERVERS[store].program()
        assert program is not None
        done = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
        number = re.search(r"\d+(\.\d+)+", done.stdout)
        said.append(f"{store} {number[0] if number else done.stdout.strip()}")
    return said


def _versions(name: str, python: str) -> dict[str, str]:
    needs = [need.partition("[")[0] for need in PEERS[name].needs]
    if PEERS[name].store in SERVERS:
        needs += ["redis", "hiredis", "psycopg", "psycopg-pool"]
    if PEERS[name].file == "sitq":
        needs += ["anyio", PEERS[name].loop]
    if PEERS[name].file in {"sitq", "by_hand"}:
        needs.append("aiosqlite")
    done = subprocess.run(
        [python, "-c", ASK, json.dumps(needs)], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))
