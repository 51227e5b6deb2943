"""What goes wrong in a simulated run: which faults there are, how often, and what is told of them.

The promises: all of it is drawn from one seed; nothing goes wrong once the storm is over; and no
run kills or pauses workers so often that a task with the usual `max_crashes` fails for it.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sitq.adapters import clocks
from sitq.exceptions import ValidationError

Fault: TypeAlias = Literal["kill", "pause", "restart", "refuse", "unknown", "slow", "hints"]

FAULTS: Final[Mapping[Fault, str]] = {
    "kill": "a worker dies at once, and another one takes its place",
    "pause": "a worker stands still for longer than its lease",
    "restart": "a worker is stopped with a grace, and another one takes its place",
    "refuse": "the store refuses a transaction; who asked is told so",
    "unknown": "the answer to a commit is lost: it is stored, or it is not",
    "slow": "the answer to a commit takes its time",
    "hints": "the news that there is work gets lost",
}
"""What may go wrong in a simulation, by name."""

DEATHS: Final = 2
"""Kills and pauses in one run: one less than tasks survive, unless they say otherwise."""
SHARE: Final[Mapping[Fault, float]] = {"refuse": 0.03, "unknown": 0.03, "slow": 0.1, "hints": 0.5}
"""Of transactions, or of news."""
SHORTEST: Final = 20.0
LONGEST: Final = 80.0
"""Seconds that the storm lasts."""


@dataclass(frozen=True, slots=True)
class Happening:
    """A fault that happened: seconds after the start, which, and the story of it."""

    at: float
    fault: Fault
    story: str

    def __str__(self) -> str:
        minutes, seconds = divmod(self.at, 60)
        return f"{int(minutes):3}:{seconds:06.3f}  {self.story}"


class Storm:
    """Draws from *seed* what goes wrong, of *faults*; within a virtual run."""

    def __init__(self, seed: int, faults: frozenset[Fault]) -> None:
        self.dice = random.Random(seed)  # noqa: S311
        self.happened: list[Happening] = []
        self.lasts = self.dice.uniform(SHORTEST, LONGEST)
        self._faults = faults
        self._deaths = 0
        self._is_over = False

    def end(self) -> None:
        self._is_over = True

    def strikes(self, fault: Fault) -> bool:
        """Say whether *fault*, one of those that have a share, happens now."""
        if self._is_over or fault not in self._faults:
            return False
        return self.dice.random() < SHARE[fault]

    def next_blow(self) -> Fault | None:
        """Return what happens to a worker now."""
        blows: tuple[Fault, ...] = ("restart", "kill", "pause")
        fault = self.dice.choice(blows if self._deaths < DEATHS else blows[:1])
        if self._is_over or fault not in self._faults:
            return None
        if fault != "restart":
            self._deaths += 1
        return fault

    def tell(self, fault: Fault, story: str) -> None:
        self.happened.append(Happening(clocks.monotonic(), fault, story))


def checked_faults(faults: Iterable[Fault]) -> frozenset[Fault]:
    """Return *faults*, if all of them exist."""
    given: tuple[object, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
    for name in given:
        if name not in FAULTS:
            raise ValidationError(f"there is no fault {name!r}; there are {', '.join(FAULTS)}")
    return frozenset(fault for fault in FAULTS if fault in given)
