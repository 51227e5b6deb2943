"""The commands as their users type them: real processes, their output in a pipe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


class Shell:
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
    shell = Shell(tmp_path)
    yield shell
    shell.end()


@pytest.fixture
def garden(tmp_path):
    """A folder with some hundred files of several kinds."""
    root = tmp_path / "garden"
    for n in range(300):
        folder = root / f"bed{n % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"plant{n}.{('txt', 'py', 'dat')[n % 3]}").write_bytes(b"a rose\n" * n)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x.pyc").write_bytes(b"no")
    (root / "link").symlink_to(root / "bed0")
    return root
