"""The other commands of `python -m torture`, for as long as a test may take."""

import pytest

from torture import alive, rescues, wal

pytestmark = pytest.mark.slow


def test_the_tasks_of_a_killed_worker_run_again_within_two_seconds() -> None:
    times = list(rescues.rescue_times(5, seed=1))
    assert len(times) == 5
    assert max(times) < rescues.PROMISED


def test_a_worker_whose_loop_is_blocked_under_full_load_keeps_its_tasks() -> None:
    found = alive.left_alone(seconds=5.0, hogs=2, count=200)
    assert found == alive.Alive(tasks=201, started_again=0, leases_lost=0)


def test_eight_processes_that_write_and_checkpoint_lose_nothing() -> None:
    found = wal.write(processes=8, seconds=4.0, seed=1)
    assert (found.lost, found.is_whole, found.ended_badly) == (0, True, 0)
    assert found.tasks > 500
    assert found.checkpoints > 50
