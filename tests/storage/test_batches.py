"""A batch is one transaction: how it begins, how it ends, and what it costs."""

import pytest

from sitq.protocol.ops import (
    Cancel,
    Completed,
    Count,
    Enqueue,
    Fetch,
    Prune,
    Register,
    Renew,
    Rescue,
    Reserve,
    Retire,
    Settle,
    TaskKey,
    TaskPolicy,
    Unpark,
    Watch,
)
from sitq.storage.program import Change, Commit, Done, Query, resume
from sitq.storage.sqlite import apply_batch
from sitq.storage.sqlite_statements import PROMOTE_LIMIT
from tests.storage.runs import NOW, later, new_task, register

WRITES = [
    Enqueue((new_task(),)),
    Reserve("w", ("default",), 1),
    Settle(TaskKey(1, 1), "t", "w", Completed(b"")),
    Cancel("t"),
    Register("w", "host", 1, ("default",), 1, 30.0),
    Renew("w", 30.0),
    Retire("w"),
    Rescue(),
    Unpark(("x",)),
    Prune(0.0, 1),
]
READS = [Fetch(("t",)), Watch("w"), Count()]


def steps(sql, ops) -> list:
    """Run a batch; return its steps."""
    program = apply_batch(ops, NOW)
    seen = []
    step = resume(program, None)
    while not isinstance(step, Done):
        seen.append(step)
        match step:
            case Query(statement, params):
                rows = sql.db.execute(statement, params).fetchall()
            case Change(statement, many):
                rows = [(sql.db.executemany(statement, many).rowcount,)]
            case Commit():
                sql.db.execute("COMMIT")
                rows = []
        step = resume(program, rows)
    return seen


def name(op) -> str:
    return type(op).__name__


@pytest.mark.parametrize("op", WRITES, ids=name)
def test_a_batch_that_writes_takes_the_write_lock_first_and_commits_last(sql, op) -> None:
    begin, *_, commit = seen = steps(sql, [*READS, op])

    assert begin == Query("BEGIN IMMEDIATE")
    assert commit == Commit()
    assert seen.count(Commit()) == 1


@pytest.mark.parametrize("op", READS, ids=name)
def test_a_batch_that_only_reads_leaves_the_write_lock_alone(sql, op) -> None:
    begin, *_, commit = steps(sql, [op])

    assert begin == Query("BEGIN")
    assert commit == Commit()


def test_a_hundred_enqueues_cost_a_few_statements_more_than_one(sql) -> None:
    def enqueue(of) -> int:
        return len(steps(sql, [Enqueue((new_task(str(n)),), may_exist=True) for n in of]))

    assert enqueue(range(1)) + 3 == enqueue(range(1, 101))  # 64, 2 times 16, and 4


def test_tasks_that_differ_are_stored_in_the_order_in_which_they_came(store) -> None:
    tasks = tuple(
        new_task(f"{n:03}", queue=f"q{n // 30 % 2}", policy=TaskPolicy(timeout=n // 50 + 1))
        for n in range(150)
    )
    store.apply([register(), Enqueue(tasks[:1]), Enqueue(tasks[1:])])

    for queue in ("q0", "q1"):
        (reserved,) = store.apply([Reserve("w", (queue,), 150)])
        given = [(task.id, task.payload, task.policy) for task in reserved.tasks]
        assert given == [(t.id, t.payload, t.policy) for t in tasks if t.queue == queue]


def test_settles_cost_as_many_statements_however_many_there_are(sql) -> None:
    sql.apply([Enqueue(tuple(new_task(str(n)) for n in range(101)))])
    sql.apply([register()])
    (reserved,) = sql.apply([Reserve("w", ("default",), 101)])
    settles = [Settle(task.key, task.id, "w", Completed(b"")) for task in reserved.tasks]
    assert len(steps(sql, settles[:1])) == len(steps(sql, settles[1:]))


def test_of_more_than_one_reserve_promotes_those_that_waited_longest_come_first(store) -> None:
    late = tuple(new_task(f"late{n}", delay_ms=2000) for n in range(PROMOTE_LIMIT))
    early = tuple(new_task(f"early{n}", delay_ms=1000) for n in range(5))
    store.apply([register(), Enqueue(late + early)])
    store.apply([Reserve("w", ("default",), 1)], later(2))

    (fetched,) = store.apply([Fetch(tuple(task.id for task in early))])
    assert "scheduled" not in {row.state for row in fetched.rows.values()}
