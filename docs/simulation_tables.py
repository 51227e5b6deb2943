"""Writes the tables of `docs/explanation/simulation.md` from the simulator itself.

    python docs/simulation_tables.py           write them
    python docs/simulation_tables.py --check   say whether they are up to date

Each table follows the heading of its section; the words around it are written by hand.
"""

import ast
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sitq.testing.simulation.climate import Climate
from sitq.testing.simulation.invariants import INVARIANTS
from sitq.testing.simulation.marks import MARKS
from sitq.testing.simulation.mutants import MUTANTS

PAGE: Final = Path(__file__).parent / "explanation" / "simulation.md"


def faults() -> dict[str, str]:
    """Return what each rate of a climate is for: the string below it."""
    (definition,) = ast.parse(inspect.getsource(Climate)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for name, text in zip(definition.body, definition.body[1:], strict=False):
        match name, text:
            case ast.AnnAssign(ast.Name(fault)), ast.Expr(ast.Constant(str(meaning))):
                found[fault] = " ".join(meaning.split())
            case _:
                pass
    assert found.keys() == set(Climate._fields), "every fault says what it is"
    return found


def tables() -> dict[str, str]:
    """Return each table, by the heading of its section."""
    mutants = {name: mutant.what for name, mutant in MUTANTS.items()}
    return {
        "The faults": _table("fault", "when it happens, and what", faults()),
        "The invariants": _table("", "what must hold", INVARIANTS),
        "The marks": _table("mark", "what must have happened", MARKS),
        "The mutants": _table("mutant", "the bug that is planted", mutants),
    }


def _table(name: str, meaning: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {meaning} |", "|---|---|"]
    lines += [f"| `{key}` | {text} |" for key, text in rows.items()]
    return "\n".join(lines)


def written(page: str) -> str:
    """Return *page* with its tables as they should be."""
    for heading, table in tables().items():
        section = re.compile(rf"(^## {heading}\n.*?)^\|.*?(?=^\n|\Z)", re.DOTALL | re.MULTILINE)
        page, count = section.subn(lambda found, table=table: f"{found[1]}{table}\n", page, count=1)
        assert count == 1, f"{PAGE.name} has no table below {heading!r}"
    return page


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written(page), encoding="utf-8")
    elif page != written(page):
        sys.exit(f"{PAGE.name} is not what {Path(__file__).name} makes; run it")


if __name__ == "__main__":
    main()
