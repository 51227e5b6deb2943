"""Many runs: the same whoever plays them, counted rightly, and judged as a set."""

import subprocess
import sys
from collections import Counter

import pytest

from sitq.testing.simulation.marks import MARKS
from sitq.testing.simulation.runs import ENOUGH, Ask, Found, Tally, play_all
from sitq.testing.simulation.trial import play
from tests.cli.conftest import children, is_alive, wait_for

BUG = "rescue keeps the token"


def facts(tally: Tally) -> tuple:
    """All that does not depend on how fast it went."""
    return tally.runs, tally.events, tally.failed, tally.found, tally.marks, tally.digest


def test_a_thousand_runs_hold_and_reach_every_mark() -> None:
    tally = play_all(range(ENOUGH), workers=2)

    assert tally.found == []
    assert tally.missing == ()
    assert tally.passed
    assert tally.runs == ENOUGH
    assert set(tally.marks) <= MARKS.keys()


@pytest.mark.parametrize("mutant", [None, BUG])
def test_it_makes_no_difference_how_many_workers_there_are(mutant) -> None:
    ask = Ask(digest=True, mutant=mutant)
    alone = play_all(range(90), ask)

    assert alone.runs == 90
    assert bool(alone.failed) == bool(mutant)
    assert facts(alone) == facts(play_all(range(90), ask, workers=2))


def test_the_digest_is_of_all_that_happened() -> None:
    ask = Ask(digest=True)
    digest = play_all(range(30), ask).digest

    assert digest == play_all(iter(range(30)), ask).digest
    assert digest != play_all(range(1, 31), ask).digest


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_violation_ends_it_if_that_is_asked(workers) -> None:
    tally = play_all(range(10_000), Ask(stop=True, mutant=BUG), workers=workers)

    (found,) = tally.found
    assert (tally.failed, tally.runs) == (1, found.seed + 1)
    assert found.invariant == "S6"


def test_so_many_of_those_that_failed_are_kept_as_is_asked() -> None:
    tally = play_all(range(100), Ask(keep=2, mutant=BUG))

    assert tally.failed > 2
    assert len(tally.found) == 2
    assert tally.found[0].seed < tally.found[1].seed
    assert not tally.passed


def test_a_bug_that_was_planted_is_gone_afterwards() -> None:
    (found,) = play_all(range(100), Ask(keep=1, mutant=BUG)).found

    assert isinstance(found, Found)
    assert not play(found.seed).failed


def test_it_tells_how_it_goes() -> None:
    told: list[int] = []
    tally = play_all(range(60), tell=lambda tally: told.append(tally.runs))

    assert told == [25, 50, 60]
    assert tally.events > 60
    assert tally.cpu_seconds > 0


@pytest.mark.parametrize("name", MARKS)
def test_a_set_that_lacks_a_mark_has_failed(name) -> None:
    marks = Counter(mark for mark in MARKS if mark != name)

    assert Tally(runs=ENOUGH, marks=marks).missing == (name,)
    assert not Tally(runs=ENOUGH, marks=marks).passed
    assert Tally(runs=ENOUGH - 1, marks=marks).passed  # too few to demand it of them


def test_workers_end_with_the_process_that_started_them() -> None:
    code = (
        "from itertools import count; from sitq.testing.simulation.runs import play_all\n"
        "if __name__ == '__main__':\n"
        "    play_all(count(), workers=2, tell=lambda tally: print(tally.runs, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with parent:
        parent.stdout.readline()
        workers = children(parent.pid)
        parent.kill()

    assert len(workers) >= 2
    wait_for(lambda: not any(map(is_alive, workers)))
