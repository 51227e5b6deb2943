"""The page of the simulator has the tables that the simulator is made of."""

import subprocess
import sys
from pathlib import Path
from shutil import copy

from sitq.testing.simulation.climate import Climate
from sitq.testing.simulation.invariants import INVARIANTS
from sitq.testing.simulation.marks import MARKS
from sitq.testing.simulation.mutants import MUTANTS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "explanation/simulation.md").read_text()


def check(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)


def test_its_tables_are_those_of_the_simulator() -> None:
    done = check(DOCS / "simulation_tables.py")

    assert done.returncode == 0, done.stderr


def test_every_row_is_there() -> None:
    for name in (*INVARIANTS, *MARKS, *MUTANTS, *Climate._fields):
        assert f"\n| `{name}` | " in PAGE


def test_a_row_that_is_out_of_date_is_noticed(tmp_path) -> None:
    (tmp_path / "explanation").mkdir()
    copy(DOCS / "simulation_tables.py", tmp_path)
    page = tmp_path / "explanation/simulation.md"
    page.write_text(PAGE.replace(INVARIANTS["S8"], "Something else."))

    done = check(tmp_path / "simulation_tables.py")
    assert done.returncode == 1
    assert done.stderr.startswith("simulation.md is not what simulation_tables.py makes")
