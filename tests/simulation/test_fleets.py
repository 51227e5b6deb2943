"""Runs with a hundred hosts: all of them are at work, and judged as small runs are."""

import pytest

from sitq.testing.simulation.climate import draw
from sitq.testing.simulation.history import Kind
from sitq.testing.simulation.naming import node_name, node_of
from sitq.testing.simulation.runs import Ask, play_all
from sitq.testing.simulation.trial import play

HOSTS = 100


def test_each_host_has_a_name_of_its_own_and_its_lives_are_told_apart() -> None:
    names = [node_name(number) for number in range(1000)]

    assert names[:3] == ["a", "b", "c"]
    assert names[25:28] == ["z", "aa", "ab"]
    assert len({*names}) == 1000
    assert [node_of(f"{name}12") for name in names] == names


def test_a_hundred_hosts_hold_what_must_hold() -> None:
    ask = Ask(hosts=HOSTS, digest=True)
    tally = play_all(range(4), ask, workers=2)

    assert tally.found == []
    assert tally.runs == 4
    assert tally.events > 4 * 20_000  # beyond where a small run is taken for one without end
    assert tally.digest == play_all(range(4), ask).digest


def test_every_one_of_the_hosts_lives_and_runs_tasks() -> None:
    trial = play(draw(3, HOSTS))
    up = {node_of(event.who) for event in trial.history if event.kind is Kind.UP}
    ran = {node_of(event.who) for event in trial.history if event.kind is Kind.START}

    assert up == {node_name(number) for number in range(HOSTS)}
    assert len(ran) > HOSTS / 2
    assert len({node.slots for node in trial.plan.nodes}) > 1  # they differ


@pytest.mark.parametrize(
    ("mutant", "invariant"),
    [("rescue keeps the token", "S6"), ("a slot too many", "S16"), ("cancelled, and back", "S15")],
)
def test_a_bug_shows_among_a_hundred_hosts_as_well(mutant, invariant) -> None:
    tally = play_all(range(20), Ask(hosts=HOSTS, mutant=mutant, stop=True))

    assert invariant in {found.invariant for found in tally.found}


def test_fewer_hosts_than_are_drawn_otherwise_can_be_asked_for() -> None:
    assert len(draw(0, 1).nodes) == 1
    assert len(draw(0, 2).tasks) == 6
