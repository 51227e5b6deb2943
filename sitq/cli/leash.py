"""What ties a worker to its supervisor: a socket, the worker's standard input.

The promises: the worker says by it that it is ready; and whatever kills the supervisor, the system
closes its end, and the worker drains and ends by itself. Nobody else holds that end: it is not
inherited.
"""

import contextlib
import os
import signal
import threading
import time
from typing import Final

from sitq.cli import stop_signals

PATIENCE: Final = 5.0
"""Seconds, beyond the grace, between what an orphan does about itself."""


class Leash:
    """The worker's end. Its *grace* may be corrected once it is known."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._socket = os.dup(0)  # neither the tasks nor what they start is to find it
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        threading.Thread(target=self._stop_when_orphaned, daemon=True, name="sitq leash").start()

    def say_ready(self) -> None:
        with contextlib.suppress(OSError):  # orphaned; the thread knows
            os.write(self._socket, b".")

    def _stop_when_orphaned(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(self._socket, 16):
                pass
        stop_signals.write(f"sitq: worker {os.getpid()}: its supervisor is gone, so it stops\n")
        for _ in range(stop_signals.KILLED_BY):  # drain, interrupt, kill
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(self.grace + PATIENCE)
