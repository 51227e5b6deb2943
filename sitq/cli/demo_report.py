"""What the demo shows: how it goes, what was found, and the proof.

The proof: each result is compared with one that is computed here and now, without any queue,
and the queue file itself is examined. A file that has been changed meanwhile proves nothing
about the queue, so it is named and left out.
"""

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from sitq.cli import queue_file
from sitq.cli.demo_files import File, relative
from sitq.cli.demo_tasks import Facts, examine
from sitq.cli.progress import progress
from sitq.cli.terminal import cell, shown
from sitq.core import Result, TaskStatus
from sitq.sync import SyncTaskQueue

KINDS: Final = 8
LARGEST: Final = 5
DIFFERENCES: Final = 20


@dataclass(slots=True)
class Run:
    """One run of the demo: what it is about, and how far it is."""

    root: Path
    path: str
    files: dict[str, File]
    """By task id, as in all that follows."""
    results: dict[str, Result] = field(default_factory=dict[str, Result])
    done_by: Counter[str] = field(default_factory=Counter[str])
    """How much each worker process has done in this run."""
    done_before: int = 0
    deaths: int = 0
    seconds: float = 0.0

    @property
    def done_now(self) -> int:
        return len(self.results) - self.done_before

    @property
    def rate(self) -> str:
        return f"{self.done_now / self.seconds:,.0f} a second" if self.seconds else ""

    @property
    def shares(self) -> str:
        return ", ".join(f"{name}: {count:,}" for name, count in sorted(self.done_by.items()))


# -- what was found --------------------------------------------------------------------


def summary(out: Console, run: Run, queue: SyncTaskQueue) -> None:
    """Print what is known of the files, and how the work went."""
    known = [
        (run.files[id_], queue.deserialize_result(result))
        for id_, result in run.results.items()
        if result.status is TaskStatus.SUCCESS
    ]
    kinds: dict[str, list[Facts]] = {}
    for file, facts in known:
        kinds.setdefault(Path(file.path).suffix or "(none)", []).append(facts)
    ranked = sorted(kinds.items(), key=lambda kind: -sum(facts.size for facts in kind[1]))
    table = Table("kind", title="what was found", title_justify="left")
    for name in ("files", "bytes", "lines", "words"):
        table.add_column(name, justify="right")
    for kind, all_facts in ranked[:KINDS]:
        table.add_row(cell(kind), *_totals(all_facts))
    if others := ranked[KINDS:]:
        rest = [facts for _, all_facts in others for facts in all_facts]
        table.add_row(f"{len(others)} more", *_totals(rest))
    table.add_section()
    table.add_row("all", *_totals([facts for _, facts in known]), style="bold")
    out.print(table)

    largest = Table()
    largest.add_column("the largest files", overflow="fold")
    largest.add_column("sha256")
    for name in ("bytes", "lines"):
        largest.add_column(name, justify="right")
    for file, facts in sorted(known, key=lambda pair: -pair[1].size)[:LARGEST]:
        name = relative([file.path], run.root, 1)
        largest.add_row(name, facts.sha256[:12], f"{facts.size:,}", f"{facts.lines:,}")
    out.print(largest)

    if run.done_now:
        shares = f" ({run.shares})" if run.shares else ""
        out.print(
            f"{run.done_now:,} files in {run.seconds:.1f} s, {run.rate}{shares}", soft_wrap=True
        )
    else:
        out.print("nothing was left to do")
    if run.deaths:
        out.print(f"worker processes that died, and were replaced: {run.deaths}")


def _totals(facts: list[Facts]) -> list[str]:
    sizes, lines, words = (
        sum(column) for column in zip(*((f.size, f.lines, f.words) for f in facts), strict=True)
    )
    return [f"{len(facts):,}", f"{sizes:,}", f"{lines:,}", f"{words:,}"]


# -- the proof -------------------------------------------------------------------------


class Comparison(NamedTuple):
    equal: int
    moved: list[str]
    """Files that were changed or deleted since they were found, or cannot be read now."""
    wrong: list[str]
    """What differs, in words."""


def compare(out: Console, run: Run, queue: SyncTaskQueue) -> Comparison:
    """Compute everything once more, directly, and compare."""
    equal, moved, wrong = 0, list[str](), list[str]()
    with progress(out, "comparing", len(run.files)) as show:
        for n, (id_, file) in enumerate(run.files.items(), 1):
            result = run.results[id_]
            try:
                direct = examine(file.path)
            except OSError:
                direct = None
            if result.status is TaskStatus.SUCCESS and queue.deserialize_result(result) == direct:
                equal += 1
            elif direct is None or not file.is_as_found():
                moved.append(file.path)
            elif result.status is TaskStatus.SUCCESS:
                wrong.append(f"{file.path}: the result differs from a direct computation")
            else:
                wrong.append(f"{file.path}: {result.status}: {result.error}")
            show(n, "")
    return Comparison(equal, moved, wrong)


def verdict(out: Console, run: Run, found: Comparison) -> int:
    """Print the proof, or what is against it; return the exit code."""
    wrong = [*found.wrong, *queue_file.look(run.path, lambda db, _: _flaws(db, run))]
    if found.moved:
        names = relative(found.moved, run.root, DIFFERENCES)
        out.print(
            f"left out, as changed or deleted meanwhile: {names}",
            style="yellow",
            soft_wrap=True,
        )
    if wrong:
        for text in wrong[:DIFFERENCES]:
            out.print(shown(text), style="red", soft_wrap=True)
        out.print(f"no proof (differences: {len(wrong):,}); --fresh begins anew", style="bold red")
        return 1
    out.print(
        f"proof: all {found.equal:,} files done, each result equal to a direct computation;"
        " integrity check ok",
        style="bold green",
        soft_wrap=True,
    )
    return 0


def _flaws(db: sqlite3.Connection, run: Run) -> list[str]:
    """Return what is wrong with the queue file: its structure, and one success for each task."""
    flaws = [f"integrity check: {text}" for (text,) in db.execute("PRAGMA integrity_check(5)")]
    if flaws == ["integrity check: ok"]:
        flaws = []
    expected = sum(result.status is TaskStatus.SUCCESS for result in run.results.values())
    ((rows, tasks),) = db.execute(
        "SELECT count(*), count(DISTINCT id) FROM sitq_tasks"
        " WHERE state = 'success' AND id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(run.files)),),
    ).fetchall()
    if not rows == tasks == expected:
        flaws.append(f"{expected:,} tasks should have one success each: {tasks:,} have {rows:,}")
    return flaws
