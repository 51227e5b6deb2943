"""Two batches at once on Postgres, one halted between two of its statements while the other runs.

A batch that has to wait for the other is run in a thread, and is known to wait by what the server
says of it.
"""

import threading
import time

import pytest

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Cancel,
    Cancelled,
    Completed,
    Conflict,
    Count,
    Enqueue,
    Enqueued,
    Fetch,
    Prune,
    Pruned,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reserve,
    Retire,
    Settle,
    Settled,
    TaskPolicy,
    Unregistered,
)
from sitq.storage import postgres_statements as sql
from sitq.storage.postgres import apply_batch
from sitq.storage.program import Commit, Done, resume
from tests.storage.on_postgres import PgError, Postgres, one_by_one
from tests.storage.runs import NOW, later, new_task, register


@pytest.fixture
def other(postgres):
    """A second connection."""
    other = Postgres(postgres.settings.dsn)
    yield other
    other.close()


class Halted:
    """A batch that is run up to a statement, and to its end when it is told to."""

    def __init__(self, store, ops, before, now=NOW) -> None:
        self.store, self.now = store, now
        self.program = one_by_one(apply_batch(ops, "sitq"))
        self.step = resume(self.program, None)
        while not self._is_at(before):
            self.step = resume(self.program, store.step(self.step, now))

    def _is_at(self, before) -> bool:
        assert not isinstance(self.step, Done), "it never came there"
        return self.step == before or getattr(self.step, "sql", None) == before

    def go_on(self):
        while not isinstance(self.step, Done):
            self.step = resume(self.program, self.store.step(self.step, self.now))
        return self.step.value


class Waiting:
    """A batch that waits for another one's locks, in a thread."""

    def __init__(self, store, ops, witness, now=NOW) -> None:
        self.answer = None
        self.failure = None

        def run() -> None:
            try:
                self.answer = store.apply(ops, now)
            except Exception as error:
                self.failure = error

        self.thread = threading.Thread(target=run)
        self.thread.start()
        pid = store.connection.info.backend_pid
        waits = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"
        while not witness.ask(waits, (pid,)):
            assert self.thread.is_alive(), f"it did not wait: {self.answer or self.failure}"
            time.sleep(0.005)

    def ended(self):
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.failure is not None:
            raise self.failure
        return self.answer


@pytest.fixture
def third(postgres):
    third = Postgres(postgres.settings.dsn)
    yield third
    third.close()


def reserve(limit=10, worker_id="w", known=None) -> Reserve:
    return Reserve(worker_id, ("default",), limit, known)


def given(store, op) -> list:
    (reserved,) = store.apply([op])
    return list(reserved.tasks)


def rows(store, *ids):
    (fetched,) = store.apply([Fetch(ids)])
    return [fetched.rows[id_] for id_ in ids]


@pytest.mark.parametrize("may_exist", [True, False])
@pytest.mark.parametrize("payload", [b"p", b"another"])
def test_of_two_who_enqueue_one_id_at_once_the_second_is_told_what_became_of_it(
    postgres, other, third, payload, may_exist
) -> None:
    first = Halted(postgres, [Enqueue((new_task("x"), new_task("y")), may_exist=True)], Commit())
    second = Waiting(
        other,
        [
            Enqueue((new_task("a"), new_task("x", payload), new_task("b")), may_exist=may_exist),
            Enqueue((new_task("c"),), may_exist=may_exist),
        ],
        third,
    )
    assert first.go_on() == (Enqueued(),)

    same = payload == b"p"
    assert second.ended() == (Enqueued() if same else Conflict("x", S.QUEUED), Enqueued())
    stored = ("a", "b", "c", "x", "y") if same else ("c", "x", "y")
    (fetched,) = third.apply([Fetch(("a", "b", "c", "x", "y"))])
    assert tuple(sorted(fetched.rows)) == stored


def test_one_id_twice_in_a_batch_is_one_task_whoever_chose_it(postgres) -> None:
    twice = [Enqueue((new_task("x"),)), Enqueue((new_task("x"),)), Enqueue((new_task("x", b"q"),))]

    assert postgres.apply(twice) == (Enqueued(), Enqueued(), Conflict("x", S.QUEUED))


def test_an_id_that_is_taken_costs_those_who_reserve_along_with_it_nothing(postgres) -> None:
    postgres.apply([register(), Enqueue((new_task("a"),))])
    enqueued, reserved = postgres.apply([Enqueue((new_task("a"),)), Reserve("w", ("default",), 9)])
    assert enqueued == Enqueued()
    assert [task.id for task in reserved.tasks] == ["a"]


def test_who_enqueue_the_same_ids_in_another_order_do_not_wait_for_each_other_crosswise(
    postgres, other, third
) -> None:
    tasks = tuple(new_task(str(n)) for n in range(9))
    first = Halted(postgres, [Enqueue(tasks, may_exist=True)], Commit())
    second = Waiting(other, [Enqueue(tasks[::-1], may_exist=True)], third)
    first.go_on()

    assert second.ended() == (Enqueued(),)
    postgres.apply([register()])
    assert [task.id for task in given(postgres, reserve())] == [task.id for task in tasks]


def test_two_who_reserve_at_once_are_given_different_tasks_and_do_not_wait(postgres, other) -> None:
    postgres.apply([register("w"), register("v"), Enqueue(tuple(map(new_task, "abcde")))])
    first = Halted(postgres, [reserve(2)], Commit())

    assert [task.id for task in given(other, reserve(2, "v"))] == ["c", "d"]
    assert [task.id for task in first.go_on()[0].tasks] == ["a", "b"]


def test_a_worker_that_is_being_rescued_is_given_nothing(postgres, other, third) -> None:
    postgres.apply([register(), Enqueue((new_task(),))])
    rescue = Halted(postgres, [Rescue(("w",))], Commit())
    asked = Waiting(other, [reserve()], third)

    assert rescue.go_on() == (Rescued(("w",), 0),)
    assert asked.ended() == (Unregistered(),)
    assert rows(other, "t")[0].state is S.QUEUED


def test_a_worker_that_is_given_something_is_not_rescued_at_that_moment_but_with_it_later(
    postgres, other
) -> None:
    postgres.apply([register(), Enqueue((new_task(),))])
    asked = Halted(postgres, [reserve()], Commit())

    assert other.apply([Rescue(("w",))]) == (Rescued((), 0),)
    asked.go_on()
    assert other.apply([Rescue(("w",))]) == (Rescued(("w",), 1),)


def test_what_was_given_while_its_worker_retires_goes_back_too(postgres, other, third) -> None:
    postgres.apply([register(), Enqueue((new_task(),))])
    asked = Halted(postgres, [reserve()], Commit())
    retiring = Waiting(other, [Retire("w")], third)
    asked.go_on()

    assert retiring.ended()[0].released == 1
    assert rows(other, "t")[0].state is S.QUEUED


def test_a_renewal_waits_for_no_reserve(postgres, other) -> None:
    postgres.apply([register(), Enqueue((new_task(),))])
    asked = Halted(postgres, [reserve()], Commit())

    assert other.apply([Renew("w", 30.0)]) == (Renewed(),)
    asked.go_on()


def test_a_worker_that_is_renewing_its_lease_is_not_rescued(postgres, other) -> None:
    postgres.apply([register(lease_for=0.0)])
    renewal = Halted(postgres, [Renew("w", 30.0)], Commit())

    assert other.apply([Rescue()]) == (Rescued((), 0),)
    assert renewal.go_on() == (Renewed(),)
    assert other.apply([Rescue()]) == (Rescued((), 0),)


def test_of_two_who_rescue_at_once_one_does_it_and_the_tasks_are_charged_once(
    postgres, other
) -> None:
    postgres.apply([register(), Enqueue((new_task(),))])
    given(postgres, reserve())
    first = Halted(postgres, [Rescue(("w",))], Commit())

    assert other.apply([Rescue(("w",))]) == (Rescued((), 0),)
    assert first.go_on() == (Rescued(("w",), 1),)
    assert rows(other, "t")[0].crashes == 1


@pytest.mark.parametrize("settles_first", [True, False])
def test_of_a_settle_and_a_rescue_of_one_task_the_first_counts(
    postgres, other, third, settles_first
) -> None:
    postgres.apply([register(), Enqueue((new_task(),))])
    (task,) = given(postgres, reserve())
    settle, rescue = [Settle(task.key, "t", "w", Completed(b"v"))], [Rescue(("w",))]
    first = Halted(postgres, settle if settles_first else rescue, Commit())
    second = Waiting(other, rescue if settles_first else settle, third)
    first.go_on()

    assert second.ended() == ((Rescued(("w",), 0),) if settles_first else (Settled(False),))
    assert rows(other, "t")[0].state is (S.SUCCESS if settles_first else S.QUEUED)


def test_a_settle_that_is_asked_again_while_the_first_is_being_committed_is_confirmed(
    postgres, other, third
) -> None:
    """As after a connection that was lost inside COMMIT."""
    postgres.apply([register(), Enqueue((new_task(),))])
    (task,) = given(postgres, reserve())
    settle = [Settle(task.key, "t", "w", Completed(b"v"))]
    first = Halted(postgres, settle, Commit())
    again = Waiting(other, settle, third)
    first.go_on()

    assert again.ended() == (Settled(True),)


def test_a_reserve_that_is_asked_again_waits_for_the_one_whose_answer_was_lost(
    postgres, other, third
) -> None:
    postgres.apply([register(), Enqueue(tuple(map(new_task, "abc")))])
    lost = Halted(postgres, [reserve(2)], Commit())
    again = Waiting(other, [reserve(2, known=())], third)
    lost.go_on()

    assert [task.id for task in again.ended()[0].tasks] == ["a", "b"]
    assert rows(third, "c")[0].state is S.QUEUED


@pytest.mark.parametrize("reserves_first", [True, False])
def test_a_task_that_is_cancelled_while_it_is_reserved_is_stopped_or_never_given(
    postgres, other, third, reserves_first
) -> None:
    postgres.apply([register(), Enqueue((new_task(),))])
    if reserves_first:
        asked = Halted(postgres, [reserve()], Commit())
        cancel = Waiting(other, [Cancel("t")], third)
        asked.go_on()
        assert cancel.ended()[0].holder == "w"
        assert rows(third, "t")[0].state is S.RUNNING
    else:
        cancelling = Halted(postgres, [Cancel("t")], Commit())
        assert given(other, reserve()) == []
        assert cancelling.go_on() == (Cancelled(S.QUEUED),)
        assert rows(third, "t")[0].state is S.CANCELLED


def test_two_who_find_the_same_task_due_promote_it_once(postgres, other) -> None:
    postgres.apply([register("w"), register("v"), Enqueue((new_task(delay_ms=500),))])
    first = Halted(postgres, [reserve()], sql.PROMOTE, later(1))  # it has looked
    first.step = resume(first.program, postgres.step(first.step, later(1)))

    (nothing,) = other.apply([reserve(10, "v")], later(1))
    assert (nothing.tasks, nothing.next_due_in) == ((), 0.0)
    assert [task.id for task in first.go_on()[0].tasks] == ["t"]


def test_no_worker_holds_two_suspects_however_many_reserve_at_once(postgres, other) -> None:
    policy = TaskPolicy(max_crashes=2)
    postgres.apply([register("dead"), Enqueue(tuple(new_task(n, policy=policy) for n in "abc"))])
    given(postgres, reserve(3, "dead"))
    postgres.apply([Rescue(("dead",)), register("w"), register("v")])
    first = Halted(postgres, [reserve(3)], Commit())

    assert [task.id for task in given(other, reserve(3, "v"))] == ["b"]
    assert [task.id for task in first.go_on()[0].tasks] == ["a"]
    assert given(postgres, reserve(3)) == []


def test_two_who_prune_at_once_forget_each_task_once(postgres, other) -> None:
    postgres.apply([Enqueue(tuple(map(new_task, "abcde"))), *map(Cancel, "abcd")])
    postgres.apply(list(map(Cancel, "abcd")))
    first = Halted(postgres, [Prune(0.0, 2)], Commit())

    assert other.apply([Prune(0.0, 10)]) == (Pruned(2),)
    assert first.go_on() == (Pruned(2),)
    assert other.apply([Count()])[0].rows == (("default", S.QUEUED, 1),)


def test_two_that_wait_for_each_other_are_told_apart_by_the_server(postgres, other, third) -> None:
    postgres.apply([Enqueue((new_task("a"), new_task("b")))])
    first = Halted(postgres, [Cancel("b")], Commit())
    second = Halted(other, [Cancel("a")], Commit())
    find = sql.FIND, (sql_texts("a"),)
    failures: list[PgError] = []

    def cross() -> None:
        try:
            postgres.ask(*find)
        except PgError as error:
            failures.append(error)
            postgres.ask("ROLLBACK")

    thread = threading.Thread(target=cross)
    thread.start()
    try:
        other.ask(sql.FIND, (sql_texts("b"),))
    except PgError as error:
        failures.append(error)
        other.ask("ROLLBACK")
    thread.join(30)

    assert [error.sqlstate for error in failures] == ["40P01"]
    for store in (postgres, other):
        store.ask("ROLLBACK")
    assert first.step == second.step == Commit()


def sql_texts(*ids):
    from sitq.storage.postgres_arrays import Texts

    return Texts(ids)


def test_a_policy_that_cannot_be_read_parks_its_task_and_the_next_is_given(postgres) -> None:
    postgres.apply([register(), Enqueue((new_task("bad"), new_task("good")))])
    postgres.ask("UPDATE sitq.tasks SET policy = 'garbage' WHERE id = 'bad'")

    assert [task.id for task in given(postgres, reserve(2))] == ["good"]
    (bad,) = rows(postgres, "bad")
    assert (bad.state, bad.attempt) == (S.PARKED, 0)
    assert "the options of this task are damaged (its policy is 'garbage')" in bad.error


# -- several queues ----------------------------------------------------------------------------


def reserve_from(*queues, limit, worker_id="w") -> Reserve:
    return Reserve(worker_id, queues, limit, None)


def enqueue_in(store, queue, *ids, **more) -> None:
    store.apply([Enqueue(tuple(new_task(id_, queue=queue, **more) for id_ in ids))])


def test_of_several_queues_nothing_is_locked_that_is_not_taken(postgres, other) -> None:
    postgres.apply([register("w"), register("v")])
    for queue in "ab":
        enqueue_in(postgres, queue, *(f"{queue}{n}" for n in range(3)))
    one = Halted(postgres, [reserve_from("a", "b", limit=3)], before=Commit())

    (reserved,) = other.apply([reserve_from("b", "a", limit=9, worker_id="v")])
    assert [task.id for task in reserved.tasks] == ["b0", "b1", "b2"]
    assert [task.id for task in one.go_on()[0].tasks] == ["a0", "a1", "a2"]


def test_of_several_queues_the_best_are_taken_that_nobody_has(postgres, other) -> None:
    postgres.apply([register("w"), register("v")])
    enqueue_in(postgres, "a", "a1", "a2", priority=1)
    enqueue_in(postgres, "b", "b0", "b1")
    enqueue_in(postgres, "b", "b9", priority=9)
    one = Halted(postgres, [reserve_from("a", "b", limit=2)], before=Commit())

    (reserved,) = other.apply([reserve_from("a", "b", limit=2, worker_id="v")])
    assert [task.id for task in reserved.tasks] == ["a2", "b0"]
    assert [task.id for task in one.go_on()[0].tasks] == ["b9", "a1"]


def test_more_than_a_reserve_looks_at_may_be_locked_by_others(postgres, other) -> None:
    many = sql.PASSED_OVER + 5
    postgres.apply([register("w"), register("v")])
    enqueue_in(postgres, "a", *(f"a{n:03}" for n in range(many + 3)), priority=1)
    enqueue_in(postgres, "b", "b0")
    one = Halted(postgres, [reserve_from("a", "b", limit=many)], before=Commit())

    (reserved,) = other.apply([reserve_from("a", "b", limit=3, worker_id="v")])
    (rest,) = other.apply([reserve_from("a", "b", limit=3, worker_id="v")])
    ids = [task.id for task in (*reserved.tasks, *rest.tasks)]
    assert sorted(ids) == sorted(["b0", *(f"a{n:03}" for n in range(many, many + 3))])
    assert len(one.go_on()[0].tasks) == many
