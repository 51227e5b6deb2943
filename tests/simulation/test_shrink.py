"""A run that fails becomes small, and fails in the same way."""

import pytest

from sitq.testing.simulation.climate import CALM
from sitq.testing.simulation.shrink import MOST_PLAYS, shrink
from sitq.testing.simulation.trial import Trial, play
from tests.simulation.failing import failing

BUGS = ["rescue keeps the token", "dbos#541", "settle what has ended", "due too early"]


def things(trial: Trial) -> int:
    return len(trial.plan.tasks) + len(trial.plan.nodes) + len(trial.fired)


@pytest.mark.parametrize("bug", BUGS)
def test_it_becomes_small_and_breaks_the_same_invariant(bug) -> None:
    with failing(bug) as trial:
        small = shrink(trial)

        assert {found.invariant for found in small.trial.violations} == {
            trial.violations[0].invariant
        }
        assert things(small.trial) <= things(trial)
        assert len(small.trial.history) <= len(trial.history)
        assert small.plays <= MOST_PLAYS
        again = play(small.plan, muted=small.muted)
        assert again.digest() == small.trial.digest()
    assert not play(small.plan, muted=small.muted).failed  # it is the bug that makes it fail


def test_nothing_is_left_that_the_bug_does_not_need() -> None:
    with failing("one attempt too many") as trial:
        small = shrink(trial)

    assert things(trial) > things(small.trial)
    assert small.plan.climate == CALM
    assert small.trial.fired == ()
    assert len(small.plan.tasks) == 1


def test_faults_that_the_bug_needs_are_left() -> None:
    with failing("settle what has ended") as trial:
        small = shrink(trial)

    assert 0 < len(small.trial.fired) < len(trial.fired)


def test_the_same_run_becomes_the_same() -> None:
    with failing("due too early") as trial:
        one, other = shrink(trial), shrink(trial)

    assert (one.plan, one.muted, one.plays) == (other.plan, other.muted, other.plays)
    assert one.trial.digest() == other.trial.digest()


def test_it_gives_up_after_so_many_plays() -> None:
    with failing("due too early") as trial:
        small = shrink(trial, most=3)

    assert small.plays == 3
    assert small.trial.failed
