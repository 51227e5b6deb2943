"""What came of many simulated runs, and the story of one that broke."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sitq.exceptions import CheckFailed
from sitq.testing.storms.faults import FAULTS, Happening

SHOWN = 60
"""Faults in a story; of more, the last ones are shown."""


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """Runs that all went well. Printed, it is a line of numbers."""

    runs: int
    lasted: timedelta
    """Virtual time, of all runs together."""
    faults: Counter[str]
    """How often each of them happened."""

    def __str__(self) -> str:
        counts = ", ".join(f"{fault} {self.faults[fault]}" for fault in FAULTS)
        hours = self.lasted.total_seconds() / 3600
        return f"{self.runs} runs, {hours:.1f} hours of virtual time; faults: {counts}"


class SimulationBroken(CheckFailed):
    """A simulated run broke a promise: `seed` says which, `happened` what had gone wrong."""

    def __init__(self, why: str, scenario: str, seed: int, happened: Sequence[Happening]) -> None:
        self.seed = seed
        self.happened = tuple(happened)
        self._made_of = why, scenario, seed, self.happened
        left_out = len(self.happened) - SHOWN
        story = [f"  {happening}" for happening in self.happened[-SHOWN:]] or ["  nothing"]
        if left_out > 0:
            story.insert(0, f"  ({left_out} earlier ones)")
        super().__init__(
            "\n".join(
                [
                    f"seed {seed}: {why}",
                    "what had gone wrong until then (minutes and seconds, what, to whom):",
                    *story,
                    f"the same again: simulate({scenario}, ..., seed={seed})",
                ]
            )
        )

    def __reduce__(self) -> tuple[type, tuple[str, str, int, tuple[Happening, ...]]]:
        return type(self), self._made_of
