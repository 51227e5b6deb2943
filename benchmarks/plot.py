"""A picture of the figures: a panel for each, a line for each peer, with its spread.

The scale is logarithmic, since the peers are far apart. What survives a power cut and what does not
have different colours, and are in different groups.
"""

import math
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from benchmarks.figures import Results, Spread
from benchmarks.peers import PEERS
from benchmarks.tables import number
from benchmarks.workloads import WORKLOADS


class Panel(NamedTuple):
    workload: str
    figure: str
    words: str


PANELS = (
    Panel("enqueue", "rate", "enqueue, one after the other"),
    Panel("enqueue-100", "rate", "enqueue, from 100 callers"),
    Panel("enqueue-bulk", "rate", "enqueue, 1,000 at once"),
    Panel("drain", "rate", "drain, one process"),
    Panel("drain-2", "rate", "drain, two processes"),
    Panel("drain-serial", "rate", "drain, one task at a time"),
    Panel("pickup", "p50", "from enqueue to its first line, p50"),
    Panel("pickup", "trip p50", "from enqueue to its result, p50"),
)
COLOURS = {"power cut": "#1f5fa8", "process death": "#b7791f"}
COLUMNS = 2
WIDTH, NAMES, PLOT, LINE, TOP = 560, 140, 300, 20, 34
MARGIN = 20


def svg(results: Results, caption: str) -> str:
    """Return the picture; *caption* says where and when."""
    panels = [
        (panel, spreads)
        for panel in PANELS
        if (spreads := _spreads(results, panel)) and len(spreads) > 1
    ]
    heights = [TOP + LINE * len(spreads) + MARGIN for _, spreads in panels]
    rows = [max(heights[at : at + COLUMNS]) for at in range(0, len(heights), COLUMNS)]
    width, height = COLUMNS * WIDTH + MARGIN, sum(rows) + 3 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" font-family="DejaVu Sans, Verdana, sans-serif" font-size="11">',
        f"<title>{escape(caption)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for at, (panel, spreads) in enumerate(panels):
        row, column = divmod(at, COLUMNS)
        x, y = MARGIN + column * WIDTH, MARGIN + sum(rows[:row])
        parts += _panel(panel, spreads, x, y)
    parts += _legend(MARGIN, height - MARGIN, caption)
    return "\n".join([*parts, "</svg>", ""])


def _spreads(results: Results, panel: Panel) -> dict[str, Spread]:
    found = {
        peer: results.spread(peer, panel.workload, panel.figure)
        for durability in COLOURS
        for peer in results.peers
        if PEERS[peer].durability == durability
    }
    return {peer: spread for peer, spread in found.items() if spread and spread.least > 0}


def _panel(panel: Panel, spreads: dict[str, Spread], x: int, y: int) -> Iterator[str]:
    figure = WORKLOADS[panel.workload].figures[panel.figure]
    better = "more" if figure.more_is_better else "less"
    title = f"{panel.words}, {figure.unit} ({better} is better)"
    yield f'<text x="{x}" y="{y + 12}" font-weight="bold">{escape(title)}</text>'
    low = math.floor(math.log10(min(spread.least for spread in spreads.values())))
    high = math.ceil(math.log10(max(spread.most for spread in spreads.values())))
    left, bottom = x + NAMES, y + TOP + LINE * len(spreads)

    def place(value: float) -> float:
        return left + PLOT * (math.log10(value) - low) / max(1, high - low)

    for power in range(low, max(high, low + 1) + 1):
        at = place(10.0**power)
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y + TOP - 6}" y2="{bottom}" stroke="#e3e7ec"/>'
        yield (
            f'<text x="{at:.1f}" y="{y + TOP - 8}" fill="#7b8794" font-size="9"'
            f' text-anchor="middle">{number(10.0**power).removesuffix(".00").removesuffix(".0")}</text>'
        )
    for line, (peer, spread) in enumerate(spreads.items()):
        middle = y + TOP + LINE * line + LINE / 2
        colour = COLOURS[PEERS[peer].durability]
        weight = ' font-weight="bold"' if peer.startswith("sitq") else ""
        yield (
            f'<text x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end"{weight}>'
            f"{escape(peer)}</text>"
        )
        yield (
            f'<line x1="{place(spread.least):.1f}" x2="{place(spread.most):.1f}" y1="{middle:.1f}"'
            f' y2="{middle:.1f}" stroke="{colour}" stroke-width="3" opacity="0.45"/>'
        )
        yield (f'<circle cx="{place(spread.median):.1f}" cy="{middle:.1f}" r="4" fill="{colour}"/>')
        yield (
            f'<text x="{left + PLOT + 10}" y="{middle + 4:.1f}" fill="#52606d">'
            f"{number(spread.median)}</text>"
        )


def _legend(x: int, y: int, caption: str) -> Iterator[str]:
    for durability, colour in COLOURS.items():
        yield f'<circle cx="{x + 4}" cy="{y - 4}" r="4" fill="{colour}"/>'
        yield f'<text x="{x + 14}" y="{y}">survives a {durability}</text>'
        x += 180
    yield f'<text x="{x}" y="{y}" fill="#7b8794">{escape(caption)}</text>'
