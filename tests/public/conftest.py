"""A queue on the backend of the test, a gate for its tasks, and a look into the store."""

import gc
import sys
from collections import Counter
from pathlib import Path

import pytest

from sitq import TaskQueue
from sitq.protocol.ops import Count, Fetch

sys.path.insert(0, str(Path(__file__).parent))  # where the modules of tasks lie

from gated_tasks import Gate


class View:
    """How tasks stand while they have not ended: `get_result` tells only of those that have."""

    def __init__(self, backend) -> None:
        self._backend = backend

    def row(self, task_id):
        return self._ask(Fetch((task_id,))).rows.get(task_id)

    def state(self, task_id) -> str:
        return self.row(task_id).state

    def counts(self) -> Counter[str]:
        """The number of tasks by state."""
        counts = Counter()
        for _, state, number in self._ask(Count()).rows:
            counts[str(state)] += number
        return counts

    def total(self) -> int:
        return self.counts().total()

    def _ask(self, op):
        store = self._backend.open_store()
        try:
            (outcome,) = store.apply([op])
            return outcome
        finally:
            store.close()


@pytest.fixture(scope="session", autouse=True)
def _only_what_a_test_makes_is_collected():
    """Spare the garbage collection after each test the modules, and all else that will stay."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def view(backend):
    return View(backend)


@pytest.fixture
def queue(backend):
    return TaskQueue(backend)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()  # no thread is left behind a closed one
