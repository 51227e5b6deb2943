"""The suite for backends finds what is wrong with one, and nothing wrong with a sound one."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sitq.testing.conformance import dice
from tests.testing import broken_backends

BROKEN = {
    name.removeprefix("Test") for name in vars(broken_backends) if name.startswith("Test")
} - {"Sound"}
SHORT = "not trio and not uvloop and not none_is_run_again"
"""The last of these waits in vain for what a broken backend has lost."""


def outcomes(folder: Path, *, hidden: str, choice: str) -> dict[str, Counter[str]]:
    """Run the suite in a process without the module *hidden*; return what came of it, by class."""
    (folder / "test_broken.py").write_text(Path(broken_backends.__file__).read_text())
    program = f"""
import importlib.util, sys
import pytest

find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {hidden!r} else find(name, *rest)
sys.exit(pytest.main(sys.argv[1:]))
"""
    options = ["-q", "-rA", "--tb=no", "-p", "no:cacheprovider", "-k", choice, "test_broken.py"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )
    found: dict[str, Counter[str]] = {}
    lines = re.findall(r"^(PASSED|FAILED|ERROR) \S*?::Test(\w+)::", done.stdout, re.MULTILINE)
    for outcome, name in lines:
        found.setdefault(name, Counter())[outcome] += 1
    assert found, done.stdout + done.stderr
    return found


def test_each_that_is_broken_fails_some_case_and_a_sound_one_fails_none(tmp_path) -> None:
    found = outcomes(tmp_path, hidden="nothing", choice=SHORT)

    assert found.keys() == BROKEN | {"Sound"}
    assert found["Sound"].keys() == {"PASSED"}
    assert found["Sound"].total() > 150
    assert {name for name, came in found.items() if came["FAILED"]} == BROKEN


def test_without_hypothesis_each_random_case_has_a_seed(tmp_path) -> None:
    found = outcomes(tmp_path, hidden="hypothesis", choice="random_batches")

    assert found["Sound"] == {"PASSED": dice.CASES}
    assert found["KnowsNoPriority"]["FAILED"] > dice.CASES / 2


def test_a_suite_that_does_not_say_how_its_backend_is_made_is_told(tmp_path) -> None:
    from sitq.testing.conformance import BackendSuite

    with pytest.raises(NotImplementedError, match="new_backend"):
        BackendSuite().new_backend(tmp_path)
