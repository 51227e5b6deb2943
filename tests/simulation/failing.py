"""A run that fails: a bug is planted, and the first seed that shows it is taken."""

from contextlib import contextmanager

from sitq.testing.simulation.mutants import MUTANTS
from sitq.testing.simulation.store import SqliteSimStore
from sitq.testing.simulation.trial import play


@contextmanager
def failing(bug: str):
    """Yield a trial that fails, while *bug* is planted."""
    store = SqliteSimStore()
    with MUTANTS[bug].planted():
        for seed in range(1000):
            trial = play(seed, store)
            if trial.failed:
                yield trial
                return
        raise AssertionError(f"no seed shows {bug!r}")
