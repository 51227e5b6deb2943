"""How the hosts of a run and their processes are called: `a1` is the first life of host `a`.

The promise: each host has a name of its own, in letters alone, so that a number can follow it.
"""

from typing import Final

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_DIGITS: Final = "0123456789"


def node_name(number: int) -> str:
    """Return the name of a host: `a` to `z`, and then `aa`, `ab` and so on."""
    name = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, len(_LETTERS))
        name = _LETTERS[letter] + name
    return name


def node_of(process: str) -> str:
    """Return the name of the host of a process."""
    return process.rstrip(_DIGITS)
