"""The public names: what a type checker sees is what a program gets, and no more is loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sitq


def test_a_type_checker_and_a_program_see_the_same_names() -> None:
    tree = ast.parse(Path(sitq.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: line.module
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }

    assert seen == sitq._HOME
    assert sorted(seen) == sitq.__all__


@pytest.mark.parametrize("name", sitq.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name) -> None:
    value = getattr(sitq, name)

    assert value.__module__ == sitq._HOME[name]
    assert value.__doc__
    assert name in dir(sitq)


def test_a_name_that_does_not_exist_is_refused_like_any_other() -> None:
    with pytest.raises(AttributeError, match="module 'sitq' has no attribute 'Quue'"):
        _ = sitq.Quue  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import sitq.protocol", {"anyio", "asyncio", "sqlite3", "trio", "cloudpickle"}),
        ("import sitq.protocol.worker, sitq.storage.sqlite", {"anyio", "asyncio", "sqlite3"}),
        ("from sitq import *", {"asyncio", "aiosqlite", "trio", "psycopg", "click", "rich"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement, absent) -> None:
    program = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert not absent & set(done.stdout.split())
