"""The README: short, with the two commands that CI and newcomers type."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "README.md").read_text()

DEMO = "python3 -m venv .venv && .venv/bin/pip install '.[cli,trio]' && .venv/bin/sitq demo"
TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'"
    " && .venv/bin/python -m pytest -n auto --dist loadfile"
)


def test_it_has_the_two_commands_each_on_a_line_of_its_own_in_a_block() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)

    assert blocks == [DEMO + "\n", TESTS + "\n"]


def test_ci_finds_exactly_one_test_line() -> None:
    assert re.findall(r"^python3 -m venv .* pytest.*$", TEXT, re.MULTILINE) == [TESTS]


def test_it_can_be_read_in_one_go() -> None:
    assert len(TEXT.splitlines()) <= 170


def test_it_warns_of_the_other_package_of_the_same_name() -> None:
    assert "`sitq` on PyPI is an unrelated package" in TEXT
