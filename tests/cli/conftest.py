"""The commands as their users type them: real processes, their output in a pipe."""

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from sitq.cli.commands import sitq


class Shell:
    """A folder to type commands in. What was started is ended for certain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *args: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "sitq.cli", *map(str, args)],
            cwd=self.folder,
            env=os.environ | {"COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *args: object, code: int = 0) -> str:
        """Run a command to its end; return what it prints, the errors where it fails."""
        process = self.start(*args)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == code, (out, errors)
        return out if code == 0 else out + errors

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def shell(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    shell = Shell(folder)
    yield shell
    shell.end()


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Run a command in this process: faster, where no process of its own is needed."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("COLUMNS", "160")

    def run(*args: object, code: int = 0) -> str:
        result = CliRunner().invoke(sitq, [str(arg) for arg in args])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


def wait_for(condition, seconds: float = 30.0):
    """Wait until something is true; return what it was."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"not in {seconds} s"
        time.sleep(0.01)
    return found


@pytest.fixture
def wait_heard():
    """Wait until a signal was delivered: two that are pending at once would be one."""

    def heard(process) -> bool:
        with open(f"/proc/{process.pid}/status") as status:
            pending = [line.split()[1] for line in status if line.startswith(("SigPnd", "ShdPnd"))]
        return not any(int(bits, 16) for bits in pending)

    return lambda process: wait_for(lambda: heard(process))


def contents(folder: Path) -> dict[str, str]:
    """Return what each file below *folder* holds."""
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def children(pid: int) -> list[int]:
    """Return the processes that *pid* has started, and that live."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(status.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def successes(path: Path) -> int:
    """Return how many tasks of a queue file are done, 0 while there is no such file."""
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
    ):
        return db.execute("SELECT count(*) FROM sitq_tasks WHERE state = 'success'").fetchone()[0]
    return 0
