"""`python -m tests.signals --moments 200`: signals at so many moments, and a table of what came."""

import argparse
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from tests.signals import moments


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.signals", description=__doc__)
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    outcomes = []
    for seed in range(args.start, args.start + args.moments):
        with tempfile.TemporaryDirectory() as folder:
            outcome = moments.run(seed, Path(folder))
        outcomes.append(outcome)
        if outcome.wrong:
            print(f"seed {seed}: {outcome.plan}: {'; '.join(outcome.wrong)}\n{outcome.said}")
    groups = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.plan.kind, outcome.where].append(outcome)
    line = "{:14} {:14} {:>7} {:>7} {:>8} {:>6} {:>6}  {}"
    print(line.format("worker", "met", "moments", "signals", "median s", "max s", "twice", "codes"))
    for (kind, where), group in sorted(groups.items()):
        seconds = [outcome.seconds for outcome in group]
        codes = Counter(outcome.code for outcome in group)
        print(
            line.format(
                kind,
                where,
                len(group),
                sum(len(outcome.plan.signals) for outcome in group),
                f"{statistics.median(seconds):.2f}",
                f"{max(seconds):.2f}",
                sum(outcome.twice for outcome in group),
                ", ".join(f"{code}: {count}" for code, count in sorted(codes.items())),
            )
        )
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    tasks = len(outcomes) * (moments.QUICK + moments.LONG)
    print(f"{len(outcomes)} moments, {tasks} tasks acknowledged; wrong: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
