"""The page on the life of a task, and its picture, say what the table says."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sitq.protocol.lifecycle import FINAL, TRANSITIONS, TaskState

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def check(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path):
    """The script and what it wrote, in a folder where they may be changed."""
    script = tmp_path / "lifecycle_diagram.py"
    script.write_text((DOCS / script.name).read_text())
    (tmp_path / "explanation").mkdir()
    for name in ("lifecycle.md", "lifecycle.svg"):
        text = (DOCS / "explanation" / name).read_text()
        (tmp_path / "explanation" / name).write_text(text)
    return script


def test_the_page_and_the_picture_are_what_the_script_makes_of_the_table() -> None:
    done = check(DOCS / "lifecycle_diagram.py")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["lifecycle.md", "lifecycle.svg"])
def test_a_file_that_was_changed_by_hand_or_is_missing_is_named(copy, name) -> None:
    path = copy.parent / "explanation" / name
    assert check(copy).returncode == 0

    path.write_text(path.read_text() + " ")
    done = check(copy)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{name} is not what lifecycle_diagram.py makes")

    path.unlink()
    assert check(copy).returncode == 1


def test_every_state_and_every_move_is_on_the_page() -> None:
    lines = (DOCS / "explanation" / "lifecycle.md").read_text().splitlines()

    for state in TaskState:
        (line,) = [
            line
            for line in lines
            if line.startswith(f"| `{state}` | {'final' if state in FINAL else ''} |")
        ]
        assert line.endswith(". |")
    for (state, move), to in TRANSITIONS.items():
        assert [line for line in lines if line.startswith(f"| `{state}` | `{move}` | `{to}` | ")]


def test_every_state_and_every_move_is_in_the_picture() -> None:
    root = ET.parse(DOCS / "explanation" / "lifecycle.svg").getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]

    assert sorted(text for text in texts if text in set(TaskState)) == sorted(TaskState)
    moves = {move for text in texts for move in text.split(", ")} - set(TaskState)
    assert moves == {move for _, move in TRANSITIONS}
