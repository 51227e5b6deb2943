"""The only file that rolls dice."""

import os
import random

from sitq.adapters.virtual import virtual


def unit() -> float:
    """Return a number in [0, 1)."""
    run = virtual()
    return random.random() if run is None else run.unit()  # noqa: S311  # not a secret


def bits_80() -> int:
    """Return a number of 80 bits, which nobody can guess."""
    run = virtual()
    if run is None:
        return int.from_bytes(os.urandom(10))
    # `random()` is all of which Python promises the same numbers in every version.
    return int(run.unit() * 2**40) << 40 | int(run.unit() * 2**40)
