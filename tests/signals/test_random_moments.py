"""Signals at moments that a seed decides; `python -m tests.signals --moments 200` plays more."""

import pytest

from tests.signals import moments

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(18))
def test_a_signal_at_any_moment_loses_nothing_and_leaves_nothing(tmp_path, seed) -> None:
    outcome = moments.run(seed, tmp_path)
    assert not outcome.wrong, (outcome.plan, outcome.said)


def test_the_moments_are_of_every_kind_and_count() -> None:
    plans = [moments.plan(seed) for seed in range(18)]
    assert {plan.kind for plan in plans} == set(moments.KINDS)
    assert {len(plan.signals) for plan in plans} == {1, 2, 3}
    assert {number.name for plan in plans for number in plan.signals} == {"SIGTERM", "SIGINT"}
    assert {plan.after_first_start for plan in plans} == {True, False}
