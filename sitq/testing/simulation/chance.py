"""All the dice of a simulated run, from one number.

The promise: the same seed gives the same numbers on every machine and Python, for ever; and what
one stream draws never moves what another one draws, so that a run can be shrunk piece by piece.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

_MASK: Final = 2**64 - 1
# The generator of Knuth's MMIX (The Art of Computer Programming, volume 2, section 3.3.4): the
# high bits of a linear congruence are good enough for dice, and it is ten lines of integers.
_FACTOR: Final = 6364136223846793005
_STEP: Final = 1442695040888963407
_UNIT: Final = 2.0**-53


class Chance:
    """A stream of numbers."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK
        for _ in range(3):  # so that neighbouring seeds part at once
            self._state = (self._state * _FACTOR + _STEP) & _MASK
            self._state ^= self._state >> 29

    def stream(self, number: int) -> "Chance":
        """Return stream *number* of this run; it takes nothing from this one."""
        return Chance(self._state ^ ((number + 1) * 0x9E3779B97F4A7C15))

    def unit(self) -> float:
        """Return a number in [0, 1)."""
        state = self._state = (self._state * _FACTOR + _STEP) & _MASK
        return (state >> 11) * _UNIT

    def happens(self, probability: float) -> bool:
        state = self._state = (self._state * _FACTOR + _STEP) & _MASK  # as `unit`: it is asked most
        return (state >> 11) * _UNIT < probability

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.unit()

    def whole(self, least: int, most: int) -> int:
        """Return a whole number from *least* to *most*, both included."""
        return least + int((most - least + 1) * self.unit())

    def pick(self, items: Sequence[T]) -> T:
        state = self._state = (self._state * _FACTOR + _STEP) & _MASK
        return items[int(len(items) * ((state >> 11) * _UNIT))]

    def about(self, mean: float) -> float:
        """Return a delay: mostly less than *mean*, now and then up to five times as long."""
        state = self._state = (self._state * _FACTOR + _STEP) & _MASK
        unit = (state >> 11) * _UNIT
        return mean * 0.5 * unit / (1.1 - unit)
