"""The page of faults names tests that are there, each found once."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "what-can-go-wrong.md"
TESTS = Counter(
    name
    for folder in ("tests", "sitq/testing/conformance")
    for path in (ROOT / folder).rglob("*.py")
    for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
)


def rows() -> list[list[str]]:
    lines = PAGE.read_text().splitlines()
    cells = [line.strip("|").split(" | ") for line in lines if line.startswith("| ")]
    return [row for row in cells if row[0].strip() != "what goes wrong"]


def test_each_fault_has_a_test_that_is_there() -> None:
    assert len(rows()) > 90
    for what, *_, seen_by in rows():
        names = re.findall(r"`(test_\w+)`", seen_by)
        assert names, what
        assert [name for name in names if TESTS[name] != 1] == [], what


def test_no_fault_is_told_twice() -> None:
    told = Counter(what for what, *_ in rows())
    assert [what for what, times in told.items() if times > 1] == []
