"""How far something is that takes a while: a bar on a terminal, and nothing in a pipe."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


@contextmanager
def progress(
    out: Console, what: str, total: int | None, done: int = 0
) -> Generator[Callable[[int, str], None]]:
    """Show a bar on a terminal, nothing elsewhere; yield what moves it on.

    Without a *total* it goes on until it is told to stop.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=out, disable=not out.is_interactive) as bar:
        out.show_cursor(True)  # a kill -9 must not leave a terminal without one
        task = bar.add_task(what, total=total, completed=done, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)
