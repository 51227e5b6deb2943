"""The pytest plugin: one fixture, `sitq_queue`. It comes with sitq, and pytest finds it by itself.

The promise: a project that does not use the fixture pays one import of this file, which loads no
event loop and nothing else of sitq.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sitq.testing.manual.queue import ManualQueue


@pytest.fixture
def sitq_queue() -> "Iterator[ManualQueue]":
    """A queue in memory: the test moves its clock, and runs its tasks with `drain()`."""
    from sitq.testing.manual.queue import ManualQueue

    with ManualQueue() as queue:
        yield queue
