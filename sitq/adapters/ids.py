"""Where ids are made: UUIDs of version 7 (RFC 9562), 48 bits of wall time in ms, then chance.

Chance is asked for some hundred ids at once: whoever asks the kernel lets other threads have the
interpreter meanwhile, and may wait for it then. The promise: what one process has asked for, its
forks do not use.
"""

import os
from functools import lru_cache
from typing import Final

from sitq.adapters import chance, clocks
from sitq.adapters.virtual import virtual

AHEAD: Final = 256
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_tails: list[str] = []
"""What follows the time, of ids to come."""


def new_id() -> str:
    if virtual() is not None:
        (digits,) = chance.hex_80(1)
        return _head(clocks.wall_ms()) + _tail(digits)
    try:
        tail = _tails.pop()
    except IndexError:
        tail, *more = map(_tail, chance.hex_80(AHEAD))
        _tails.extend(more)
    return _head(clocks.wall_ms()) + tail


@lru_cache(maxsize=2)
def _head(wall_ms: int) -> str:
    digits = f"{wall_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def _tail(digits: str) -> str:
    return f"{digits[:3]}-{_VARIANT[digits[4]]}{digits[5:8]}-{digits[8:]}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tails.clear)
