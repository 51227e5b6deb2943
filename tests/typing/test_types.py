"""A wrong call fails in the type checker: both of them, and on that very line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--no-error-summary"],
    "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
}


def refused(checker: str, file: str) -> tuple[set[int], str]:
    """Return the numbers of the lines that *checker* refuses, and all that it says."""
    done = subprocess.run(
        [*CHECKERS[checker], str(HERE / file)], capture_output=True, text=True, cwd=HERE.parents[1]
    )
    said = done.stdout + done.stderr
    lines = re.findall(rf"{re.escape(file)}:(\d+)(?::\d+)?(?: - error|: error)", said)
    return {int(line) for line in lines}, said


@pytest.mark.parametrize("file", ["right.py", "star.py"])
@pytest.mark.parametrize("checker", CHECKERS)
def test_right_calls_have_the_right_types(checker, file) -> None:
    lines, said = refused(checker, file)

    assert not lines, said
    assert "rror" not in said.replace("0 errors", ""), said


@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_calls_are_refused_where_they_stand(checker) -> None:
    source = (HERE / "wrong.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(source, 1) if "# wrong: " in line}

    lines, said = refused(checker, "wrong.py")
    assert lines == wrong, said
