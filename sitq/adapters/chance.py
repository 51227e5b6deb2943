"""The only file that rolls dice."""

import os
import random

from sitq.adapters.virtual import virtual


def unit() -> float:
    """Return a number in [0, 1)."""
    run = virtual()
    return random.random() if run is None else run.unit()  # noqa: S311  # not a secret


def hex_80(count: int) -> list[str]:
    """Return numbers of 80 bits, which nobody can guess, as 20 digits each.

    Outside of a virtual run there are so many; to ask for one costs the most.
    """
    if virtual() is not None:
        return [f"{bits_80():020x}"]
    digits = os.urandom(10 * count).hex()
    return [digits[i : i + 20] for i in range(0, 20 * count, 20)]


def bits_80() -> int:
    """Return a number of 80 bits, which nobody can guess."""
    run = virtual()
    if run is None:
        return int.from_bytes(os.urandom(10))
    # `random()` is all of which Python promises the same numbers in every version.
    return int(run.unit() * 2**40) << 40 | int(run.unit() * 2**40)
