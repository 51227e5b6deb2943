"""Every test of a virtual run is one on asyncio and one on trio."""

from functools import partial

import pytest

from sitq import testing
from tests.testing import chores


@pytest.fixture(params=["asyncio", "trio"])
def loop(request):
    return request.param


@pytest.fixture
def run(loop):
    """Run something in virtual time."""
    chores.done.clear()
    return partial(testing.run, backend=loop)
