"""The page of the command line names every command and every option, and no other."""

import re
from pathlib import Path

import click

from sitq.cli.commands import sitq

PAGE = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text()
SECTIONS = dict(
    re.findall(r"^## `sitq (\w+)[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
)
COMMANDS = {name: command for name, command in sitq.commands.items() if not command.hidden}


def options(command: click.Command) -> set[str]:
    return {
        name
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
        for name in option.opts
        if name.startswith("--")
    }


def test_the_page_has_a_section_for_each_command() -> None:
    assert SECTIONS.keys() == COMMANDS.keys()


def test_each_section_names_the_options_of_its_command() -> None:
    named = {name: set(re.findall(r"`(--[\w-]+)", text)) for name, text in SECTIONS.items()}

    assert named == {name: options(command) for name, command in COMMANDS.items()}


def test_the_page_says_the_defaults_that_hold() -> None:
    for name, command in COMMANDS.items():
        for option in command.params:
            if isinstance(option, click.Option) and option.show_default:
                row = re.search(rf"^\| `{option.opts[0]}\b.*$", SECTIONS[name], re.MULTILINE)
                assert row, option.opts[0]
                said = (
                    f"{option.default:g}" if isinstance(option.default, float) else option.default
                )
                assert str(said) in row[0], row[0]


def test_other_pages_type_only_commands_that_exist() -> None:
    pages = [
        *Path(__file__).parents[2].glob("*.md"),
        *Path(__file__).parents[2].glob("docs/*/*.md"),
    ]
    typed = {
        command
        for page in pages
        for command in re.findall(r"(?:`|/|^\$ )sitq (\w+)", page.read_text(), re.MULTILINE)
    }

    assert typed <= {*COMMANDS, "COMMAND"}
    assert {"worker", "demo", "stats", "doctor"} <= typed
