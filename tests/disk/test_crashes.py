"""A process that dies at any call, or a machine that loses its power there, leaves no half of it."""

from typing import get_args

import pytest

from sitq.protocol.ops import Settle, Verdict, WriteOp
from tests.disk.crashing import crashes, cuts, record
from tests.disk.judging import Judge
from tests.disk.scenarios import SCENARIOS

pytestmark = pytest.mark.usefixtures("same_every_time")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_crash_or_a_power_cut_at_any_call_leaves_the_state_before_or_after(
    scenario, tried, long
) -> None:
    judge = Judge(scenario)
    problems = []
    for durability in ("full", "normal"):
        points = record(scenario, durability)
        killed = crashes(judge, points)
        cut = cuts(judge, scenario, points, durability, long=long)
        # A transaction has 5 calls at the very least; each is left before it and after it.
        tried("crash points", killed.tried, least=10)
        tried("power cuts", cut.tried, least=len({point.disk.killed() for point in points}))
        problems += killed.problems + cut.problems
    tried("different disks", judge.judged, least=1)
    assert problems == []


def test_the_scenarios_ask_for_all_that_a_store_can_be_asked() -> None:
    asked = [op for scenario in SCENARIOS for step in scenario.steps for op in step.ops]
    assert {type(op) for op in asked} >= set(get_args(WriteOp))
    verdicts = {type(op.verdict) for op in asked if isinstance(op, Settle)}
    assert verdicts == set(get_args(Verdict))
