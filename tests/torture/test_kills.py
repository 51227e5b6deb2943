"""A hundred rounds of kills, suspensions and signals on real processes; and bugs that they find."""

import pytest

from torture import kills

SEED = 20261126


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_nothing_is_lost_or_done_twice_whatever_happens_to_the_processes(part) -> None:
    played, verdict = kills.play(SEED + part, kills.ROUNDS_PER_PLAY)
    print(f"{played.kills} kills, {verdict}")
    assert verdict.violations == []
    assert (verdict.lost, verdict.completed_twice) == (0, 0)
    assert verdict.tasks > 50
    assert played.kills > 3


@pytest.mark.slow
def test_a_rescue_that_takes_back_what_has_ended_is_found() -> None:
    _, verdict = kills.play(SEED, 6, mutant="canary")
    assert any(text.startswith(("S6", "S8", "S9", "S18")) for text in verdict.violations)
