"""Runs every example of README.md, of the pages in docs/, and of the docstrings.

A page is one program, run block by block, in a folder of its own that is gone afterwards:

- a `python` block runs as if it stood in `__main__`; where it awaits at its top level, an event
  loop is there for it. With a `:caption:` it is a file: it is saved under that name, to be
  imported or run by what follows;
- a `text` block is what the example before it has printed;
- a `console` block is typed into a shell, `$` by `$`, and shows what comes back on the standard
  output. In both, `...` stands for anything.

Blocks in other languages (`sh`, `ini`, `none`) are for reading only.
"""

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import anyio
import pytest

if TYPE_CHECKING:
    from sybil import Example

LONGEST_PAUSE = 0.05


def run_python(example: "Example") -> None:
    """Run a block; or save it, if its caption says that it is a file."""
    caption = (example.region.lexemes.get("options") or {}).get("caption")
    if caption is not None:
        Path(caption).write_text(example.parsed, encoding="utf-8")
        return
    # Empty lines above it, so that a traceback names the line of the page.
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(
        source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    printed = example.namespace["__printed__"] = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if code.co_flags & inspect.CO_COROUTINE:
            anyio.run(partial(eval, code, example.namespace))
        else:
            exec(code, example.namespace)  # noqa: S102  # it is our own page


def compare_with_what_was_printed(example: "Example") -> str | None:
    return _difference(example.parsed, example.namespace["__printed__"].getvalue())


def run_console(example: "Example") -> str | None:
    """Type each command, and compare what it prints with the lines below it."""
    for command, expected in _commands(example.parsed):
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path.cwd()),
            "COLUMNS": "100",
        }
        done = subprocess.run(  # noqa: S602  # a console block is typed into a shell
            command,
            shell=True,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        difference = _difference(expected, done.stdout)
        if difference:
            return f"$ {command}\n{difference}\nexit code {done.returncode}\n{done.stderr}"
    return None


def _commands(transcript: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a transcript with the lines that it prints."""
    command: str | None = None
    printed: list[str] = []
    for line in transcript.splitlines(keepends=True):
        if line.startswith("$ "):
            if command is not None:
                yield command, "".join(printed)
            command, printed = line[2:].strip(), []
        else:
            printed.append(line)
    assert command is not None, "a console block begins with a command: $ ..."
    yield command, "".join(printed)


def _difference(expected: str, printed: str) -> str | None:
    """Return in what *printed* differs from what a page shows, None if it does not."""
    if doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS):
        return None
    return f"the page shows:\n{expected}\nbut this was printed:\n{printed}"


def open_page(namespace: dict[str, Any]) -> None:
    """Give a page its name and its folder."""
    folder = contextlib.ExitStack()
    path = folder.enter_context(tempfile.TemporaryDirectory(prefix="sitq-page-"))
    folder.enter_context(contextlib.chdir(path))
    modules = set(sys.modules)
    sys.path.insert(0, path)

    @folder.callback
    def _forget_its_modules() -> None:
        sys.path.remove(path)
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(path):
                del sys.modules[name]

    namespace.update(__name__="__main__", __folder__=folder)


def close_page(namespace: dict[str, Any]) -> None:
    namespace["__folder__"].close()


@pytest.fixture
def pauses_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `asyncio.sleep(60)` take no time worth mentioning."""
    sleep = asyncio.sleep

    async def short(delay: float, result: Any = None) -> Any:
        return await sleep(min(delay, LONGEST_PAUSE), result)

    monkeypatch.setattr(asyncio, "sleep", short)


@pytest.fixture(scope="session")
def database_url() -> Iterator[None]:
    """Have a private server, and say where it is; without one the page is tested in CI alone."""
    from tests.private_postgres import running_server

    with running_server() as server:
        os.environ["DATABASE_URL"] = server.dsn()
        yield
        del os.environ["DATABASE_URL"]


def pytest_configure(config: pytest.Config) -> None:
    """Collect the examples, where Sybil is installed: the other tests can do without it."""
    if find_spec("sybil") is not None:
        config.pluginmanager.register(_examples(), "examples")


# The page of the worker shows programs that wait for seconds, so that people can watch.
WATCHED = "docs/reference/sitq.worker.md"
# These need a server.
ON_POSTGRES = [
    "docs/how-to/postgres.md",
    "docs/how-to/postgres-transactions.md",
    "docs/explanation/scale.md",
]


def _examples() -> ModuleType:
    """Return the plugin that collects them."""
    from sybil import Sybil
    from sybil.document import PythonDocStringDocument
    from sybil.integration.pytest import pytest_integration
    from sybil.parsers.myst import CodeBlockParser
    from sybil.parsers.rest import DocTestParser

    pages = partial(
        Sybil,
        parsers=[
            CodeBlockParser("python", run_python),
            CodeBlockParser("text", compare_with_what_was_printed),
            CodeBlockParser("console", run_console),
        ],
        setup=open_page,
        teardown=close_page,
    )
    plugin: Any = ModuleType("examples")
    plugin.pytest_collect_file = pytest_integration(
        pages(
            patterns=["README.md", "docs/**/*.md", "docs/*.md"], excludes=[WATCHED, *ON_POSTGRES]
        ),
        pages(pattern=WATCHED, fixtures=["pauses_are_short"]),
        pages(patterns=ON_POSTGRES, fixtures=["database_url"]),
        Sybil(
            parsers=[DocTestParser(doctest.ELLIPSIS)],
            patterns=["sitq/*.py", "sitq/**/*.py"],
            document_types={".py": PythonDocStringDocument},
        ),
    )
    return plugin
