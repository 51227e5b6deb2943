"""What each op does, on the SQL and on the model alike."""

import pytest

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Conflict,
    Count,
    Counted,
    Enqueue,
    Enqueued,
    Failed,
    Failure,
    Fetch,
    Fetched,
    Parked,
    Prune,
    Pruned,
    Registered,
    Released,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reserve,
    Reserved,
    Retire,
    Retired,
    RetryIn,
    RetryPolicy,
    Settle,
    Settled,
    TaskKey,
    TaskPolicy,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
    Watched,
)
from tests.storage.runs import NOW, later, new_task, register

BOOM = Failure("boom", "ValueError", "trace", "why")


def one(store, op, now=NOW):
    (outcome,) = store.apply([op], now)
    return outcome


def row(store, id_="t"):
    return one(store, Fetch((id_,))).rows[id_]


def take(store, worker_id="w", limit=1, queues=("default",), now=NOW):
    return one(store, Reserve(worker_id, queues, limit), now).tasks


def running(store, id_="t", **options):
    """A task in the hands of `w`."""
    store.apply([register(), Enqueue((new_task(id_, **options),))])
    (task,) = take(store)
    return task


def settle(task, verdict, worker_id="w") -> Settle:
    return Settle(task.key, task.id, worker_id, verdict)


# -- enqueue ---------------------------------------------------------------------------


def test_what_is_enqueued_can_be_fetched_and_nothing_else(store) -> None:
    assert one(store, Enqueue((new_task("a"), new_task("b")))) == Enqueued()

    fetched = one(store, Fetch(("a", "x")))
    assert list(fetched.rows) == ["a"]
    assert (fetched.rows["a"].state, fetched.rows["a"].enqueued_ms) == (S.QUEUED, NOW.wall_ms)
    assert one(store, Fetch(())) == Fetched({})


def test_an_id_that_is_asked_again_with_the_same_payload_changes_nothing(store) -> None:
    again = Enqueue((new_task("a"), new_task("b"), new_task("b")), may_exist=True)
    one(store, Enqueue((new_task("a"),), may_exist=True))

    assert store.apply([again, again]) == (Enqueued(), Enqueued())
    assert one(store, Count()) == Counted((("default", S.QUEUED, 2),))


def test_an_id_that_is_taken_by_another_payload_stores_nothing_of_its_op(store) -> None:
    one(store, Enqueue((new_task("b"),), may_exist=True))
    bad = Enqueue((new_task("a"), new_task("b", b"other"), new_task("c")), may_exist=True)
    good = Enqueue((new_task("d"),))

    assert store.apply([bad, good]) == (Conflict("b", S.QUEUED), Enqueued())
    assert one(store, Count()) == Counted((("default", S.QUEUED, 2),))


def test_two_payloads_under_one_id_in_one_batch_conflict(store) -> None:
    twice = Enqueue((new_task("a"), new_task("a", b"other")), may_exist=True)
    assert one(store, twice) == Conflict("a", S.QUEUED)

    first, second = (Enqueue((new_task("a", p),), may_exist=True) for p in (b"1", b"2"))
    assert store.apply([first, second]) == (Enqueued(), Conflict("a", S.QUEUED))


def test_a_conflict_tells_how_the_stored_one_stands(store) -> None:
    task = running(store)
    one(store, settle(task, Completed(b"v")))

    clash = Enqueue((new_task("t", b"other"),), may_exist=True)
    assert one(store, clash) == Conflict("t", S.SUCCESS)


def test_a_payload_comes_out_as_it_went_in(store) -> None:
    payloads = [b"", b"\0", bytes(range(256)), b"x" * 1_000_000]
    tasks = tuple(new_task(str(i), payload) for i, payload in enumerate(payloads))
    store.apply([register(), Enqueue(tasks)])

    assert [task.payload for task in take(store, limit=9)] == payloads


# -- reserve ---------------------------------------------------------------------------


def test_tasks_are_reserved_by_priority_and_then_first_come_first_served(store) -> None:
    new = [("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)]
    for id_, priority in new:
        one(store, Enqueue((new_task(id_, priority=priority),)))
    one(store, register())

    assert [task.id for task in take(store, limit=2)] == ["b", "d"]
    assert [task.id for task in take(store, limit=9)] == ["a", "e", "c"]


def test_a_worker_is_given_tasks_of_its_queues_only_the_best_of_all_first(store) -> None:
    for id_, queue, priority in [
        ("a", "one", 0),
        ("b", "two", 1),
        ("c", "three", 9),
        ("d", "two", 0),
        ("e", "one", 0),
    ]:
        one(store, Enqueue((new_task(id_, queue=queue, priority=priority),)))
    one(store, register())

    assert [t.id for t in take(store, limit=3, queues=("one", "two"))] == ["b", "a", "d"]
    assert [t.id for t in take(store, limit=3, queues=("two", "one"))] == ["e"]


def test_a_worker_that_is_not_registered_is_given_nothing(store) -> None:
    one(store, Enqueue((new_task(),)))

    assert one(store, Reserve("w", ("default",), 1)) == Unregistered()
    assert one(store, Reserve("w", ("default", "other"), 1)) == Unregistered()
    assert row(store).state is S.QUEUED


def test_every_reserve_gives_a_new_token_and_counts_an_attempt(store) -> None:
    task = running(store)
    assert (task.key, task.attempt) == (TaskKey(1, 1), 1)

    one(store, settle(task, RetryIn(0.0, BOOM)))
    (again,) = take(store)
    assert (again.key, again.attempt) == (TaskKey(1, 2), 2)


def test_a_delay_counts_from_the_clock_of_the_store(store) -> None:
    store.apply([register(), Enqueue((new_task(delay_ms=1500),))])
    assert row(store).state is S.SCHEDULED

    assert one(store, Reserve("w", ("default",), 1)) == Reserved((), 1.5)
    assert one(store, Reserve("w", ("default",), 1), later(1.499)) == Reserved((), 0.001)
    assert [task.id for task in take(store, now=later(1.5))] == ["t"]


def test_a_task_never_starts_before_its_time_and_a_past_one_is_due_at_once(store) -> None:
    past = new_task("past", run_at_ms=NOW.wall_ms)
    ahead = new_task("ahead", run_at_ms=NOW.wall_ms + 1)
    store.apply([register(), Enqueue((past, ahead))])

    assert [task.id for task in take(store, limit=2)] == ["past"]
    assert [task.id for task in take(store, limit=2, now=later(0.001))] == ["ahead"]


def test_the_next_due_time_is_that_of_the_worker_s_own_queues(store) -> None:
    store.apply(
        [
            register(),
            Enqueue((new_task("a", queue="one", delay_ms=9000),)),
            Enqueue((new_task("b", queue="two", delay_ms=2000),)),
        ]
    )

    assert one(store, Reserve("w", ("one",), 1)) == Reserved((), 9.0)
    assert one(store, Reserve("w", ("one", "two"), 1)) == Reserved((), 2.0)
    assert one(store, Reserve("w", ("three",), 1)) == Reserved((), None)


def test_many_tasks_that_became_due_at_once_are_all_found(store) -> None:
    tasks = tuple(new_task(str(n), delay_ms=n) for n in range(1, 1501))
    store.apply([register(), Enqueue(tasks)])

    found = take(store, limit=1000, now=later(60)) + take(store, limit=1000, now=later(60))
    assert len({task.id for task in found}) == 1500


def test_a_policy_comes_out_as_it_went_in(store) -> None:
    policies = [
        TaskPolicy(),
        TaskPolicy(timeout=1.5),
        TaskPolicy(max_crashes=9),
        TaskPolicy(
            timeout=2.0,
            retry=RetryPolicy(attempts=7, delay=0.5, factor=3.0, max_delay=9.0, jitter=0.25),
            max_crashes=1,
        ),
    ]
    tasks = tuple(new_task(str(i), policy=policy) for i, policy in enumerate(policies))
    store.apply([register(), Enqueue(tasks)])

    assert [task.policy for task in take(store, limit=9)] == policies


# -- settle ----------------------------------------------------------------------------


def test_a_completed_task_holds_its_value_and_no_error_of_an_earlier_attempt(store) -> None:
    task = running(store)
    one(store, settle(task, RetryIn(0.0, BOOM)))
    assert row(store).error == "boom"
    (again,) = take(store)

    assert one(store, settle(again, Completed(b"v")), later(5)) == Settled(True)
    done = row(store)
    assert (done.state, done.value, done.error, done.error_type) == (S.SUCCESS, b"v", None, None)
    assert (done.attempt, done.finished_ms) == (2, NOW.wall_ms + 5000)


def test_a_failed_task_holds_its_error(store) -> None:
    one(store, settle(running(store), Failed(BOOM)))

    failed = row(store)
    assert failed.state is S.FAILED
    assert (failed.error, failed.error_type) == ("boom", "ValueError")
    assert (failed.traceback, failed.reason) == ("trace", "why")


def test_a_retry_waits_for_its_delay(store) -> None:
    one(store, settle(running(store), RetryIn(10.0, BOOM)))

    assert row(store).state is S.SCHEDULED
    assert take(store, now=later(9.999)) == ()
    assert [task.attempt for task in take(store, now=later(10))] == [2]


def test_a_release_and_a_park_cost_no_attempt(store) -> None:
    one(store, settle(running(store), Released()))
    assert (row(store).state, row(store).attempt, row(store).started_ms) == (S.QUEUED, 0, None)
    (again,) = take(store)
    assert again.attempt == 1

    one(store, settle(again, Parked("x", "cannot read x")))
    parked = row(store)
    assert (parked.state, parked.attempt, parked.error) == (S.PARKED, 0, "cannot read x")
    assert take(store) == ()


def test_a_parked_task_comes_back_for_whoever_reads_its_stamp(store) -> None:
    one(store, settle(running(store), Parked("x", "cannot read x")))

    assert one(store, Unpark(("y",))) == Unparked(0)
    assert one(store, Unpark(("y", "x"))) == Unparked(1)
    assert (row(store).state, row(store).error) == (S.QUEUED, None)
    assert one(store, Unpark(("x",))) == Unparked(0)


def test_a_settle_that_is_asked_again_is_told_what_the_first_was_told(store) -> None:
    for n, verdict in enumerate([Completed(b"v"), Failed(BOOM), RetryIn(60.0, BOOM), Aborted()]):
        task = running(store, f"t{n}")
        assert one(store, settle(task, verdict)) == Settled(True)
        before = row(store, f"t{n}")
        assert one(store, settle(task, verdict), later(9)) == Settled(True)
        assert row(store, f"t{n}") == before


def test_a_late_worker_is_told_so_and_changes_nothing(store) -> None:
    task = running(store)
    store.apply([Rescue(("w",)), register("w2")])
    (again,) = take(store, "w2")
    before = row(store)

    for verdict in (Completed(b"late"), Failed(BOOM), RetryIn(1.0, BOOM), Released(), Aborted()):
        assert one(store, settle(task, verdict)) == Settled(False)
    assert row(store) == before
    assert one(store, settle(again, Completed(b"v"), "w2")) == Settled(True)
    assert one(store, settle(task, Completed(b"late"))) == Settled(False)
    assert row(store).value == b"v"


def test_another_worker_cannot_settle_an_attempt_that_is_not_its_own(store) -> None:
    task = running(store)

    assert one(store, settle(task, Completed(b"v"), "w2")) == Settled(False)
    assert row(store).state is S.RUNNING


def test_a_settle_of_a_task_that_is_gone_is_refused(store) -> None:
    gone = Settle(TaskKey(77, 1), "x", "w", Completed(b""))
    assert one(store, gone) == Settled(False)


def test_many_settles_in_one_batch_are_told_apart(store) -> None:
    store.apply([register(), Enqueue(tuple(new_task(str(n)) for n in range(6)))])
    tasks = take(store, limit=6)
    verdicts = [Completed(b"a"), Failed(BOOM), RetryIn(1.0, BOOM), Released(), Parked("x", "t")]
    ops = [settle(task, verdict) for task, verdict in zip(tasks, verdicts, strict=False)]
    stale = Settle(TaskKey(tasks[5].key.seq, 9), "5", "w", Completed(b""))

    assert store.apply([*ops, stale]) == (*[Settled(True)] * 5, Settled(False))
    states = [row(store, str(n)).state for n in range(6)]
    assert states == [S.SUCCESS, S.FAILED, S.SCHEDULED, S.QUEUED, S.PARKED, S.RUNNING]


# -- cancel ----------------------------------------------------------------------------


def test_what_waits_is_cancelled_at_once(store) -> None:
    store.apply([Enqueue((new_task("now"), new_task("later", delay_ms=9000)))])

    for id_, was in (("now", S.QUEUED), ("later", S.SCHEDULED)):
        assert one(store, Cancel(id_)) == Cancelled(was)
        assert (row(store, id_).state, row(store, id_).reason) == (S.CANCELLED, "user")
        assert one(store, Cancel(id_)) == Cancelled(S.CANCELLED)
    one(store, register())
    assert take(store, limit=9, now=later(99)) == ()
    assert one(store, Cancel("unknown")) == Cancelled(None)


def test_what_runs_is_asked_to_stop_and_its_holder_is_named(store) -> None:
    task = running(store)

    assert one(store, Cancel("t")) == Cancelled(S.RUNNING, "w", task.key)
    assert row(store).state is S.RUNNING
    assert one(store, Watch("w")).cancelled == (task.key,)
    assert one(store, settle(task, Aborted())) == Settled(True)
    assert (row(store).state, row(store).reason) == (S.CANCELLED, "user")
    assert one(store, Watch("w")).cancelled == ()


def test_a_task_that_completed_before_it_heard_of_the_cancel_has_succeeded(store) -> None:
    task = running(store)
    one(store, Cancel("t"))

    assert one(store, settle(task, Completed(b"v"))) == Settled(True)
    assert row(store).state is S.SUCCESS


@pytest.mark.parametrize("verdict", [RetryIn(1.0, BOOM), Released(), Parked("x", "text")])
def test_a_task_that_was_asked_to_stop_does_not_come_back(store, verdict) -> None:
    task = running(store)
    one(store, Cancel("t"))

    assert one(store, settle(task, verdict)) == Settled(True)
    assert (row(store).state, row(store).reason) == (S.CANCELLED, "user")


@pytest.mark.parametrize("end", [Rescue(("w",)), Retire("w")])
def test_a_task_that_was_asked_to_stop_does_not_outlive_its_worker(store, end) -> None:
    running(store)
    one(store, Cancel("t"))

    one(store, end)
    assert (row(store).state, row(store).reason) == (S.CANCELLED, "user")


# -- workers ---------------------------------------------------------------------------


def test_a_lease_can_be_renewed_while_its_row_is_there(store) -> None:
    assert one(store, Renew("w", 30.0)) == Unregistered()
    assert one(store, register()) == Registered()
    assert one(store, register()) == Registered()  # asked again
    assert one(store, Renew("w", 30.0), later(29)) == Renewed()
    assert one(store, Rescue(), later(58)) == Rescued((), 0)
    assert one(store, Rescue(), later(59)) == Rescued(("w",), 0)
    assert one(store, Renew("w", 30.0), later(59)) == Unregistered()


@pytest.mark.parametrize("store", ["sqlite", "model"], indirect=True)  # they are on its host
def test_a_lease_of_another_boot_is_void(store) -> None:
    one(store, register(lease_for=9999.0))

    assert one(store, Rescue(), later(1, epoch="another boot")) == Rescued(("w",), 0)


def test_a_rescue_takes_only_the_tasks_of_the_dead_and_charges_a_crash_not_an_attempt(
    store,
) -> None:
    store.apply([register("w"), register("w2"), Enqueue((new_task("a"), new_task("b")))])
    take(store, "w")
    take(store, "w2")

    assert one(store, Rescue(("w",))) == Rescued(("w",), 1)
    a, b = row(store, "a"), row(store, "b")
    assert (a.state, a.attempt, a.crashes, a.started_ms) == (S.QUEUED, 0, 1, None)
    assert (b.state, b.attempt, b.crashes) == (S.RUNNING, 1, 0)
    assert one(store, Rescue(("w",))) == Rescued((), 0)


def test_a_rescuer_never_touches_a_task_that_has_ended(store) -> None:
    task = running(store)
    one(store, settle(task, Completed(b"v")))
    before = row(store)

    assert one(store, Rescue(("w",))) == Rescued(("w",), 0)
    assert row(store) == before


@pytest.mark.parametrize(("max_crashes", "times"), [(1, "1 time"), (3, "3 times")])
def test_after_max_crashes_the_task_fails_and_says_how_often_its_worker_died(
    store, max_crashes, times
) -> None:
    one(store, Enqueue((new_task(policy=TaskPolicy(max_crashes=max_crashes)),)))
    for n in range(max_crashes):
        assert row(store).state is S.QUEUED
        one(store, register(f"w{n}"))
        take(store, f"w{n}")
        one(store, Rescue((f"w{n}",)))

    failed = row(store)
    assert (failed.state, failed.reason, failed.crashes) == (S.FAILED, "crash", max_crashes)
    assert failed.error_type == "WorkerDied"
    assert failed.error == (
        f"the worker died {times} while running this task (last: pid 7 on host)"
    )


def test_of_tasks_on_their_last_chance_a_worker_has_one_at_a_time(store) -> None:
    policy = TaskPolicy(max_crashes=2)
    store.apply([register("dead"), Enqueue(tuple(new_task(n, policy=policy) for n in "abc"))])
    take(store, "dead", limit=3)
    store.apply([Rescue(("dead",)), register("w"), register("v")])
    one(store, Enqueue((new_task("new"), new_task("other"))))
    both = ("default", "other")

    assert [task.id for task in take(store, limit=2, queues=both)] == ["a", "new"]
    assert [task.id for task in take(store, limit=9, queues=both)] == ["other"]
    assert [task.id for task in take(store, "v", limit=9)] == ["b"]
    assert take(store, "v", limit=9) == ()


def test_one_of_another_queue_keeps_nobody_waiting(store) -> None:
    policy = TaskPolicy(max_crashes=2)
    suspect = new_task("suspect", policy=policy, queue="elsewhere")
    store.apply([register("dead"), Enqueue((suspect,))])
    take(store, "dead", queues=("elsewhere",))
    store.apply([Rescue(("dead",)), register("w"), Enqueue((new_task("new"),))])

    assert [task.id for task in take(store, limit=9)] == ["new"]


def test_a_worker_that_retires_hands_back_what_it_holds_uncharged(store) -> None:
    running(store)

    assert one(store, Retire("w")) == Retired(1)
    assert (row(store).state, row(store).attempt, row(store).crashes) == (S.QUEUED, 0, 0)
    assert one(store, Renew("w", 1.0)) == Unregistered()
    assert one(store, Retire("w")) == Retired(0)


def test_a_worker_sees_its_peers_and_whether_one_has_let_its_lease_run_out(store) -> None:
    store.apply([register("b"), register("a", 10.0), register("w")])

    assert one(store, Watch("w"), later(9)) == Watched(("a", "b"), expired=False, cancelled=())
    assert one(store, Watch("w"), later(10)) == Watched(("a", "b"), expired=True, cancelled=())
    assert one(store, Watch("a"), later(10)) == Watched(("b", "w"), expired=False, cancelled=())


# -- upkeep ----------------------------------------------------------------------------


def test_pruning_forgets_the_oldest_of_what_has_ended_and_nothing_else(store) -> None:
    store.apply([register(), Enqueue(tuple(new_task(str(n)) for n in range(5)))])
    tasks = take(store, limit=4)
    for n, task in enumerate(tasks[:3]):
        one(store, settle(task, Completed(b"")), later(n))

    assert one(store, Prune(60.0, 10), later(60.9)) == Pruned(1)
    assert one(store, Prune(60.0, 1), later(99)) == Pruned(1)
    assert one(store, Prune(60.0, 10), later(99)) == Pruned(1)
    assert one(store, Prune(0.0, 10), later(99)) == Pruned(0)
    assert one(store, Count()) == Counted((("default", S.QUEUED, 1), ("default", S.RUNNING, 1)))


def test_a_number_is_never_given_again_so_a_token_names_one_attempt_for_ever(store) -> None:
    task = running(store)
    one(store, settle(task, Completed(b"")))

    assert one(store, Prune(0.0, 10)) == Pruned(0)  # the newest row keeps its number taken
    one(store, Enqueue((new_task("next"),)))
    assert one(store, Prune(0.0, 10)) == Pruned(1)
    assert [again.key for again in take(store)] == [TaskKey(task.key.seq + 1, 1)]


def test_counts_are_by_queue_and_state_in_order(store) -> None:
    running(store, "a")
    store.apply([Enqueue((new_task("b"), new_task("c", queue="mail", delay_ms=1)))])

    assert one(store, Count()) == Counted(
        (("default", S.QUEUED, 1), ("default", S.RUNNING, 1), ("mail", S.SCHEDULED, 1))
    )


def test_a_batch_answers_in_the_order_in_which_it_was_asked(store) -> None:
    ops = [Fetch(("t",)), Reserve("w", ("default",), 1), Enqueue((new_task(),)), register()]

    fetched, reserved, enqueued, registered = store.apply(ops)
    assert (enqueued, registered) == (Enqueued(), Registered())
    assert [task.id for task in reserved.tasks] == ["t"]
    assert fetched.rows["t"].state is S.RUNNING


def test_a_batch_that_only_reads_writes_nothing(sql) -> None:
    before = sql.db.total_changes

    sql.apply([Fetch(("t",)), Watch("w"), Count()])
    assert sql.db.total_changes == before
