"""`sitq sim`: whole fleets of workers in virtual time, with everything that can go wrong.

Many seeds are played and judged as a set; or one, of which the whole story is told; or bugs are
planted, to see whether they are found. What is printed of a seed depends on the seed alone.
"""

import os
import shlex
import time
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from sitq.cli.progress import progress
from sitq.cli.terminal import cell, console, shown
from sitq.testing.simulation.climate import Plan, draw
from sitq.testing.simulation.marks import MARKS
from sitq.testing.simulation.runs import ENOUGH, Ask, Tally, hunt_all, play_all
from sitq.testing.simulation.shrink import shrink
from sitq.testing.simulation.story import in_brief, story, who_was_there
from sitq.testing.simulation.timeline import timeline
from sitq.testing.simulation.trial import Trial, play

if TYPE_CHECKING:
    from sitq.testing.simulation.mutants import Caught, Mutant

SAY_EVERY: Final = 5.0
"""Seconds between two lines, where there is no terminal with a bar."""
INTERRUPTED: Final = 130


class Options(NamedTuple):
    """What was typed; None or False where it was not."""

    seeds: int | None = None
    start: int | None = None
    fresh: bool = False
    hours: float | None = None
    workers: int | None = None
    hosts: int | None = None
    stop: bool = False
    digest: bool = False
    canary: bool = False
    seed: int | None = None
    whole: bool = False
    everything: bool = False
    picture: Path | None = None
    mutant: str | None = None
    mutants: bool = False


TYPED: Final = {"start": "--from", "everything": "--all"}
"""Options that are not called as they are here."""
GO_TOGETHER: Final = {
    "mutants": {"mutants", "seeds", "workers"},
    "seed": {"seed", "hosts", "mutant", "whole", "everything", "picture"},
    "mutant": {"mutant", "seeds", "whole", "everything", "picture"},
    "": {"seeds", "start", "fresh", "hours", "workers", "hosts", "stop", "digest", "canary"},
}
"""By what is asked for: what else may be said."""


def run(options: Options) -> int:
    """Do what was asked for; return the exit code."""
    asked = _what_is_asked(options)
    out = console()
    match asked:
        case "mutants":
            return _mutants(out, options)
        case "seed":
            return _one(out, options)
        case "mutant":
            return _mutant(out, options)
        case _:
            return _many(out, options)


def _what_is_asked(options: Options) -> str:
    given = {name for name, value in options._asdict().items() if value not in {None, False}}
    given |= {name for name in ("seed", "start") if getattr(options, name) is not None}  # 0 too
    asked = next(name for name in GO_TOGETHER if not name or name in given)
    for name in sorted(given - GO_TOGETHER[asked]):
        raise click.UsageError(
            f"{_typed(name)} does not go with {_typed(asked)}"
            if asked
            else f"{_typed(name)} needs --seed"
        )
    for one, other in (("start", "fresh"), ("seeds", "hours")):
        if {one, other} <= given:
            raise click.UsageError(f"{_typed(one)} does not go with {_typed(other)}")
    return asked


def _typed(name: str) -> str:
    return TYPED.get(name, f"--{name}")


# -- many seeds ----------------------------------------------------------------------------


def _many(out: Console, options: Options) -> int:
    start = options.start or 0
    if options.fresh or (options.hours is not None and options.start is None):
        start = int.from_bytes(os.urandom(4))
    total = None if options.hours is not None else options.seeds or ENOUGH
    seeds: Iterable[int] = range(start, start + (total or 0))
    if options.hours is not None:
        seeds = _until(time.monotonic() + options.hours * 3600, start)
    workers = options.workers or os.cpu_count() or 1
    last = "on" if total is None else f"to {start + total - 1}"
    hosts = "" if options.hosts is None else f", hosts in each run: {options.hosts}"
    out.print(f"seeds from {start} {last}, workers: {workers}{hosts}")
    ask = Ask(stop=options.stop, digest=options.digest, hosts=options.hosts)
    tally, interrupted = _watched(out, seeds, total, ask, workers)
    caught = _canary(out) if options.canary and not interrupted else True
    _report(out, tally, options)
    if interrupted:
        return INTERRUPTED
    return 0 if tally.passed and caught else 1


def _until(end: float, start: int) -> Iterator[int]:
    for seed in count(start):
        if time.monotonic() >= end:
            return
        yield seed


def _watched(
    out: Console, seeds: Iterable[int], total: int | None, ask: Ask, workers: int
) -> tuple[Tally, bool]:
    """Play them, and show how it goes; return what came of it, and whether Ctrl-C ended it."""
    latest, said, named = Tally(), time.monotonic(), 0
    with progress(out, "playing", total) as show:

        def tell(tally: Tally) -> None:
            nonlocal latest, said, named
            latest = tally
            for found in tally.found[named:]:
                named += 1
                text = f"seed {found.seed} breaks {found.invariant}: {found.text}"
                out.print(shown(text), style="red", soft_wrap=True)
            show(tally.runs, _rate(tally))
            if not out.is_interactive and time.monotonic() - said >= SAY_EVERY:
                said = time.monotonic()
                of = "" if total is None else f" of {total:,}"
                out.print(f"{tally.runs:,}{of} runs, {_rate(tally)}")

        try:
            return play_all(seeds, ask, workers=workers, tell=tell), False
        except KeyboardInterrupt:
            return latest, True


def _rate(tally: Tally) -> str:
    failed = f", failed: {tally.failed:,}" if tally.failed else ""
    return f"{tally.runs / max(tally.seconds, 1e-9):,.0f} a second{failed}"


def _report(out: Console, tally: Tally, options: Options) -> None:
    wall, cpu = max(tally.seconds, 1e-9), max(tally.cpu_seconds, 1e-9)
    out.print(
        f"{tally.runs:,} runs with {tally.events:,} events in {tally.seconds:.1f} s: a second,"
        f" {tally.runs / wall:,.0f} runs and {tally.events / wall:,.0f} events; on each core,"
        f" {tally.runs / cpu:,.0f} and {tally.events / cpu:,.0f}",
        soft_wrap=True,
    )
    rarest = min(tally.marks, key=lambda name: (tally.marks[name], name), default="")
    named = f"; the rarest is {rarest!r}, reached {tally.marks[rarest]:,} times" if rarest else ""
    out.print(f"marks reached: {len(tally.marks)} of {len(MARKS)}{named}", soft_wrap=True)
    if options.digest:
        out.print(f"digest: {tally.digest}")
    for name in tally.missing:
        out.print(f"never reached: {name!r}: {MARKS[name]}", style="red", soft_wrap=True)
    if tally.failed:
        out.print(
            f"runs that failed: {tally.failed:,}; `sitq sim --seed {tally.found[0].seed}"
            f"{_of_hosts(options)}` tells what happened",
            style="bold red",
            soft_wrap=True,
        )
    elif tally.missing:
        out.print("a set of runs as mild as this proves nothing", style="bold red")
    else:
        out.print("all that must hold has held", style="bold green")


def _canary(out: Console) -> bool:
    """Play a build that is broken on purpose; say whether that was noticed."""
    from sitq.testing.simulation.mutants import MUTANTS, hunt

    canary = MUTANTS.get("canary", next(iter(MUTANTS.values())))
    caught = hunt(canary, ENOUGH)
    if caught is None:
        out.print(
            shown(f"the canary lives: nobody noticed this bug: {canary.what}"),
            style="bold red",
            soft_wrap=True,
        )
        return False
    out.print(f"the canary was caught by seed {caught.seed}, which breaks {caught.invariant}")
    return True


# -- one seed ------------------------------------------------------------------------------


def _one(out: Console, options: Options) -> int:
    assert options.seed is not None
    mutant = None if options.mutant is None else _named(options.mutant)
    if mutant is None:
        return _told(out, options, draw(options.seed, options.hosts))
    if options.hosts is not None:
        raise click.UsageError("--hosts does not go with --mutant")
    with mutant.planted():
        return _told(out, options, mutant.plan(options.seed))


def _told(out: Console, options: Options, plan: Plan) -> int:
    """Play one run, and tell of it."""
    trial, seed = play(plan), plan.seed
    small = shrink(trial) if trial.failed and not options.whole else None
    planted = "" if options.mutant is None else f" --mutant {shlex.quote(options.mutant)}"
    again = (
        f"sitq sim --seed {seed}{_of_hosts(options)}{planted}{' --whole' if options.whole else ''}"
    )
    if trial.failed or options.everything:
        lines = story(trial, small=small, everything=options.everything, replay=again)
    else:
        lines = [*who_was_there(trial), "", *in_brief(trial), ""]
    if not trial.failed:
        lines.append(f"seed {seed}: all that must hold has held")
    for line in lines:
        out.print(shown(line), style=_style(line), soft_wrap=True)
    out.print(f"digest: {trial.digest()}")
    if options.picture is not None:
        _paint(out, trial if small is None else small.trial, options.picture)
    return 1 if trial.failed else 0


def _of_hosts(options: Options) -> str:
    return "" if options.hosts is None else f" --hosts {options.hosts}"


def _style(line: str) -> str:
    return "bold red" if line.startswith((" >>", "seed ")) and "has held" not in line else ""


def _paint(out: Console, trial: Trial, path: Path) -> None:
    try:
        path.write_text(timeline(trial), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{shown(path)} cannot be written: {error.strerror}") from None
    out.print(f"picture: {shown(path)}", soft_wrap=True)


# -- bugs planted on purpose ---------------------------------------------------------------


def _named(name: str) -> "Mutant":
    from sitq.testing.simulation.mutants import MUTANTS

    if name not in MUTANTS:
        raise click.UsageError(f"there is no mutant {name!r}; --mutants lists them")
    return MUTANTS[name]


def _mutant(out: Console, options: Options) -> int:
    """Hunt one mutant, and tell the story of how it was caught."""
    from sitq.testing.simulation.mutants import hunt

    assert options.mutant is not None
    mutant, most = _named(options.mutant), options.seeds or ENOUGH
    out.print(shown(f"{mutant.name}: {mutant.what}"), soft_wrap=True)
    caught = hunt(mutant, most)
    if caught is None:
        out.print(f"it has survived {most:,} seeds", style="bold red")
        return 1
    out.print(f"caught after {caught.runs:,} runs\n")
    with mutant.planted():
        _told(out, options, mutant.plan(caught.seed))
    return 0


def _mutants(out: Console, options: Options) -> int:
    most = options.seeds or ENOUGH
    workers = options.workers or os.cpu_count() or 1
    table = Table("mutant", "the bug", title="bugs planted on purpose", title_justify="left")
    table.add_column("seed", justify="right")
    table.add_column("runs", justify="right")
    table.add_column("caught by")
    hunted: list[tuple[Mutant, Caught | None]] = []
    with progress(out, "hunting", None) as show:
        for mutant, caught in hunt_all(most, workers=workers):
            hunted.append((mutant, caught))
            show(len(hunted), mutant.name)
            table.add_row(cell(mutant.name), cell(mutant.what), *_catch(caught))
    out.print(table)
    survivors = [mutant.name for mutant, caught in hunted if caught is None]
    if survivors:
        out.print(
            shown(f"survived {most:,} seeds: {', '.join(survivors)}"),
            style="bold red",
            soft_wrap=True,
        )
        return 1
    out.print(f"all {len(hunted)} were caught", style="bold green")
    return 0


def _catch(caught: "Caught | None") -> tuple[str, str, str]:
    if caught is None:
        return "", "", "survives"
    return f"{caught.seed}", f"{caught.runs:,}", caught.invariant
