"""Tables of the figures, in Markdown, which is also what is printed.

One for each workload, a line for each peer; like is compared with like: beside a ratio stands the
loop by hand with the same durability.
"""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.figures import Results, Spread
from benchmarks.peers import BASELINE, PEERS
from benchmarks.rounds import lack
from benchmarks.workloads import WORKLOADS, Figure

NOTHING = "–"
SHORT = {
    ("enqueue", "rate"): "enqueue",
    ("enqueue-100", "rate"): "100 callers",
    ("enqueue-bulk", "rate"): "in bulk",
    ("drain", "rate"): "drain",
    ("drain-2", "rate"): "2 processes",
    ("drain-4", "rate"): "4 processes",
    ("drain-serial", "rate"): "one at a time",
    ("pickup", "p50"): "first line ↓",
    ("pickup", "trip p50"): "result ↓",
    ("idle", "memory"): "memory ↓",
}
"""The figures that are in the table of ratios: the workload, the figure, and its heading."""


def tables(results: Results, size: str) -> str:
    """Return all tables, each below its heading."""
    return f"### In short: × by hand\n\n{overview(results)}\n\n" + "\n\n".join(
        f"### {workload.words}\n\n{table(results, name, size)}"
        for name, workload in WORKLOADS.items()
        if any(results.was_run(peer, name) for peer in results.peers)
    )


def overview(results: Results) -> str:
    """Return a table of the medians of ratios alone, those of which people ask first."""
    shown = [
        (workload, figure, words)
        for (workload, figure), words in SHORT.items()
        if any(results.ratio(peer, workload, figure) for peer in results.peers)
    ]
    lines = [
        ["", "survives a", *(words for _, _, words in shown)],
        ["---", "---", *["--:"] * len(shown)],
    ]
    for peer in results.peers:
        ratios = [results.ratio(peer, workload, figure) for workload, figure, _ in shown]
        cells = [number(ratio.median) if ratio else NOTHING for ratio in ratios]
        lines.append([f"`{peer}`", PEERS[peer].durability, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def table(results: Results, workload: str, size: str) -> str:
    figures = WORKLOADS[workload].figures
    head = ["", "survives a"]
    for figure in figures.values():
        head += [_heading(figure), "× by hand"] if figure.unit else [_heading(figure)]
    lines = [head, ["---", "---", *["--:"] * (len(head) - 2)]]
    lines += [
        [f"`{peer}`", PEERS[peer].durability, *_cells(results, peer, workload, figures)]
        for peer in results.peers
        if lack(peer, workload, size) is None
    ]
    lacking = _lacking(results, workload, size)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + lacking


def _cells(
    results: Results, peer: str, workload: str, figures: Mapping[str, Figure]
) -> Iterator[str]:
    for key, figure in figures.items():
        spread = results.spread(peer, workload, key)
        yield shown(spread) if spread else results.why_not(peer, workload)
        if figure.unit:
            ratio = results.ratio(peer, workload, key)
            is_base = peer == BASELINE[PEERS[peer].durability]
            yield shown(ratio) if ratio and not is_base else ""


def _lacking(results: Results, workload: str, size: str) -> str:
    """Return a line with those that have no figure, and why."""
    reasons: dict[str, list[str]] = {}
    for peer in results.peers:
        reason = lack(peer, workload, size)
        if reason is not None:
            reasons.setdefault(reason, []).append(f"`{peer}`")
    text = "; ".join(f"{', '.join(peers)}: {reason}" for reason, peers in reasons.items())
    return f"\n\nNot in it: {text}." if text else ""


def _heading(figure: Figure) -> str:
    text = ", ".join(text for text in (figure.words, figure.unit) if text)
    return text if figure.more_is_better else f"{text} ↓"


def shown(spread: Spread) -> str:
    """Return the median, and in brackets the least and the greatest, if there are some."""
    median = number(spread.median)
    if spread.count == 1:
        return median
    return f"{median} ({number(spread.least)}–{number(spread.most)})"


def number(value: float) -> str:
    """Return *value* with three digits that mean something."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def load(runs: Sequence[Mapping[str, float]]) -> Spread | None:
    """Return how many cores others kept busy while it was measured."""
    return Spread.of([run["others"] for run in runs])
