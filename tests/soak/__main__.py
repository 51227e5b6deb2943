"""`python -m tests.soak --tasks 100000` or `--minutes 60`: does a worker's process grow?

Prints what it holds, by interval, and the verdict. Exit code 1 if something has grown beyond its
bound (see `Bounds` in `measure.py`).
"""

import argparse
import logging
import sys
import tempfile

import anyio

from tests.soak.measure import MIB, Sample, growing
from tests.soak.soaking import WARM_UP, soak

HEAD = (
    f"{'seconds':>8} {'tasks':>9} {'RSS MiB':>8} {'objects':>9} {'ours':>6} {'kept':>5}"
    f" {'threads':>7} {'fds':>4} {'WAL MiB':>8}"
)


def told(one: Sample) -> None:
    print(
        f"{one.at:8.1f} {one.tasks:9,} {one.rss / MIB:8.1f} {one.objects:9,}"
        f" {one.ours.total():6,} {sum(one.held.values()) + one.tracked:5,} {one.threads:7}"
        f" {one.descriptors:4} {one.wal / MIB:8.2f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--batch", type=int, default=600)
    parser.add_argument("--every", type=int, default=10, help="batches between two samples")
    given = parser.parse_args()
    if given.tasks is None and given.minutes is None:
        given.tasks = 100_000
    logging.getLogger("sitq.worker").setLevel(logging.ERROR)  # some tasks are meant to fail
    options = {"use_uvloop": True} if given.loop == "uvloop" else {}
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        samples = anyio.run(
            lambda: soak(
                f"{folder}/tasks.db",
                tasks=given.tasks,
                minutes=given.minutes,
                batch=given.batch,
                every=given.every,
                told=told,
            ),
            backend="trio" if given.loop == "trio" else "asyncio",
            backend_options=options,
        )
    if len(samples) <= WARM_UP:
        print(
            f"too short: there are {len(samples)} samples, and the first {WARM_UP} are no measure"
        )
        return 2
    found = growing(samples[WARM_UP], samples[-1])
    print("\n".join(f"grows: {line}" for line in found) or "nothing grows beyond its bound")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
