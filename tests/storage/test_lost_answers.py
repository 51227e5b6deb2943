"""Any op may be asked again after its answer was lost, in whatever company it was asked.

What the second asking finds is what the first has left, and it changes nothing. A reserve is
asked again in other words, with what its worker knows to hold: see the end. Pruning, asked again,
may find more to forget.
"""

import pytest
from hypothesis import given, settings, strategies as st

from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Completed,
    Conflict,
    Count,
    Enqueue,
    Enqueued,
    Failed,
    Failure,
    Fetch,
    Parked,
    Register,
    Released,
    Renew,
    Rescue,
    Rescued,
    Reserve,
    Retire,
    RetryIn,
    Settle,
    Unpark,
    Unregistered,
    Watch,
)
from tests.storage.runs import NOW, InMemory, Sql, later, new_task, register

IDS = [f"t{n}" for n in range(10)]
WORKERS = ["w1", "w2"]
VERDICTS = [
    Completed(b"value"),
    Failed(Failure("boom", "ValueError")),
    RetryIn(0.0, Failure("boom", "ValueError")),
    RetryIn(60.0, Failure("boom", "ValueError")),
    Released(),
    Parked("x", "cannot read x"),
    Aborted(),
]
OPS = st.one_of(
    st.builds(
        lambda ids, payload, delay_ms: Enqueue(
            tuple(new_task(id_, payload, delay_ms=delay_ms) for id_ in ids), may_exist=True
        ),
        st.lists(st.sampled_from([*IDS, "new", "newer"]), min_size=1, max_size=3, unique=True),
        st.sampled_from([b"p", b"p", b"other"]),
        st.sampled_from([0, 0, 500]),
    ),
    st.builds(Cancel, st.sampled_from(IDS)),
    st.builds(register, st.sampled_from([*WORKERS, "w3"])),
    st.builds(Renew, st.sampled_from(WORKERS), st.just(9.0)),
    st.builds(Retire, st.sampled_from(WORKERS)),
    st.builds(Rescue, st.sampled_from([(), ("w1",), ("w1", "w2")])),
    st.builds(Unpark, st.sampled_from([("x",), ("y",)])),
)


def busy(store, asked_to_stop):
    """Give each of two workers some of the tasks; return what they hold, with its holder."""
    store.apply([register("w1"), register("w2"), Enqueue(tuple(map(new_task, IDS)))])
    held = []
    for worker_id in WORKERS:
        (reserved,) = store.apply([Reserve(worker_id, ("default",), 3)])
        held += [(task, worker_id) for task in reserved.tasks]
    store.apply([Cancel(id_) for id_ in asked_to_stop])
    return held


def stands(store, now):
    watches = [Watch(worker_id) for worker_id in (*WORKERS, "w3")]
    return store.apply([Fetch((*IDS, "new", "newer")), Count(), *watches], now)


@settings(max_examples=80, deadline=None)
@given(
    others=st.lists(OPS, max_size=5),
    settled=st.lists(st.sampled_from(VERDICTS), max_size=6),
    asked_to_stop=st.lists(st.sampled_from(IDS[:7]), max_size=3, unique=True),
    passed=st.sampled_from([0.0, 20.0, 40.0]),
    data=st.data(),
)
def test_a_batch_that_is_asked_again_changes_nothing(
    others, settled, asked_to_stop, passed, data
) -> None:
    sql, model = Sql(), InMemory()
    try:
        held = busy(sql, asked_to_stop)
        assert busy(model, asked_to_stop) == held
        ops = data.draw(
            st.permutations(
                [
                    *others,
                    *(
                        Settle(task.key, task.id, worker_id, verdict)
                        for (task, worker_id), verdict in zip(held, settled, strict=False)
                    ),
                ]
            )
        )
        now = later(passed)

        first, left = sql.apply(ops, now), stands(sql, now)
        assert (model.apply(ops, now), stands(model, now)) == (first, left)
        again = sql.apply(ops, now)
        assert stands(sql, now) == left
        assert (model.apply(ops, now), stands(model, now)) == (again, left)
        for op, answer, second in zip(ops, first, again, strict=True):
            if isinstance(op, Settle | Register):
                assert second == answer
            elif isinstance(answer, Enqueued | Conflict):
                assert type(second) is type(answer)
    finally:
        sql.db.close()


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: type(verdict).__name__)
@pytest.mark.parametrize("asked_to_stop", [[], ["t0"]], ids=["", "asked to stop"])
def test_a_verdict_that_comes_after_a_rescue_is_refused(store, verdict, asked_to_stop) -> None:
    (task, _), *_ = busy(store, asked_to_stop)
    store.apply([Rescue(("w1",))])
    left = stands(store, NOW)

    (answer,) = store.apply([Settle(task.key, task.id, "w1", verdict)])
    assert stands(store, NOW) == left
    assert not answer.applied


def test_a_result_that_comes_after_its_worker_has_retired_is_refused(store) -> None:
    """It is not stored, and the task will run again: nobody must be told that it was applied."""
    (task, _), *_ = busy(store, [])
    store.apply([Retire("w1")])

    (answer,) = store.apply([Settle(task.key, task.id, "w1", Completed(b"value"))])
    assert store.apply([Fetch((task.id,))])[0].rows[task.id].value is None
    assert not answer.applied


def test_what_the_lost_answer_of_a_reserve_named_comes_back_with_its_worker(store) -> None:
    store.apply([register("w1"), Enqueue(tuple(map(new_task, IDS)))])
    (lost,) = store.apply([Reserve("w1", ("default",), 4)])
    (heard,) = store.apply([Reserve("w1", ("default",), 4)])
    assert not {task.id for task in lost.tasks} & {task.id for task in heard.tasks}

    store.apply([Retire("w1"), register("w2")])
    (all_,) = store.apply([Reserve("w2", ("default",), 20)])
    assert {task.id for task in all_.tasks} == set(IDS)
    assert {task.attempt for task in all_.tasks} == {1}


def test_a_register_that_is_asked_again_prolongs_the_lease_and_keeps_the_tasks(store) -> None:
    store.apply([register("w1", 10.0), Enqueue((new_task(),))])
    store.apply([Reserve("w1", ("default",), 1)])
    store.apply([register("w1", 10.0)], later(8))

    assert store.apply([Rescue()], later(12))[0].workers == ()
    assert store.apply([Rescue()], later(18)) == (Rescued(("w1",), 1),)


# -- a reserve whose answer was lost -------------------------------------------------------


def test_a_reserve_that_is_asked_again_is_given_first_what_the_lost_answer_named(store) -> None:
    store.apply([register("w1"), register("w2"), Enqueue(tuple(map(new_task, IDS)))])
    (first,) = store.apply([Reserve("w1", ("default",), 2)])
    (lost,) = store.apply([Reserve("w1", ("default",), 3)])
    store.apply([Reserve("w2", ("default",), 1)])

    known = tuple(task.key.seq for task in first.tasks)
    (again,) = store.apply([Reserve("w1", ("default",), 4, known)])
    assert again.tasks[:3] == lost.tasks
    assert [task.id for task in again.tasks[3:]] == ["t6"]  # t5 is the other worker's
    (more,) = store.apply([Reserve("w1", ("default",), 9, (*known, *range(3, 8)))])
    assert [task.id for task in more.tasks] == ["t7", "t8", "t9"]


def test_no_more_is_given_than_there_are_slots_whatever_was_lost(store) -> None:
    store.apply([register("w"), Enqueue(tuple(map(new_task, IDS)))])
    (lost,) = store.apply([Reserve("w", ("default",), 3)])

    (again,) = store.apply([Reserve("w", ("default",), 2, ())])
    assert again.tasks == lost.tasks[:2]


def test_what_was_lost_comes_in_the_order_of_all_tasks(store) -> None:
    store.apply([register("w"), Enqueue((new_task("low"),))])
    store.apply([Reserve("w", ("default",), 1)])
    store.apply([Enqueue((new_task("high", priority=1),))])

    (again,) = store.apply([Reserve("w", ("default",), 2, ())])
    assert [task.id for task in again.tasks] == ["high", "low"]


def test_a_worker_whose_lease_has_ended_is_given_nothing_that_was_lost(store) -> None:
    store.apply([register("w"), Enqueue((new_task(),))])
    store.apply([Reserve("w", ("default",), 1)])
    store.apply([Rescue(("w",))])

    assert store.apply([Reserve("w", ("default",), 1, ())]) == (Unregistered(),)
