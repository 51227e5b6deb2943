"""Every planted bug is caught, by the seed and the invariant that the page names."""

import importlib.util
from pathlib import Path

import pytest

from sitq.storage import sqlite_statements as sql
from sitq.testing.simulation.mutants import CANARY, ENOUGH, MUTANTS, Edit, Mutant, hunt
from sitq.testing.simulation.store import SqliteSimStore
from sitq.testing.simulation.trial import play

DOCS = Path(__file__).parents[2] / "docs"
PEERS = {
    "river#1302",
    "dbos#541",
    "dbos#742",
    "docket#245",
    "pgqueuer#630",
    "procrastinate#1131",
}


def caught_by() -> dict[str, tuple[int, str]]:
    spec = importlib.util.spec_from_file_location("tables", DOCS / "simulation_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    return tables.catches((DOCS / "explanation/simulation.md").read_text())


CAUGHT_BY = caught_by()
HOW = "run `python docs/simulation_tables.py --hunt`: the dice fall otherwise since the last change"


@pytest.fixture(scope="module")
def store():
    return SqliteSimStore()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught_by_the_seed_and_the_invariant_of_the_page(name, store) -> None:
    assert name in CAUGHT_BY, HOW
    seed, invariant = CAUGHT_BY[name]
    mutant = MUTANTS[name]
    plan = mutant.plan(seed)

    with mutant.planted():
        planted = play(plan, store)
    assert planted.failed, HOW
    assert planted.violations[0].invariant == invariant, HOW
    assert seed < ENOUGH
    assert not play(plan, store).failed, "without it, all is well"


def test_the_bugs_of_others_are_among_them_and_there_are_enough() -> None:
    assert MUTANTS.keys() >= PEERS
    assert len(MUTANTS) >= 40


def test_the_canary_is_caught_at_once() -> None:
    caught = hunt(CANARY, most=50)
    assert caught is not None
    assert caught.runs <= 50


def test_what_was_planted_is_gone_afterwards(store) -> None:
    before = sql.RESCUE
    with CANARY.planted():
        assert before != sql.RESCUE
    assert before == sql.RESCUE


def test_a_mutant_whose_target_has_changed_fails_loudly() -> None:
    stale = Mutant(
        "stale", "It no longer fits.", (Edit("storage.sqlite_statements:RESCUE", "no such", ""),)
    )
    with pytest.raises(AssertionError, match="does not hold 'no such' once"), stale.planted():
        pass
