"""What the simulator has found in sitq, each as the smallest run that shows it."""

import pytest

from sitq.protocol.lifecycle import TaskState
from sitq.testing.simulation.climate import CALM, Plan
from sitq.testing.simulation.history import Kind
from sitq.testing.simulation.mutants import MUTANTS, Edit, Mutant
from sitq.testing.simulation.trial import play
from tests.simulation.by_hand import NODE, TASK


def run_in_doubt(seed: int, store: str):
    """One worker, one task, and a store whose commits fail half of the time."""
    climate = CALM._replace(doubted=0.5)
    return play(Plan(seed, climate, True, store, (NODE,), (TASK,), heals_at=2.0))


def lost_a_reserve(trial) -> bool:
    """Say whether the task was given to a worker that did not hear of it then."""
    claimed = next(
        event.at
        for event in trial.history
        if event.kind is Kind.ROW and event.value.new is TaskState.RUNNING
    )
    started = next(event.at for event in trial.history if event.kind is Kind.START)
    return started - claimed > 0.1


@pytest.mark.parametrize("store", ["model", "sqlite"])
def test_a_task_does_not_stay_with_a_worker_that_never_heard_of_it(store) -> None:
    """A reserve that was stored, and whose COMMIT failed nevertheless, was asked again afresh.

    What the lost answer had named was held by the worker, as long as that lived, and run by nobody.
    """
    trials = [run_in_doubt(seed, store) for seed in range(40)]
    assert not [trial for trial in trials if trial.failed]
    assert any(map(lost_a_reserve, trials)), "and it did happen in one of them"

    with MUTANTS["a lost answer is lost"].planted():
        broken = [run_in_doubt(seed, store) for seed in range(40)]
    assert "L1" in {trial.violations[0].invariant for trial in broken if trial.failed}


def paused_and_late(seed: int):
    """Two workers that hold short tasks ahead, stand still, and hear late of their leases."""
    climate = CALM._replace(pause=0.5, late_news=0.5)
    node = NODE._replace(lease_for=1.0, poll_interval=1.0, horizon=0.2)
    tasks = [TASK._replace(id=f"t{n}", group=n, at=n * 0.02, takes=0.02) for n in range(100)]
    return play(Plan(seed, climate, False, "model", (node, node), tuple(tasks), heals_at=6.0))


def test_what_is_held_ahead_is_not_carried_over_into_the_next_lease() -> None:
    """A worker that stood still heard of its next lease before it heard that the last was lost.

    It then kept what it held ahead under the last, and ran it, though others had run it meanwhile.
    Found by seed 105 with a hundred hosts.
    """
    assert not [seed for seed in range(40) if paused_and_late(seed).failed]

    forgets = Edit(
        "protocol.worker:WorkerMachine._lease_held",
        "self._lease_lost(self._worker_id, effects)",
        "pass",
    )
    with Mutant("carried over", "What is held ahead outlives its lease.", (forgets,)).planted():
        broken = [trial for trial in map(paused_and_late, range(40)) if trial.failed]
    assert {trial.violations[0].invariant for trial in broken} == {"S6"}


def doubted_and_long(seed: int):
    """Answers are lost while tasks are short and many are asked for; then a long one comes."""
    climate = CALM._replace(doubted=0.4)
    node = NODE._replace(slots=1, horizon=0.2)
    short = [TASK._replace(id=f"t{n}", group=n, at=0.5 + n * 0.04, takes=0.01) for n in range(12)]
    long = TASK._replace(id="long", group=12, at=0.6, takes=2.0)
    return play(Plan(seed, climate, True, "model", (node,), (*short, long), heals_at=2.0))


def test_of_what_was_given_and_never_heard_of_the_first_part_is_not_taken_for_the_whole() -> None:
    """A worker asked again for what a lost answer had named, but with room for less of it.

    What did not fit stayed with it, as long as it lived, and was run by nobody.
    Found by seed 2311414512.
    """
    assert not [seed for seed in range(60) if doubted_and_long(seed).failed]

    forgets = Edit(
        "protocol.worker:WorkerMachine._reserved",
        "self._unheard = max(0, self._unheard - op.limit)",
        "self._unheard = 0",
    )
    with Mutant("the first part", "A full answer is taken for the whole.", (forgets,)).planted():
        broken = [trial for trial in map(doubted_and_long, range(60)) if trial.failed]
    assert {trial.violations[0].invariant for trial in broken} == {"L1"}
