"""What the pages say by name is there: files, layers, dependencies, links, states."""

import re
import tomllib
from pathlib import Path

import pytest

import sitq
from sitq import testing
from sitq.protocol.lifecycle import TaskState

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

READ_ONLY = {"sh", "none"}
"""Blocks that nobody runs. `python`, `text` and `console` are run; the rest belongs to Sphinx."""
RUN = {"python", "text", "console", "{code-block} python", "sql"}
"""`sql` is run by the test of its page."""
SPHINX = {"{eval-rst}", "{toctree}"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in words}


@every_page
def test_every_block_is_either_run_or_known_as_not_to_run(page) -> None:
    openings = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)[::2]

    assert set(openings) <= RUN | READ_ONLY | SPHINX


@every_page
def test_every_link_leads_somewhere(page) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text())):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@every_page
def test_every_file_that_is_named_exists(page) -> None:
    roots = "sitq|tests|docs|newsfragments"
    for path in re.findall(rf"`((?:{roots})/[\w./-]*)`", without_blocks(page.read_text())):
        assert (ROOT / path).exists(), path


def test_the_layers_are_those_that_are_enforced() -> None:
    (layers,) = (
        contract["layers"]
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    page = (ROOT / "docs/explanation/architecture.md").read_text()

    assert "```none\n" + "\n".join(layers) + "\n```" in page


def test_every_dependency_has_its_reason() -> None:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    named = {re.match(r"[\w-]+", line)[0] for group in groups for line in group} - {"sitq"}
    page = (ROOT / "docs/explanation/dependencies.md").read_text()
    rows = " ".join(line for line in page.splitlines() if line.startswith("|"))

    assert [name for name in sorted(named) if not re.search(rf"\b{name}\b", rows)] == []


def test_every_public_name_has_a_page_in_the_reference() -> None:
    pages = {page.stem for page in (ROOT / "docs/reference").glob("sitq.*.md")}

    assert set(sitq._HOME.values()) <= pages
    for module in pages:
        assert f".. automodule:: {module}\n" in (ROOT / f"docs/reference/{module}.md").read_text()


@pytest.mark.parametrize("name", sorted(sitq._HOME))
def test_the_reference_shows_every_public_name(name) -> None:
    page = (ROOT / f"docs/reference/{sitq._HOME[name]}.md").read_text()

    assert re.search(rf":: {name}\b|:members:\n   :show-inheritance:", page)


@pytest.mark.parametrize("name", ["TaskQueue", "SyncTaskQueue", "Worker", "MemoryBackend"])
def test_the_reference_shows_every_public_method(name) -> None:
    public = {
        member
        for member, value in vars(getattr(sitq, name)).items()
        if callable(value) and not member.startswith("_")
    }
    text = "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    shown = set(re.findall(r"automethod:: (?:\w+\.)?(\w+)", text))

    assert public <= shown


@pytest.mark.parametrize("name", testing.__all__)
def test_the_reference_shows_every_name_for_tests(name) -> None:
    page = (ROOT / "docs/reference/sitq.testing.md").read_text()

    assert re.search(rf"^\.\. auto\w+:: (?:[\w.]+\.)?{name}\b", page, re.MULTILINE)


def test_the_page_of_simulations_shows_every_fault() -> None:
    page = (ROOT / "docs/how-to/simulate.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE)

    assert dict(rows) == dict(testing.FAULTS)


def test_the_page_of_the_worker_holds_the_fixed_one_word_for_word() -> None:
    fixed = (ROOT / "tests/public/sitq.worker.md").read_text()

    assert fixed.strip() in (ROOT / "docs/reference/sitq.worker.md").read_text()


def test_the_glossary_knows_every_state() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text()

    assert [state for state in TaskState if f"`{state}`" not in glossary] == []


def test_every_fragment_of_the_changelog_has_a_type_that_exists() -> None:
    types = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    fragments = list((ROOT / "newsfragments").glob("*.md"))

    assert {fragment.name.split(".")[1] for fragment in fragments} <= types
    assert all(len(fragment.read_text().splitlines()) == 1 for fragment in fragments)
