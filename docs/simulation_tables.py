"""Writes the tables of `docs/explanation/simulation.md` from the simulator itself.

    python docs/simulation_tables.py           write them
    python docs/simulation_tables.py --hunt    the same, and look anew for what catches each mutant
    python docs/simulation_tables.py --check   say whether they are up to date

What catches a mutant is the one thing that is read from the page itself: to find it takes a minute,
and a test replays each. Each table follows the heading of its section; the words around it are written by hand.
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
from sitq.testing.simulation.mutants import MUTANTS, hunt

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


def catches(page: str) -> dict[str, tuple[int, str]]:
    """Return what the page says catches each mutant: a seed, and the invariant that it breaks."""
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| (\d+) \| `(\w+)` \|$", page, re.MULTILINE)
    return {name: (int(seed), invariant) for name, seed, invariant in rows}


def hunted() -> dict[str, tuple[int, str]]:
    """Look for the first seed that catches each mutant."""
    found = {}
    for name, mutant in MUTANTS.items():
        caught = hunt(mutant)
        assert caught is not None, f"{name} is not caught"
        found[name] = caught.seed, caught.invariant
    return found


def tables(caught: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    """Return each table, by the heading of its section."""
    mutants = {}
    for name, mutant in MUTANTS.items():
        seed, invariant = caught.get(name, ("not known", "?"))
        mutants[name] = f"{mutant.what} | {seed} | `{invariant}`"
    return {
        "The faults": _table("fault", "when it happens, and what", faults()),
        "The invariants": _table("", "what must hold", INVARIANTS),
        "The marks": _table("mark", "what must have happened", MARKS),
        "The mutants": _table(
            "mutant", "the bug that is planted | caught by seed | which breaks", mutants
        ),
    }


def _table(name: str, meaning: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {meaning} |", "|---|---" + "|---" * meaning.count("|") + "|"]
    lines += [f"| `{key}` | {text} |" for key, text in rows.items()]
    return "\n".join(lines)


def written(page: str, caught: Mapping[str, tuple[int, str]]) -> str:
    """Return *page* with its tables as they should be."""
    for heading, table in tables(caught).items():
        section = re.compile(rf"(^## {heading}\n.*?)^\|.*?(?=^\n|\Z)", re.DOTALL | re.MULTILINE)
        page, count = section.subn(lambda found, table=table: f"{found[1]}{table}\n", page, count=1)
        assert count == 1, f"{PAGE.name} has no table below {heading!r}"
    return page


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    caught = hunted() if "--hunt" in sys.argv[1:] else catches(page)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written(page, caught), encoding="utf-8")
    elif page != written(page, caught):
        sys.exit(f"{PAGE.name} is not what {Path(__file__).name} makes; run it")


if __name__ == "__main__":
    main()
