"""What people read of the figures: tables, a picture, and the page that has both."""
# ruff: noqa: RUF001

import json
import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks import page, tables
from benchmarks.figures import Results, Spread
from benchmarks.workloads import WORKLOADS

PAGE = (page.FOLDER / "speed.md").read_text(encoding="utf-8")
FILE = page.FOLDER / "speed.json"


def report(**changes) -> dict:
    rates = {"sitq": (900.0, 1200.0, 1000.0), "by-hand": (300.0, 300.0, 500.0), "huey": (9.0,) * 3}
    runs = [
        {"peer": peer, "workload": name, "round": turn, "figures": {"rate": rate}, "others": 0.5}
        for name in ("enqueue", "enqueue-bulk")
        for peer, values in rates.items()
        for turn, rate in enumerate(values)
        if (peer, name) != ("huey", "enqueue-bulk")
    ]
    machine = {
        "date": "2026-11-26",
        "processor": "a <processor>",
        "cores": 2,
        "memory GiB": 24,
        "system": "Linux",
        "file system": "ext4",
        "SQLite": "3.40.1",
        "servers": [],
        "versions": {peer: {"Python": "3.11.7"} for peer in rates},
    }
    return {"machine": machine, "size": "full", "rounds": 3, "minutes": 1.0, "runs": runs} | changes


def test_a_line_has_the_durability_the_figure_and_the_ratio_each_with_its_spread() -> None:
    table = tables.table(Results(report()["runs"]), "enqueue", "full")

    assert table.splitlines()[2:] == [
        "| `sitq` | power cut | 1,000 (900–1,200) | 3.00 (2.00–4.00) |",
        "| `by-hand` | power cut | 300 (300–500) |  |",
        "| `huey` | power cut | 9.00 (9.00–9.00) | 0.03 (0.02–0.03) |",
    ]


def test_who_has_no_such_call_is_named_below_the_table() -> None:
    table = tables.table(Results(report()["runs"]), "enqueue-bulk", "full")

    assert "| `huey` |" not in table
    assert table.endswith("Not in it: `huey`: no call that enqueues many tasks.")


def test_in_short_there_are_the_medians_of_the_ratios() -> None:
    lines = tables.overview(Results(report()["runs"])).splitlines()

    assert lines[0] == "|  | survives a | enqueue | in bulk |"
    assert lines[2:] == [
        "| `sitq` | power cut | 3.00 | 3.00 |",
        "| `by-hand` | power cut | 1.00 | 1.00 |",
        "| `huey` | power cut | 0.03 | – |",
    ]


def test_where_less_is_better_it_is_said() -> None:
    runs = [
        {"peer": "by-hand", "workload": "callers", "round": 0, "figures": {"memory": 2.0}},
    ]

    assert tables.table(Results(runs), "callers", "full").startswith("|  | survives a | KiB ↓ |")


def test_what_was_not_run_has_no_table() -> None:
    text = tables.tables(Results(report()["runs"]), "full")

    assert WORKLOADS["enqueue"].words in text
    assert WORKLOADS["idle"].words not in text


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (99.96, "100.0"), (12.345, "12.3"), (0.5, "0.50")]
)
def test_a_number_has_three_digits_that_mean_something(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_one_measurement_has_no_spread() -> None:
    assert tables.shown(Spread(2.0, 2.0, 2.0, 1)) == "2.00"


def test_the_picture_is_well_formed_and_has_every_peer_once_for_each_panel() -> None:
    picture = ET.fromstring(page.picture(report()))
    texts = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]

    assert texts.count("sitq") == texts.count("by-hand") == 2
    assert texts.count("huey") == 1
    assert "a <processor>, 2 cores, 2026-11-26" in texts


def test_the_picture_is_there_for_figures_that_are_all_the_same() -> None:
    runs = [run for run in report()["runs"] if run["round"] == 0]
    for run in runs:
        run["figures"]["rate"] = 100.0

    assert "<circle" in page.picture(report(runs=runs))


def test_the_page_has_the_figures_where_they_belong() -> None:
    made = page.replaced(PAGE, report())

    assert page.NOTHING not in made
    assert "| `sitq` | power cut | 1,000 (900–1,200) | 3.00 (2.00–4.00) |" in made
    assert "others kept 0.50 (0.50–0.50) cores busy" in made
    assert page.replaced(made, report()) == made


def test_a_first_look_is_called_one() -> None:
    assert "**Of the size `quick`: a first look.**" in page.replaced(PAGE, report(size="quick"))
    assert "Of the size" not in page.replaced(PAGE, report())


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="it has 0"):
        page.replaced("# Speed", report())


def test_the_page_shows_the_figures_of_the_file_beside_it() -> None:
    figures = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else None

    assert page.replaced(PAGE, figures) == PAGE
    if figures is not None:
        assert (page.FOLDER / "speed.svg").read_text(encoding="utf-8") == page.picture(figures)


def test_the_page_says_of_each_workload_what_it_is() -> None:
    assert re.findall(r"^\| `([a-z0-9-]+)` \| \w", PAGE.partition(page.BEGIN)[0], re.MULTILINE) == [
        *WORKLOADS
    ]
