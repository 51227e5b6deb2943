"""A run that fails: a bug is planted, and the first seed that shows it is taken."""

from contextlib import contextmanager

from sitq.testing.simulation.mutants import MUTANTS
from sitq.testing.simulation.store import SqliteSimStore
from sitq.testing.simulation.trial import play
from tests.simulation.by_hand import RESCUED


@contextmanager
def failing_rescue():
    """Yield a trial of which it is known by heart how it fails: a rescue keeps the token."""
    with MUTANTS["rescue keeps the token"].planted():
        yield play(RESCUED)


@contextmanager
def failing(bug: str):
    """Yield a trial that fails, while *bug* is planted."""
    store = SqliteSimStore()
    with MUTANTS[bug].planted():
        for seed in range(1000):
            trial = play(MUTANTS[bug].plan(seed), store)
            if trial.failed:
                yield trial
                return
        raise AssertionError(f"no seed shows {bug!r}")
