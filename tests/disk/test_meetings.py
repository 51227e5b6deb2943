"""Whatever two connections do between each other's calls, what either was told is there."""

from itertools import product

import pytest

from tests.disk.meeting import ONE, OTHER, meetings

pytestmark = pytest.mark.usefixtures("same_every_time")


@pytest.mark.parametrize(("one", "other"), list(product(ONE, OTHER)))
def test_two_connections_may_meet_at_any_call(one, other, tried) -> None:
    found = meetings(ONE[one], OTHER[other])
    tried("meetings", found.tried, least=15)
    assert found.problems == []
