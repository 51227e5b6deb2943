"""Tables of the figures, in Markdown, which is also what is printed.

One for each workload, a line for each peer; like is compared with like: beside a ratio stands the
loop by hand with the same durability.
"""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.figures import Results, Spread
from benchmarks.peers import BASELINE, PEERS
from benchmarks.rounds import lack
from benchmarks.workloads import WORKLOADS, Figure

NOT_OFFERED = "–"


def tables(results: Results, size: str) -> str:
    """Return all tables, each below its heading."""
    return "\n\n".join(
        f"### {workload.words}\n\n{table(results, name, size)}"
        for name, workload in WORKLOADS.items()
        if any(results.was_run(peer, name) for peer in results.peers)
    )


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
    return ", ".join(text for text in (figure.words, figure.unit) if text)


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
