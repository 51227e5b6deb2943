"""Medians, spreads, and ratios of what was measured in the same round.

The machine is never quiet. What else it does meets the peers of one round alike: so each figure is
first divided by that of the loop by hand in the same round, and the median is taken of the ratios.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from benchmarks.peers import BASELINE, PEERS


class Spread(NamedTuple):
    """The median of some measurements, the least and the greatest."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Return the spread of *values*, None if there are none."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values), len(values))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the least value that is at least as great as *share* of them."""
    if not values:
        raise ValueError("there is no quantile of no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def merged(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one report of several that were measured on one machine: the rounds of all count."""
    sizes = {report["size"] for report in reports}
    if len(sizes) > 1:
        raise ValueError(f"they are of the sizes {', '.join(sorted(sizes))}: measure all alike")
    machines = [report["machine"] for report in reports]
    runs: list[Mapping[str, Any]] = []
    rounds: Counter[str] = Counter()  # of each workload, so far
    for report in reports:
        own = [run | {"round": run["round"] + rounds[run["workload"]]} for run in report["runs"]]
        rounds |= Counter({run["workload"]: run["round"] + 1 for run in own})
        runs += own
    return {
        **reports[-1],
        "machine": {
            **machines[-1],
            "servers": sorted({server for machine in machines for server in machine["servers"]}),
            "versions": {k: v for machine in machines for k, v in machine["versions"].items()},
        },
        "rounds": max(rounds.values(), default=0),
        "minutes": round(sum(report["minutes"] for report in reports), 1),
        "missing": {k: v for report in reports for k, v in report["missing"].items()},
        "runs": runs,
    }


class Results:
    """The runs of a file, by peer, workload and round."""

    def __init__(self, runs: Sequence[Mapping[str, Any]]) -> None:
        self._runs = {(run["peer"], run["workload"], run["round"]): run for run in runs}
        self.peers = [name for name in PEERS if any(name == peer for peer, _, _ in self._runs)]

    def spread(self, peer: str, workload: str, figure: str) -> Spread | None:
        return Spread.of(list(self._values(peer, workload, figure).values()))

    def ratio(self, peer: str, workload: str, figure: str) -> Spread | None:
        """Return the figure in units of the loop by hand that is as durable."""
        own = self._values(peer, workload, figure)
        base = self._values(BASELINE[PEERS[peer].durability], workload, figure)
        both = own.keys() & base.keys()
        return Spread.of([own[when] / base[when] for when in sorted(both) if base[when]])

    def was_run(self, peer: str, workload: str) -> bool:
        return any((name, what) == (peer, workload) for name, what, _ in self._runs)

    def why_not(self, peer: str, workload: str) -> str:
        """Return why there is no figure."""
        runs = [run for key, run in self._runs.items() if key[:2] == (peer, workload)]
        if any("error" in run for run in runs):
            return "failed"
        return "–" if runs else "not measured"

    def _values(self, peer: str, workload: str, figure: str) -> dict[int, float]:
        return {
            when: run["figures"][figure]
            for (name, what, when), run in self._runs.items()
            if (name, what) == (peer, workload) and figure in run.get("figures", {})
        }
