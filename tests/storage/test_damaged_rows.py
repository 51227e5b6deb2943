"""A row that a disk has damaged is put aside: the others of its queue do not wait for it."""

import pytest

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import Enqueue, Fetch, Reserve, Reserved, RetryPolicy, TaskPolicy
from sitq.storage.policy_column import dump_policy, load_policy
from tests.storage.runs import new_task, register

DAMAGED = [
    "",
    "garbage",
    "{}",
    "7",
    "[]",
    "[1.0, 1, 1.0, 2.0, 300.0]",
    '["soon", 1, 1.0, 2.0, 300.0, 0.1]',
    "[null, 1.5, 1.0, 2.0, 300.0, 0.1]",
    "[null, 1, null, 2.0, 300.0, 0.1]",
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_policy_that_cannot_be_read_parks_its_task_and_the_next_is_given(sql, text) -> None:
    sql.apply([register(), Enqueue((new_task("bad"), new_task("good")))])
    sql.db.execute("UPDATE sitq_tasks SET policy = ? WHERE id = 'bad'", (text,))

    (reserved,) = sql.apply([Reserve("w", ("default",), 2)])

    assert [task.id for task in reserved.tasks] == ["good"]
    (fetched,) = sql.apply([Fetch(("bad",))])
    bad = fetched.rows["bad"]
    assert (bad.state, bad.attempt) == (S.PARKED, 0)
    assert f"the options of this task are damaged (its policy is {text!r})" in bad.error


def test_one_that_is_found_alone_does_not_end_the_looking(sql) -> None:
    sql.apply(
        [register(), Enqueue((new_task("bad"), new_task("good"), new_task("later", delay_ms=9)))]
    )
    sql.db.execute("UPDATE sitq_tasks SET policy = 'garbage' WHERE id = 'bad'")

    assert sql.apply([Reserve("w", ("default",), 1)]) == (Reserved(()),)
    (reserved,) = sql.apply([Reserve("w", ("default",), 1)])
    assert [task.id for task in reserved.tasks] == ["good"]


def test_what_was_written_is_read_again() -> None:
    for policy in (
        TaskPolicy(),
        TaskPolicy(timeout=3),
        TaskPolicy(retry=RetryPolicy(attempts=7, jitter=0), max_crashes=9),
    ):
        assert load_policy(dump_policy(policy), policy.max_crashes) == policy


@pytest.mark.parametrize("beside", [(), (Enqueue((new_task("more"),)),)], ids=["alone", "beside"])
def test_on_postgres_it_is_put_aside_too_whatever_leaves_with_the_reserve(postgres, beside) -> None:
    postgres.apply([register(), Enqueue((new_task("bad"), new_task("good")))])
    postgres.ask("UPDATE sitq.tasks SET policy = 'garbage' WHERE id = 'bad'")

    *_, reserved = postgres.apply([*beside, Reserve("w", ("default",), 2)])

    assert [task.id for task in reserved.tasks] == ["good"]
    (fetched,) = postgres.apply([Fetch(("bad",))])
    assert (fetched.rows["bad"].state, fetched.rows["bad"].attempt) == (S.PARKED, 0)
