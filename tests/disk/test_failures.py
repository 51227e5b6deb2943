"""A disk that fails at any call: the store succeeds, or says what is true, and goes on later."""

import pytest

from tests.disk.crashing import record
from tests.disk.failing import failures, forgetful_syncs
from tests.disk.judging import Judge
from tests.disk.scenarios import SCENARIOS

pytestmark = pytest.mark.usefixtures("same_every_time")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_any_call_may_fail(scenario, tried, long) -> None:
    calls = [point.call for point in record(scenario) if point.when == "before"]
    found = failures(scenario, Judge(scenario), calls, long=long)

    can_fail = [call for call in calls if call.kind not in {"control", "shm barrier"}]
    tried("failures", found.tried, least=len(can_fail))
    assert len(can_fail) > 5
    assert found.problems == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_what_is_answered_after_a_sync_has_failed_survives_a_power_cut(scenario, tried) -> None:
    calls = [point.call for point in record(scenario) if point.when == "before"]
    found = forgetful_syncs(scenario, Judge(scenario), calls)
    tried("syncs that forget", found.tried, least=sum(call.kind == "sync" for call in calls))
    assert found.problems == []
