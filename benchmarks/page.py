"""The page of the figures: what `docs/explanation/speed.md` says between two marks is made here.

The figures themselves are in `speed.json` beside it. A test compares the three.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import plot, tables
from benchmarks.figures import Results
from benchmarks.peers import PEERS

FOLDER: Final = Path(__file__).parents[1] / "docs" / "explanation"
BEGIN: Final = "<!-- made by `python -m benchmarks --page`: begin -->"
END: Final = "<!-- end -->"
NOTHING: Final = "Not measured yet."


def write(report: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Write the figures, the picture and the page."""
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (folder / "speed.json").write_text(text, encoding="utf-8")
    (folder / "speed.svg").write_text(picture(report), encoding="utf-8")
    page = folder / "speed.md"
    page.write_text(replaced(page.read_text(encoding="utf-8"), report), encoding="utf-8")


def replaced(page: str, report: Mapping[str, Any] | None) -> str:
    """Return *page* with the figures of *report*, or with words that there are none."""
    made = NOTHING if report is None else section(report)
    between = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)
    page, count = between.subn(lambda _: f"\n{made}\n\n", page)
    if count != 1:
        raise ValueError(f"the page must have one {BEGIN!r}, and {END!r} after it; it has {count}")
    return page


def picture(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    caption = f"{machine['processor']}, {machine['cores']} cores, {machine['date']}"
    return plot.svg(Results(report["runs"]), caption)


def section(report: Mapping[str, Any]) -> str:
    results = Results(report["runs"])
    return "\n\n".join(
        [
            about(report),
            "![The figures as a picture; the tables below have the same.](speed.svg)",
            _peers(report, results),
            tables.tables(results, report["size"]),
        ]
    )


def about(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    where = ", ".join(
        [
            machine["processor"],
            f"{machine['cores']} cores",
            f"{machine['memory GiB']} GiB",
            machine["system"],
            machine["file system"],
            f"SQLite {machine['SQLite']}",
            *machine["servers"],
        ]
    )
    load = tables.load(report["runs"])
    others = "" if load is None else f"Meanwhile others kept {tables.shown(load)} cores busy. "
    small = (
        "" if report["size"] == "full" else f"**Of the size `{report['size']}`: a first look.** "
    )
    return (
        f"{small}Measured on {machine['date']}: {where}. Up to {report['rounds']} rounds, fewer of what"
        f" takes long, in {report['minutes']:.0f} minutes. {others}A figure is the median of the rounds, in"
        " brackets the least and the greatest. *× by hand* is the figure divided by that of the loop"
        " by hand in the same round, and again the median, the least and the greatest of that."
        " ↓: less is better."
    )


def _peers(report: Mapping[str, Any], results: Results) -> str:
    lines = ["| | where | how it is set up | survives a | versions |", "|---|---|---|---|---|"]
    for name in results.peers:
        peer = PEERS[name]
        versions = ", ".join(f"{k} {v}" for k, v in report["machine"]["versions"][name].items())
        lines.append(f"| `{name}` | {peer.store} | {peer.how} | {peer.durability} | {versions} |")
    return "\n".join(lines)
