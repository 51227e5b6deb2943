"""The command: see the docstring of the package."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import __doc__ as about, instructions, machine, page, rounds, soak, tables
from benchmarks.figures import Results, merged
from benchmarks.installing import install
from benchmarks.job import SIZES
from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS

ROUNDS = 5
COMMANDS = "table", "instructions", "soak-postgres"


def main(arguments: Sequence[str] | None = None) -> int:
    options = options_of(arguments)
    if options.command == "instructions":
        print(instructions.report(options.tasks or instructions.TASKS))
        return 0
    if options.command == "soak-postgres":
        print(
            soak.report(options.tasks or soak.TASKS, pruned=options.pruned, folder=options.folder)
        )
        return 0
    if options.install_peers:
        for line in install(options.install_peers.absolute(), options.peers):
            print(line, flush=True)
        return 0
    if options.read:
        files = [json.loads(file.read_text(encoding="utf-8")) for file in options.read]
        report = merged(files)
    else:
        report = _measured(options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    if options.svg:
        options.svg.write_text(page.picture(report), encoding="utf-8")
    if options.page:
        page.write(report)
    print(page.about(report))
    print(tables.tables(Results(report["runs"]), report["size"]))
    failed = [run for run in report["runs"] if "error" in run]
    for run in failed:
        print(f"\n{run['workload']} of {run['peer']} failed:\n{run['error']}", file=sys.stderr)
    return 1 if failed else 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    pythons, missing = rounds.pythons(options.peers, options.peers_in)
    for name, why in missing.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    folder = str(options.folder) if options.folder else None
    report: dict[str, Any] = {
        "machine": machine.described(pythons, folder),
        "size": options.size,
        "rounds": options.repeat,
        "missing": missing,
    }
    began = time.monotonic()
    runs = []
    for run in rounds.run(
        pythons, options.workloads, rounds=options.repeat, size=options.size, folder=folder
    ):
        runs.append(run)
        found = run.get("figures")
        words = (
            ", ".join(f"{key} {tables.number(value)}" for key, value in found.items())
            if found
            else "failed"
        )
        print(f"{run['round'] + 1} {run['workload']} {run['peer']}: {words}", file=sys.stderr)
    return report | {"minutes": round((time.monotonic() - began) / 60, 1), "runs": runs}


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    assert about is not None
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=about.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("command", nargs="?", choices=COMMANDS, default="table")
    add("--peers", type=_names(PEERS), default=list(PEERS), help="some of them, with commas")
    add("--peers-in", type=Path, metavar="FOLDER", help="where --install-peers put them")
    add("--install-peers", type=Path, metavar="FOLDER", help="only install them")
    add("--workloads", type=_names(WORKLOADS), default=list(WORKLOADS), help="likewise")
    add("--repeat", type=int, metavar="ROUNDS", help=f"(default: {ROUNDS}, or 3 if it is quick)")
    add("--size", choices=SIZES, default="full", help="how much of everything")
    add(
        "--quick", action="store_const", dest="size", const="quick", help="the same as --size quick"
    )
    parser.set_defaults(size="full")  # of two arguments for one thing, the last has no say
    add("--folder", type=Path, help="where the stores lie, and so on which disk")
    add("--json", type=Path, metavar="FILE", help="write all runs, for machines")
    add("--svg", type=Path, metavar="FILE", help="write the picture, for people")
    add("--page", action="store_true", help="write docs/explanation/speed.md, .json and .svg")
    add(
        "--from",
        type=Path,
        dest="read",
        nargs="+",
        metavar="FILE",
        help="measure nothing, read that JSON; of several, the rounds of all count",
    )
    add("--tasks", type=int, metavar="N", help="that are counted, or go through the soak")
    add("--pruned", action="store_true", help="soak: what has ended is pruned, and does not stay")
    options = parser.parse_args(arguments)
    if options.repeat is None:
        options.repeat = ROUNDS if options.size == "full" else 3
    return options


def _names(known):
    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"there is no {name!r}; there are {', '.join(known)}"
                )
        return names

    return read


if __name__ == "__main__":
    sys.exit(main())
