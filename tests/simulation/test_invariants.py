"""Each invariant bites: for each there is a tiny history, written by hand, that breaks it alone."""

import pytest

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Failed,
    Failure,
    Prune,
    Pruned,
    Released,
    RetryPolicy,
    TaskPolicy,
)
from sitq.testing.simulation.history import Kind
from sitq.testing.simulation.invariants import INVARIANTS, Checker
from tests.simulation.written import EPOCH_MS, Written

CASES = {}
"""By invariant: what writes the history. It returns what the checker is told of the run."""


def breaks(invariant: str):
    def keep(write):
        CASES[invariant] = write
        return write

    return keep


def broken_by(write) -> list[str]:
    written = Written()
    told = write(written) or {}
    return [found.invariant for found in Checker(**told).check(written.history)]


@breaks("S1")
def _acknowledged_and_nowhere(w: Written) -> None:
    w.worker().asked("t0").note(Kind.ENQUEUED, value=("t0",))


@breaks("S2")
def _stored_and_nobody_asked(w: Written) -> None:
    w.worker().stored("t0")


@breaks("S3")
def _half_of_a_group(w: Written) -> None:
    w.worker().asked("t0", "t1").stored("t0", "t1")
    w.history.pop()  # the row of t1
    w.note(Kind.UP, "b1")


@breaks("S4")
def _the_same_call_is_called_another(w: Written) -> None:
    w.worker().enqueued("t0").asked("t0").note(Kind.CONFLICT, value=("t0",))


@breaks("S5")
def _another_result(w: Written) -> None:
    w.worker().enqueued("t0").note(Kind.WAIT, task="t0")
    w.done("t0").note(Kind.READ, task="t0", value=(S.SUCCESS, b"other"))


@breaks("S6")
def _one_token_starts_twice(w: Written) -> None:
    w.worker().enqueued("t0").started("t0").ended("t0").begun("t0")


@breaks("S7")
def _an_attempt_that_nobody_made(w: Written) -> None:
    w.worker().enqueued("t0", fields={"policy": TaskPolicy(retry=RetryPolicy(attempts=3))})
    w.reserved("t0", attempt=2)


@breaks("S8")
def _back_from_the_end(w: Written) -> None:
    w.worker().enqueued("t0").done("t0").commit().row("t0", S.QUEUED)


@breaks("S9")
def _told_what_was_never_stored(w: Written) -> None:
    w.worker().enqueued("t0").started("t0").ended("t0")
    w.note(Kind.TOLD, task="t0", token=1, value=True)


@breaks("S10")
def _taken_from_the_living(w: Written) -> None:
    w.worker().worker("b1").enqueued("t0").started("t0").rescued("t0")


@breaks("S11")
def _two_at_once(w: Written) -> None:
    w.worker().enqueued("t0").started("t0").later(4)
    w.worker("b1").rescued("t0").started("t0", "b1")


@breaks("S12")
def _twice_though_all_was_calm(w: Written) -> dict:
    w.worker().enqueued("t0").started("t0").ended("t0")
    w.settled("t0", S.QUEUED, Released(), attempt=0)
    w.done("t0").note(Kind.QUIET)
    return {"calm": True}


@breaks("S13")
def _due_too_early(w: Written) -> None:
    w.worker().asked("t0").stored("t0", state=S.SCHEDULED, run_at_ms=EPOCH_MS + 9000)
    w.commit().row("t0", S.QUEUED)


@breaks("S14")
def _a_lease_is_lost_without_need(w: Written) -> dict:
    w.worker().note(Kind.LET_GO, value="a1.1")
    return {"undisturbed": True}


@breaks("S15")
def _cancelled_and_started(w: Written) -> None:
    w.worker().enqueued("t0").note(Kind.CANCELLED, task="t0", value=S.QUEUED).begun("t0")


@breaks("S16")
def _two_in_one_slot(w: Written) -> None:
    w.worker().enqueued("t0", "t1").started("t0").started("t1")


@breaks("S17")
def _stopped_and_at_work(w: Written) -> None:
    w.worker().enqueued("t0").note(Kind.STOPPED, value={}).begun("t0")


@breaks("S18")
def _a_move_that_is_in_no_table(w: Written) -> None:
    w.worker().enqueued("t0").commit().row("t0", S.SUCCESS)


@breaks("S21")
def _the_second_comes_first(w: Written) -> None:
    w.worker().enqueued("t0", "t1").started("t1")


@breaks("S24")
def _damaged(w: Written) -> None:
    w.worker().enqueued("t0").done("t0").note(Kind.SOUND, value=False)


@breaks("S25")
def _forgotten_too_early(w: Written) -> None:
    w.worker().enqueued("t0").done("t0")
    w.commit((Prune(60.0, 500), Pruned(1))).row("t0", None, finished_ms=w.now.wall_ms)


@breaks("S27")
def _two_suspects_in_one_worker(w: Written) -> None:
    w.worker().worker("b1", slots=2)
    w.enqueued("t0", "t1", fields={"policy": TaskPolicy(max_crashes=2)})
    w.started("t0").note(Kind.KILLED).rescued("t0")
    w.worker("c1").started("t1", "c1").note(Kind.KILLED, "c1").rescued("t1")
    w.started("t0", "b1").started("t1", "b1")


@breaks("L1")
def _left_behind(w: Written) -> None:
    w.worker().enqueued("t0").note(Kind.QUIET)


@breaks("L2")
def _rescued_too_late(w: Written) -> dict:
    w.worker().worker("b1").enqueued("t0").started("t0").note(Kind.HEALED)
    w.note(Kind.KILLED).later(5).rescued("t0")
    return {"presence": True}


@breaks("L3")
def _given_up_at_the_first_death(w: Written) -> None:
    w.worker().worker("b1").enqueued("t0").started("t0").note(Kind.KILLED)
    w.rescued("t0", new=S.FAILED)


@breaks("L4")
def _nobody_looks(w: Written) -> dict:
    w.worker().note(Kind.HEALED).enqueued("t0").later(5).started("t0")
    return {"polls": {"a": 1.0}}


@breaks("L5")
def _cancelled_and_not_told(w: Written) -> dict:
    w.worker().enqueued("t0").started("t0").commit((Cancel("t0"), Cancelled(S.RUNNING)))
    w.later(5).note(Kind.INTERRUPT, task="t0", token=1)
    return {"undisturbed": True}


@breaks("L6")
def _told_too_late(w: Written) -> dict:
    w.worker().enqueued("t0").note(Kind.WAIT, task="t0")
    w.done("t0").later(5).note(Kind.READ, task="t0", value=(S.SUCCESS, b"done"))
    return {"undisturbed": True}


@breaks("L7")
def _it_does_not_stop(w: Written) -> None:
    w.worker().note(Kind.HEALED).note(Kind.STOP_ASKED).later(9).note(Kind.STOPPED, value={})


@breaks("L8")
def _no_time_limit(w: Written) -> dict:
    w.worker().enqueued("t0", fields={"policy": TaskPolicy(timeout=1.0)}).started("t0")
    w.later(5).ended("t0")
    return {"undisturbed": True}


@breaks("L9")
def _a_storm_of_questions(w: Written) -> None:
    w.worker()
    for _ in range(25):
        w.later(0.05).note(Kind.DENIED, value="worker")


@breaks("L13")
def _something_is_kept(w: Written) -> None:
    w.worker().note(Kind.STOPPED, value={"running": 1})


@breaks("L14")
def _hoarded(w: Written) -> dict:
    w.worker().enqueued("t0").reserved("t0").later(7).begun("t0")
    return {"patience": {"a": 5.0}, "undisturbed": True}


@breaks("L15")
def _ran_on(w: Written) -> None:
    w.worker().enqueued("t0").started("t0").note(Kind.LET_GO, value="a1.1").later(3).ended("t0")


@pytest.mark.parametrize("invariant", CASES)
def test_a_history_that_breaks_it_is_caught_by_it_alone(invariant) -> None:
    assert broken_by(CASES[invariant]) == [invariant]


def test_each_invariant_has_a_case() -> None:
    assert CASES.keys() == INVARIANTS.keys()


def test_a_history_in_which_all_is_well_breaks_nothing() -> None:
    def write(w: Written) -> dict:
        w.worker(slots=2).worker("b1").enqueued("t0", "t1").note(Kind.WAIT, "b1", "t0")
        w.done("t0").note(Kind.READ, "b1", "t0", value=(S.SUCCESS, b"done"))
        w.started("t1").note(Kind.KILLED).rescued("t1").done("t1", "b1").note(Kind.HEALED)
        w.note(Kind.STOP_ASKED, "b1").note(Kind.STOPPED, "b1", value={}).note(Kind.QUIET)
        return {"presence": True, "undisturbed": True}

    assert broken_by(write) == []


def test_a_worker_that_is_to_stop_starts_nothing() -> None:
    def write(w: Written) -> dict:
        w.worker(slots=2).enqueued("t0").reserved("t0").note(Kind.STOP_ASKED).later(2).begun("t0")

    assert broken_by(write) == ["S17"]


def test_what_was_given_under_one_lease_starts_under_no_other() -> None:
    def write(w: Written) -> None:
        w.worker().worker("b1").enqueued("t0").reserved("t0")
        w.note(Kind.START, "a1", "t0", 1, ("b1.1", b"v1|"))

    assert broken_by(write) == ["S6"]


# -- what looks like a breach, and is none ------------------------------------------------


def _done_forgotten_and_taken_again() -> Written:
    """The task of a1 is over and forgotten; b1 runs another of that id, which has its token."""
    w = Written()
    w.worker().worker("b1").enqueued("t0").started("t0").ended("t0").settled("t0").later(2)
    _forgotten(w).asked("t0", who="b1").stored("t0", who="b1", seq=2)
    return w.note(Kind.ENQUEUED, "b1", value=("t0",)).started("t0", "b1")


def _forgotten(w: Written) -> Written:
    """Forget t0, which ended a second ago."""
    w.commit((Prune(older_than=0.5, limit=1), Pruned(1)))
    w.row("t0", None, finished_ms=w.now.wall_ms - 1_000).rows.pop("t0")
    return w


def test_a_verdict_may_be_confirmed_after_its_task_was_forgotten_and_its_id_taken_again() -> None:
    w = _done_forgotten_and_taken_again()
    w.note(Kind.TOLD, "a1", "t0", 1, value=True)

    assert not Checker().check(w.history)


def test_the_verdict_of_a_forgotten_task_says_nothing_of_the_next_one_of_its_id() -> None:
    w = _done_forgotten_and_taken_again()
    w.note(Kind.TOLD, "b1", "t0", 1, value=True)

    assert [found.invariant for found in Checker().check(w.history)] == ["S9"]


def test_an_attempt_that_was_interrupted_says_nothing_of_one_of_the_next_task_of_its_id() -> None:
    w = Written()
    w.worker().enqueued("t0").started("t0").note(Kind.INTERRUPT, task="t0", token=1)
    w.ended("t0", how="interrupted").settled("t0", S.CANCELLED, Aborted()).later(2)
    _forgotten(w).asked("t0").stored("t0", seq=2).note(Kind.ENQUEUED, value=("t0",))
    w.started("t0").ended("t0", how="raised")
    w.settled("t0", S.FAILED, Failed(Failure("no", "ValueError")))

    assert not Checker().check(w.history)
