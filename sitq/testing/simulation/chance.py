"""All the dice of a simulated run, from one number.

The promise: the same seed gives the same numbers on every machine and Python, for ever; and what
one stream draws never moves what another one draws, so that a run can be shrunk piece by piece.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

# The minimal standard generator of Park and Miller, with the factor that they chose in 1993. It is
# good enough for dice, and quick: of floats, whose products are whole numbers below 2**53 here, and
# so exact everywhere. (Python takes three times as long to multiply whole numbers of 64 bits.)
_FACTOR: Final = 48271.0
_PRIME: Final = 2.0**31 - 1
_UNIT: Final = 1 / _PRIME

_MASK: Final = 2**64 - 1


def _mixed(number: int) -> int:
    """Return a number in which each bit depends on all those of *number*."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)


class Chance:
    """A stream of numbers."""

    def __init__(self, seed: int) -> None:
        self._seed = _mixed((seed + 1) * 0x9E3779B97F4A7C15 & _MASK)
        self._state = float(self._seed % (2**31 - 2) + 1)  # from 1 to the prime, without it

    def stream(self, number: int) -> "Chance":
        """Return stream *number* of this run; it takes nothing from this one."""
        return Chance(self._seed + number)

    def unit(self) -> float:
        """Return a number in (0, 1)."""
        state = self._state = self._state * _FACTOR % _PRIME
        return state * _UNIT

    def happens(self, probability: float) -> bool:
        state = self._state = self._state * _FACTOR % _PRIME  # as `unit`: it is asked most
        return state * _UNIT < probability

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.unit()

    def whole(self, least: int, most: int) -> int:
        """Return a whole number from *least* to *most*, both included."""
        return least + int((most - least + 1) * self.unit())

    def pick(self, items: Sequence[T]) -> T:
        state = self._state = self._state * _FACTOR % _PRIME
        return items[int(len(items) * (state * _UNIT))]

    def about(self, mean: float) -> float:
        """Return a delay: mostly less than *mean*, now and then up to five times as long."""
        state = self._state = self._state * _FACTOR % _PRIME
        unit = state * _UNIT
        return mean * 0.5 * unit / (1.1 - unit)
