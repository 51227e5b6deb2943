"""Rows that lie side by side and are alike go with one statement, and no other row does."""

import pytest
from hypothesis import given, strategies as st

from sitq.protocol.ops import Completed, Enqueue, Fetch, Reserve, Settle, Settled, TaskKey
from sitq.storage.program import Change
from sitq.storage.sqlite import apply_batch
from sitq.storage.sqlite_runs import runs
from sitq.storage.sqlite_statements import COMPLETE, TAKE
from tests.storage.runs import NOW, new_task, register


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([(5, "a")], [(5, 5, "a")]),
        ([(5, "a"), (6, "a"), (7, "a")], [(5, 7, "a")]),
        ([(5, "a"), (6, "b"), (7, "b")], [(5, 5, "a"), (6, 7, "b")]),
        ([(5, "a"), (7, "a")], [(5, 5, "a"), (7, 7, "a")]),
        ([(7, "a"), (6, "a"), (5, "a")], [(7, 7, "a"), (6, 6, "a"), (5, 5, "a")]),
        ([(5, "a"), (5, "a")], [(5, 5, "a"), (5, 5, "a")]),
    ],
)
def test_a_run_has_no_gap_and_one_kind(rows, found) -> None:
    assert list(runs(rows)) == found


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from("ab")), min_size=1))
def test_runs_hold_what_was_given_in_its_order_and_nothing_else(rows) -> None:
    held = [(seq, what) for first, last, what in runs(rows) for seq in range(first, last + 1)]
    assert held == rows


def changes(sql, ops) -> dict[str, int]:
    """Run a batch; return how many rows each of its statements was run for."""
    seen: dict[str, int] = {}
    apply, ran = apply_batch(ops, NOW), sql.db.execute
    step = next(apply)
    while True:
        if isinstance(step, Change):
            seen[step.sql] = len(step.rows)
            rows = [(sql.db.executemany(step.sql, step.rows).rowcount,)]
        else:
            rows = ran(*step).fetchall() if step else ran("COMMIT").fetchall()
        try:
            step = apply.send(rows)
        except StopIteration:
            return seen


def given_out(sql, *ids: str) -> tuple[TaskKey, ...]:
    sql.apply([register(), Enqueue(tuple(new_task(id_) for id_ in ids))])
    (reserved,) = sql.apply([Reserve("w", ("default",), len(ids))])
    return tuple(task.key for task in reserved.tasks)


def test_tasks_that_were_enqueued_together_are_taken_by_one_change(sql) -> None:
    sql.apply([register(), Enqueue(tuple(new_task(str(n)) for n in range(50)))])

    assert changes(sql, [Reserve("w", ("default",), 50)])[TAKE] == 1


def test_tasks_that_end_alike_are_completed_by_one_change_in_whatever_order(sql) -> None:
    keys = given_out(sql, "a", "b", "c", "d")
    ends = [Settle(key, "", "w", Completed(b"none")) for key in reversed(keys)]

    assert changes(sql, ends)[COMPLETE] == 1
    (found,) = sql.apply([Fetch(("a", "b", "c", "d"))])
    assert {(row.state, row.value) for row in found.rows.values()} == {("success", b"none")}


def test_what_lies_between_and_belongs_to_another_is_left_alone_and_told(sql) -> None:
    a, b, c = given_out(sql, "a", "b", "c")
    ends = [Settle(key, "", "w", Completed(b"none")) for key in (a, b._replace(token=9), c)]

    assert sql.apply(ends) == (Settled(True), Settled(False), Settled(True))
    (found,) = sql.apply([Fetch(("a", "b", "c"))])
    assert {id_: row.state for id_, row in found.rows.items()} == {
        "a": "success",
        "b": "running",
        "c": "success",
    }


def test_each_gets_its_own_result(sql) -> None:
    keys = given_out(sql, "a", "b", "c")
    values = [b"1", b"2", b"2"]
    sql.apply([Settle(key, "", "w", Completed(v)) for key, v in zip(keys, values, strict=True)])

    (found,) = sql.apply([Fetch(("a", "b", "c"))])
    assert [found.rows[id_].value for id_ in ("a", "b", "c")] == values


def test_a_task_that_has_moved_on_within_a_run_is_not_taken_along(sql) -> None:
    """The same statement is run for all three; the guard of its state holds for each."""
    keys = given_out(sql, "a", "b", "c")
    sql.db.execute("UPDATE sitq_tasks SET state = 'queued' WHERE id = 'b'")

    ends = [Settle(key, "", "w", Completed(b"none")) for key in keys]
    assert changes(sql, ends)[COMPLETE] == 1
    (found,) = sql.apply([Fetch(("a", "b", "c"))])
    assert [found.rows[id_].state for id_ in ("a", "b", "c")] == ["success", "queued", "success"]
