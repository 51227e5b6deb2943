"""`sitq demo`: real work, done durably, and a proof that all of it was done.

One task for each file. A task's id is made from the file's path, size and time of change, so the
same command on the same files enqueues nothing twice, and goes on wherever it was cut off. Worker
processes are told to stop by the end of their standard input: whatever kills this process, they
end by themselves.
"""

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from sitq.backends.sqlite import SQLiteBackend
from sitq.cli import queue_file
from sitq.cli.demo_tasks import Facts, examine
from sitq.core import Result, TaskStatus
from sitq.sync import SyncTaskQueue
from sitq.task import Task

CHUNK = 500
LOOK_EVERY = 0.1
PASSED_OVER = frozenset({"__pycache__", "site-packages"})


class File(NamedTuple):
    """A file as it was found; its task's id changes whenever it does."""

    path: str
    size: int
    changed_ns: int

    @property
    def task_id(self) -> str:
        name = f"{self.path}\0{self.size}\0{self.changed_ns}".encode("utf-8", "surrogateescape")
        return f"demo-{hashlib.sha256(name).hexdigest()[:32]}"

    def is_as_found(self) -> bool:
        try:
            return _found(self.path) == self
        except OSError:
            return False


def run(
    directory: str | None, path: str, *, workers: int, slots: int, fresh: bool, trio: bool
) -> int:
    """Run the demo; return its exit code."""
    console = Console(soft_wrap=True, highlight=False)
    root = Path(directory or sysconfig.get_path("stdlib")).resolve()
    path = os.path.abspath(path)  # noqa: PTH100
    if fresh:
        _forget(path)
    files = {file.task_id: file for file in _files_below(root)}
    began = time.monotonic()
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        tasks = [Task(examine, file.path).using(task_id=id_) for id_, file in files.items()]
        for start in range(0, len(tasks), CHUNK):
            queue.enqueue_many(tasks[start : start + CHUNK])
        left = set(files)
        results = _collect(queue, left)
        console.print(f"{len(files):,} files below {root}, one task for each, in {path}")
        if results:
            console.print(f"going on: {len(results):,} of {len(files):,} done already")
        crew = _Crew(path, workers, slots, trio=trio)
        before = len(results)
        try:
            _watch(console, queue, crew, left, results, len(files))
        except KeyboardInterrupt:
            console.print(
                f"stopped: {len(results):,} of {len(files):,} done; the same command goes on"
            )
            return 130
        finally:
            crew.dismiss()
        elapsed = time.monotonic() - began
        _summary(console, files, results, queue, elapsed, len(results) - before)
        return _prove(console, path, files, results, queue)


# -- the files -------------------------------------------------------------------------


def _files_below(root: Path) -> Iterator[File]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - PASSED_OVER)
        for name in sorted(names):
            full = os.path.join(folder, name)  # noqa: PTH118
            if os.path.isfile(full) and not os.path.islink(full):  # noqa: PTH113, PTH114
                yield _found(full)


def _found(path: str) -> File:
    stat = os.stat(path)  # noqa: PTH116
    return File(path, stat.st_size, stat.st_mtime_ns)


def _forget(path: str) -> None:
    """Delete the file of an earlier demo, and nothing else."""
    if not Path(path).exists():
        return
    with queue_file.opened(path) as db:
        ((others,),) = db.execute(
            "SELECT count(*) FROM sitq_tasks WHERE id NOT LIKE 'demo-%'"
        ).fetchall()
    if others:
        raise click.ClickException(
            f"{path!r} holds {others:,} tasks that are not of a demo; it was not deleted"
        )
    for part in (path, path + "-wal", path + "-shm"):
        Path(part).unlink(missing_ok=True)


# -- the work --------------------------------------------------------------------------


class _Crew:
    """Worker processes; one that dies is replaced."""

    def __init__(self, path: str, workers: int, slots: int, *, trio: bool) -> None:
        self._command = [sys.executable, "-m", "sitq.cli", "demo-worker", path]
        self._command += ["--concurrency", str(slots), *(["--trio"] if trio else [])]
        self._workers = workers
        self._processes: list[subprocess.Popen[bytes]] = []
        self.deaths = 0

    def look_after(self) -> None:
        """Start what is missing."""
        dead = [process for process in self._processes if process.poll() is not None]
        self.deaths += len(dead)
        if self.deaths > 10 * self._workers:
            raise click.ClickException("the worker processes keep dying; see what they say above")
        for process in dead:
            self._processes.remove(process)
        while len(self._processes) < self._workers:
            self._processes.append(
                subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603
            )

    def dismiss(self) -> None:
        """Have all of them stop, and wait for that."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watch(
    console: Console,
    queue: SyncTaskQueue,
    crew: _Crew,
    left: set[str],
    results: dict[str, Result],
    total: int,
) -> None:
    """Show how the work goes, until none is left."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} files/s"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    began, before, said = time.monotonic(), len(results), time.monotonic()
    with progress:
        bar = progress.add_task("examining", total=total, completed=len(results), rate="-")
        while left:
            crew.look_after()
            time.sleep(LOOK_EVERY)
            results.update(_collect(queue, left))
            now = time.monotonic()
            rate = f"{(len(results) - before) / (now - began):,.0f}"
            progress.update(bar, completed=len(results), rate=rate)
            if not console.is_terminal and now - said >= 1:
                said = now
                console.print(f"{len(results):,} of {total:,} done, {rate} files/s")


def _collect(queue: SyncTaskQueue, left: set[str]) -> dict[str, Result]:
    """Return the results of tasks that have ended, and take them off *left*."""
    ended = queue.get_results(sorted(left))
    left.difference_update(ended)
    return ended


# -- the end ---------------------------------------------------------------------------


def _summary(
    console: Console,
    files: dict[str, File],
    results: dict[str, Result],
    queue: SyncTaskQueue,
    elapsed: float,
    done_now: int,
) -> None:
    kinds: dict[str, list[Facts]] = {}
    for id_, result in results.items():
        if result.status is TaskStatus.SUCCESS:
            kind = Path(files[id_].path).suffix or "(none)"
            kinds.setdefault(kind, []).append(queue.deserialize_result(result))
    table = Table("kind", title="what was found")
    for name in ("files", "bytes", "lines", "words"):
        table.add_column(name, justify="right")
    ranked = sorted(kinds.items(), key=lambda item: -sum(facts.size for facts in item[1]))
    for kind, all_facts in ranked[:8]:
        table.add_row(kind, *_totals(all_facts))
    if len(ranked) > 8:
        rest = [facts for _, all_facts in ranked[8:] for facts in all_facts]
        table.add_row(f"{len(ranked) - 8} other kinds", *_totals(rest))
    table.add_section()
    table.add_row("all", *_totals([facts for _, all_facts in ranked for facts in all_facts]))
    console.print(table)
    rate = done_now / elapsed if elapsed else 0
    console.print(f"{done_now:,} files in {elapsed:.1f} s, {rate:,.0f} a second")


def _totals(facts: list[Facts]) -> list[str]:
    sums = (sum(column) for column in list(zip(*facts, strict=True))[1:])
    return [f"{len(facts):,}", *(f"{total:,}" for total in sums)]


def _prove(
    console: Console,
    path: str,
    files: dict[str, File],
    results: dict[str, Result],
    queue: SyncTaskQueue,
) -> int:
    """Compare every result with a direct computation; return the exit code."""
    wrong, moved = [], 0
    for id_, file in files.items():
        result = results[id_]
        direct: Facts | None = None
        with contextlib.suppress(OSError):
            direct = examine(file.path)
        if result.status is TaskStatus.SUCCESS and queue.deserialize_result(result) == direct:
            continue
        if not file.is_as_found():
            moved += 1
            continue
        wrong.append(f"{file.path}: {result.status.value}: {result.error or 'another result'}")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        ((integrity,),) = db.execute("PRAGMA integrity_check").fetchall()
    if moved:
        console.print(f"{moved:,} files were changed or deleted meanwhile, and are left out")
    for line in wrong[:20]:
        console.print(line, markup=False)
    if wrong or integrity != "ok":
        console.print(f"no proof: {len(wrong):,} results differ; integrity check {integrity}")
        return 1
    console.print(
        f"proof: all {len(files) - moved:,} files done, each result equal to a direct"
        " computation; integrity check ok"
    )
    return 0
