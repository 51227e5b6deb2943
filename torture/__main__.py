"""Real processes, killed, suspended and overloaded: what becomes of their tasks?"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from torture import alive, kills, outages, recovery, rescues, wal
from torture.server import DURABLE, start_server
from torture.verdict import Verdict

SHOWN: Final = 20
"""Violations that are printed of one play; the first is what matters."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("kills", help="rounds of SIGKILL, SIGSTOP, SIGTERM and SIGINT")
    one.add_argument("--rounds", type=int, default=100)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--keep", type=Path, help="a folder for what the processes wrote down")
    one.add_argument("--mutant", help="a bug of `sitq sim --mutants`, to see it found")
    one.set_defaults(run=_kills)

    one = commands.add_parser("postgres", help="rounds of faults of a server, networks and clocks")
    one.add_argument("--rounds", type=int, default=100)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--keep", type=Path, help="a folder for what the processes wrote down")
    one.set_defaults(run=_postgres)

    one = commands.add_parser("recovery", help="how soon all is as before, when a server returns")
    one.add_argument("--outages", type=int, default=10)
    one.add_argument("--away", type=float, default=3.0, help="for how many seconds it is away")
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(run=_recovery)

    one = commands.add_parser("rescues", help="how long the tasks of a killed worker wait")
    one.add_argument("--kills", type=int, default=200)
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(run=_rescues)

    one = commands.add_parser("alive", help="whether a busy worker keeps its tasks")
    one.add_argument("--seconds", type=float, default=60.0, help="for how long its loop is kept")
    one.add_argument("--hogs", type=int, default=4, help="processes that do nothing but compute")
    one.add_argument("--tasks", type=int, default=999)
    one.set_defaults(run=_alive)

    one = commands.add_parser("wal", help="commits and checkpoints of many processes at once")
    one.add_argument("--processes", type=int, default=8)
    one.add_argument("--seconds", type=float, default=60.0)
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(run=_wal)

    options = parser.parse_args()
    return int(options.run(options))


def _kills(options: argparse.Namespace) -> int:
    def play(seed: int, rounds: int, keep: Path | None) -> tuple[kills.Play, Verdict]:
        return kills.play(seed, rounds, keep=keep, mutant=options.mutant)

    return _rounds(options, play)


def _postgres(options: argparse.Namespace) -> int:
    with start_server(DURABLE) as server:

        def play(seed: int, rounds: int, keep: Path | None) -> tuple[kills.Play, Verdict]:
            return outages.play(seed, rounds, server, keep=keep)

        return _rounds(options, play)


def _rounds(
    options: argparse.Namespace,
    play: Callable[[int, int, Path | None], tuple[kills.Play, Verdict]],
) -> int:
    began = time.monotonic()
    faults: Counter[str] = Counter()
    again: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    while sums["rounds"] < options.rounds:
        rounds = min(options.rounds - sums["rounds"], kills.ROUNDS_PER_PLAY)
        seed = options.seed + sums["rounds"]
        keep = options.keep and options.keep / str(seed)
        played, verdict = play(seed, rounds, keep)
        for text in verdict.violations[:SHOWN]:
            print(f"{played.crew.folder}, seed {seed}: {text}", file=sys.stderr)
        faults += played.faults
        again += verdict.started_again
        sums.update(
            {
                "rounds": rounds,
                "processes": len(played.crew.all),
                "SIGKILL": played.kills,
                "tasks": verdict.tasks,
                "tasks stored although their caller died": verdict.unknown,
                "commits": verdict.commits,
                "events judged": verdict.events,
                "verdicts that came too late and were refused": verdict.refused,
                "lost": verdict.lost,
                "completed twice": verdict.completed_twice,
                "violations": len(verdict.violations),
            }
        )
        took = time.monotonic() - began
        print(f"{sums['rounds']} rounds, {sums['tasks']:,} tasks, {took:.0f} s", flush=True)
    _print_table("All in all", sums)
    _print_table("What was done", faults)
    _print_table("A task ran once more because", again)
    return int(bool(sums["violations"]))


def _rescues(options: argparse.Namespace) -> int:
    seconds: list[float] = []
    for took in rescues.rescue_times(options.kills, options.seed):
        seconds.append(took)
        if len(seconds) % 20 == 0:
            print(f"{len(seconds)} kills, at most {max(seconds):.2f} s", flush=True)
    seconds.sort()
    p99 = seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
    print(
        f"\nfrom SIGKILL to the next start, {len(seconds)} kills: median"
        f" {seconds[len(seconds) // 2]:.2f} s, p99 {p99:.2f} s, at most {seconds[-1]:.2f} s"
    )
    return int(p99 > rescues.PROMISED)


def _recovery(options: argparse.Namespace) -> int:
    with start_server() as server:
        firsts, times = [], []
        for took in recovery.recovery_times(server, options.outages, options.away, options.seed):
            firsts.append(took.first)
            times.append(took.all)
            print(
                f"the server is back: a task ended after {took.first:.2f} s, and as many as before"
                f" did after {took.all:.2f} s",
                flush=True,
            )
    times.sort()
    print(
        f"\n{len(times)} outages of {options.away:g} s: a task ended after {max(firsts):.2f} s at"
        f" most; {recovery.AS_BEFORE:.0%} of the rate before: median"
        f" {times[len(times) // 2]:.2f} s, at most {times[-1]:.2f} s"
    )
    return int(times[-1] > recovery.PROMISED)


def _alive(options: argparse.Namespace) -> int:
    found = alive.left_alone(options.seconds, options.hogs, options.tasks)
    print(
        f"{found.tasks} tasks, a loop kept busy for {options.seconds:g} s, {options.hogs} other"
        f" processes that compute: {found.started_again} tasks were taken from a living worker,"
        f" {found.leases_lost} leases were lost"
    )
    return int(found.started_again > 0 or found.leases_lost > 0)


def _wal(options: argparse.Namespace) -> int:
    found = wal.write(options.processes, options.seconds, options.seed)
    print(
        f"{options.processes} processes, {found.tasks:,} tasks, {found.checkpoints:,} checkpoints:"
        f" {found.lost} lost, the file is {'whole' if found.is_whole else 'DAMAGED'},"
        f" {found.ended_badly} processes ended badly"
    )
    return int(bool(found.lost or found.ended_badly or not found.is_whole))


def _print_table(title: str, counts: Counter[str]) -> None:
    width = max(map(len, counts), default=0)
    print(f"\n{title}:")
    for name, number in counts.items():
        print(f"  {name.replace('_', ' '):{width}}  {number:>9,}")


if __name__ == "__main__":
    sys.exit(main())
