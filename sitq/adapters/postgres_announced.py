"""Which batches others have announced: they are about to commit them.

Whoever enqueues takes a lock, under a key that nobody else will ever use, tells that key, commits and
lets go of the lock: all that is sent at once. So a worker hears of it while the server still waits
for its disk, and asks for tasks at once: its statements wait for that lock, on the server, and find
what was stored. A wait is short, and where it was too short nothing is lost but time: who takes
longer to commit tells of it once more.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from sitq.adapters import chance, clocks

ARRIVES_WITHIN: Final = 0.05
"""Seconds from the announcement to the end of the commit; it is half of what is waited for."""
MOST: Final = 100
"""Keys that are kept; where more come at once, the oldest are not waited for."""
KEYS: Final = 2**62
"""Of how many one is chosen: the server's have 64 bits, and a sign."""


def new_key() -> int:
    """Return a key that nobody else has."""
    return chance.bits_80() % KEYS


class Announced:
    """The keys of what was announced to this process, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: deque[tuple[float, int]] = deque(maxlen=MOST)

    def __reduce__(self) -> tuple[type["Announced"], tuple[()]]:
        return Announced, ()

    def add(self, text: str) -> None:
        """Take note of the key that was told; anybody may notify, so it may be anything."""
        if len(text) <= len(str(KEYS)) and text.isdecimal() and int(text) < KEYS:
            with self._lock:
                self._heard.append((clocks.monotonic(), int(text)))

    def since(self, looked_at: float) -> tuple[float, Sequence[int]]:
        """Return what time it is, and what was heard since *looked_at* and may not be there yet."""
        with self._lock:
            now = clocks.monotonic()
            oldest = max(looked_at, now - ARRIVES_WITHIN)
            return now, [key for heard_at, key in self._heard if heard_at > oldest]
