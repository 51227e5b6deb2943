"""Ends a server, and removes its folder, when who started it is gone: `run_keeper FOLDER`.

It reads its input, which ends with that process, however that ended.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

GONE_WITHIN: Final = 10.0
"""Seconds that the server may take to end, before it is killed."""


def main(folder: str) -> None:
    sys.stdin.buffer.read()
    until = time.monotonic() + GONE_WITHIN
    while Path(folder).exists() and time.monotonic() < until:
        end_server(Path(folder))
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)  # one that was just being started may still write into it


def end_server(folder: Path) -> None:
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, IndexError, ValueError):
        return
    until = time.monotonic() + GONE_WITHIN
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)
        while time.monotonic() < until:
            os.kill(pid, 0)
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
