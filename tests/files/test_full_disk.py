"""A disk that is full: enqueues fail by name, workers wait, and nothing is done twice for it.

Two ways to a full disk: a small file system of its own, where this machine lets us mount one; and
everywhere, a limit on the size of files.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("full_disk.py")
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'


def on_a_small_disk(folder: Path, *command: object) -> list[str]:
    """The command, in a mount namespace where *folder* is a disk of 2 MiB."""
    return ["unshare", "-Urm", "sh", "-c", MOUNT, "sh", str(folder), *map(str, command)]


def can_mount(folder: Path) -> bool:
    try:
        done = subprocess.run(on_a_small_disk(folder, "true"), capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["limit", "disk"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_worker_keeps_what_has_ended_until_there_is_room_again(tmp_path, loop, kind) -> None:
    command = [sys.executable, SCRIPT, tmp_path, loop, kind]
    if kind == "disk":
        if not can_mount(tmp_path):
            pytest.skip("no mount namespaces here; the other kind was tried")
        command = on_a_small_disk(tmp_path, *command)
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)

    if kind == "disk":
        assert seen["unknown"] == 0
        assert len(seen["errors"]) == 3
        assert all("no room is left on the disk" in error for error in seen["errors"])
    else:  # a disk that fails inside COMMIT may have stored it, as far as anybody can know
        assert seen["unknown"] + len(seen["errors"]) == 3
    assert seen["while full"] == {"running": 4}, "nothing was stored, and nothing was lost"
    assert seen["results"] == [0, 1, 2, 3, 100]
    assert seen["at the end"] == {"success": 5}
    assert seen["starts"] == {"0": 1, "1": 1, "2": 1, "3": 1, "100": 1}
    assert seen["attempts"] == [[1, 0]] * 4
