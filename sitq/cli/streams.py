"""A program that was started with its standard streams closed.

The promise: the descriptors 0, 1 and 2 are taken. Otherwise the next file to be opened, a queue
file say, would get one of these numbers, and every message would be written into it.
"""

import os
import sys


def open_what_is_closed() -> None:
    """Put the null device where a standard stream is closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so this one
            os.set_inheritable(descriptor, True)  # as standard streams are
    # Python has set None where it found nothing.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
