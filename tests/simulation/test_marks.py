"""Each mark is found where it was reached, and a run in which nothing rare happens has none."""

import pytest

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Aborted,
    Enqueue,
    Enqueued,
    Failed,
    Failure,
    NewTask,
    Parked,
    Prune,
    Pruned,
    Released,
    Renew,
    Reservation,
    Reserve,
    Reserved,
    Retire,
    Retired,
    Settled,
    TaskKey,
    TaskPolicy,
    Unregistered,
)
from sitq.testing.simulation.history import ANSWERED_TWICE, Kind
from sitq.testing.simulation.marks import MARKS, marks
from tests.simulation.written import Written

CASES = {}
BOOM = Failed(Failure("boom", "ValueError"))


def reaches(*names: str):
    def keep(write):
        for name in names:
            CASES[name] = write
        return write

    return keep


def reached_by(write) -> set[str]:
    written = Written()
    write(written)
    return marks(written.history)


@reaches("late verdict", "late completion")
def _late(w: Written) -> None:
    w.worker().worker("b1").enqueued("t0").started("t0")
    w.commit((w.settle("t0", token=7), Settled(False)))


@reaches("given out as it was stored")
def _as_it_was_stored(w: Written) -> None:
    new = NewTask("t0", b"v1|", "f")
    taken = Reservation(TaskKey(1, 1), "t0", "f", b"v1|", 1, TaskPolicy())
    reserve = Reserve("a1.1", ("default",), 1)
    w.worker().asked("t0").commit((Enqueue((new,)), Enqueued()), (reserve, Reserved((taken,))))


@reaches("told apart")
def _told_apart(w: Written) -> None:
    w.worker("b1").worker(slots=2)
    w.enqueued("t0", "t1", fields={"policy": TaskPolicy(max_crashes=2)})
    for task in ("t0", "t1"):
        w.started(task).rescued(task)
    w.commit((Reserve("b1.1", ("default",), 2), Reserved(())), who="b1")


@reaches("answered twice")
def _answered_twice(w: Written) -> None:
    w.worker().note(Kind.FAULT, value=ANSWERED_TWICE)


@reaches("verdict asked twice")
def _asked_again(w: Written) -> None:
    w.worker().enqueued("t0").started("t0").settled("t0")
    w.commit((w.settle("t0"), Settled(True)))


@reaches("tasks found again")
def _found_again(w: Written) -> None:
    found = Reserved((Reservation(TaskKey(1, 1), "t0", "f", b"", 1, TaskPolicy()),))
    w.worker().commit((Reserve("a1.1", ("default",), 1), found))
    w.commit((Reserve("a1.1", ("default",), 1, ()), found))


@reaches("renewal refused")
def _renewal_refused(w: Written) -> None:
    w.worker().commit((Renew("a1.1", 3.0), Unregistered()))


@reaches("reserve refused")
def _reserve_refused(w: Written) -> None:
    w.worker().commit((Reserve("a1.1", ("default",), 1), Unregistered()))


@reaches("rescued by its lock")
def _by_its_lock(w: Written) -> None:
    w.worker().worker("b1").enqueued("t0").started("t0").note(Kind.KILLED).rescued("t0")


@reaches("rescued by its lease", "zombie")
def _by_its_lease(w: Written) -> None:
    w.worker().worker("b1").enqueued("t0").started("t0").later(4).rescued("t0")


@reaches("ran twice at once")
def _at_once(w: Written) -> None:
    w.worker().worker("b1").enqueued("t0").started("t0").later(4).rescued("t0").started("t0", "b1")


@reaches("given up")
def _given_up(w: Written) -> None:
    w.worker().worker("b1").enqueued("t0").started("t0").note(Kind.KILLED)
    w.rescued("t0", new=S.FAILED)


@reaches("last attempt")
def _last_attempt(w: Written) -> None:
    w.worker().enqueued("t0").reserved("t0", attempt=2).settled("t0", S.FAILED, BOOM)


@reaches("unknown, and stored")
def _unknown_and_stored(w: Written) -> None:
    w.worker().asked("t0").stored("t0").note(Kind.UNKNOWN, value=("t0",))


@reaches("unknown, and not stored")
def _unknown_and_not_stored(w: Written) -> None:
    w.worker().asked("t0").note(Kind.UNKNOWN, value=("t0",))


@reaches("refused")
def _refused(w: Written) -> None:
    w.worker().asked("t0").note(Kind.REFUSED, value=("t0",))


@reaches("asked twice")
def _asked_twice(w: Written) -> None:
    w.worker().enqueued("t0").asked("t0").note(Kind.ENQUEUED, value=("t0",))


@reaches("killed between reserve and start")
def _before_the_start(w: Written) -> None:
    w.worker().enqueued("t0").reserved("t0").note(Kind.KILLED)


@reaches("killed between end and verdict")
def _before_the_verdict(w: Written) -> None:
    w.worker().enqueued("t0").started("t0").ended("t0").note(Kind.KILLED)


@reaches("handed back")
def _handed_back(w: Written) -> None:
    w.worker().enqueued("t0").started("t0").settled("t0", S.QUEUED, Released(), attempt=0)


@reaches("handed back unstarted", "handed back")
def _held_ahead(w: Written) -> None:
    w.worker().enqueued("t0").reserved("t0").settled("t0", S.QUEUED, Released(), attempt=0)


@reaches("retired with tasks")
def _retired(w: Written) -> None:
    w.worker().enqueued("t0").reserved("t0").commit((Retire("a1.1"), Retired(1)))


@reaches("cancelled while waiting")
def _waiting(w: Written) -> None:
    w.worker().enqueued("t0").commit().row("t0", S.CANCELLED)


@reaches("cancelled while running")
def _running(w: Written) -> None:
    w.worker().enqueued("t0").started("t0").settled("t0", S.CANCELLED, Aborted())


@reaches("cancelled too late")
def _too_late(w: Written) -> None:
    w.worker().enqueued("t0").done("t0").note(Kind.CANCELLED, task="t0", value=S.SUCCESS)


@reaches("parked")
def _parked(w: Written) -> None:
    w.worker().enqueued("t0").reserved("t0").settled("t0", S.PARKED, Parked("v2", ""), attempt=0)


@reaches("read after all")
def _read_after_all(w: Written) -> None:
    _parked(w)
    w.commit().row("t0", S.QUEUED).started("t0")


@reaches("forgotten")
def _forgotten(w: Written) -> None:
    w.worker().enqueued("t0").done("t0").commit((Prune(0.0, 500), Pruned(1))).row("t0", None)


@reaches("many at once")
def _many(w: Written) -> None:
    w.worker(slots=2).enqueued("t0", "t1").started("t0").started("t1")
    w.commit((w.settle("t0"), Settled(True)), (w.settle("t1"), Settled(True)))


@reaches("two lives")
def _two_lives(w: Written) -> None:
    w.worker().worker(life=2)


@pytest.mark.parametrize("name", CASES)
def test_a_mark_is_found_where_it_was_reached(name) -> None:
    assert name in reached_by(CASES[name])


def test_each_mark_has_a_case() -> None:
    assert CASES.keys() == MARKS.keys()


def test_a_run_in_which_nothing_rare_happens_has_no_mark() -> None:
    def write(w: Written) -> None:
        w.worker().worker("b1").enqueued("t0").enqueued("t1").done("t0").done("t1", "b1")

    assert reached_by(write) == set()


@pytest.mark.parametrize("name", CASES)
def test_all_that_is_found_is_in_the_table(name) -> None:
    assert reached_by(CASES[name]) <= MARKS.keys()
