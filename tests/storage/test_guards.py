"""Every statement that changes a task is guarded by itself, whichever program runs it.

The row is made so that all but the guard invites the statement: the worker, the token and the
stamp are right, the time has come, the task was asked to stop wherever that is a condition.
"""

import pytest

from sitq.protocol.lifecycle import FINAL, Move, TaskState, advance
from sitq.storage import sqlite_statements

HELD = (1, 7, "w")  # seq, token, worker

# statement: (the move it makes, its parameters, whether the task was asked to stop)
STATEMENTS = {
    "PROMOTE": (Move.PROMOTE, ("default", 99), 0),
    "TAKE": (Move.RESERVE, ("w", 99, 1, 1), 0),
    "CANCEL": (Move.CANCEL, (99, 1), 0),
    "COMPLETE": (Move.COMPLETE, (99, b"value", 1, *HELD), 0),
    "FAIL": (Move.FAIL, (99, "boom", "ValueError", None, None, *HELD), 0),
    "ABORT": (Move.ABORT, (99, *HELD), 0),
    "ABORT_IF_ASKED": (Move.ABORT, (99, *HELD), 1),
    "RETRY": (Move.RETRY, (99, "boom", "ValueError", None, *HELD), 0),
    "RELEASE": (Move.RELEASE, HELD, 0),
    "PARK": (Move.PARK, ("x", "cannot read x", *HELD), 0),
    "UNPARK": (Move.UNPARK, ('["x"]',), 0),
    "RESCUE_ABORT": (Move.ABORT, (99, "w"), 1),
    "RESCUE_FAIL": (Move.FAIL, (99, 4711, "host", "w"), 0),
    "RESCUE": (Move.RESCUE, ("w",), 0),
    "RETIRE_ABORT": (Move.ABORT, (99, "w"), 1),
    "RETIRE_RELEASE": (Move.RELEASE, ("w",), 0),
}
BY_THE_HOLDER = [name for name, (_, params, _) in STATEMENTS.items() if params[-3:] == HELD]


def put(sql, state: TaskState, cancel_asked: int = 0) -> None:
    """Put the one task of the store into *state*, with all that any statement looks for."""
    sql.db.execute("DELETE FROM sitq_tasks")
    sql.db.execute(
        """
        INSERT INTO sitq_tasks (seq, id, queue, name, state, priority, run_at_ms, enqueued_ms,
            payload, max_crashes, token, attempt, crashes, worker_id, cancel_asked, parked_stamp,
            finished_ms)
        VALUES (1, 't', 'default', 'f', ?, 0, 0, 0, x'00', 3, 7, 1, 2, 'w', ?, 'x', 0)
        """,
        (state, cancel_asked),
    )


def row(sql) -> dict:
    found = sql.db.execute("SELECT * FROM sitq_tasks")
    return dict(zip([column for column, *_ in found.description], found.fetchone(), strict=True))


def run(sql, name, params) -> int:
    return sql.db.execute(getattr(sqlite_statements, name), params).rowcount


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_moves_a_task_as_the_table_says_or_not_at_all(sql, name, state) -> None:
    move, params, cancel_asked = STATEMENTS[name]
    put(sql, state, cancel_asked)
    before = row(sql)
    to = advance(state, move)

    assert run(sql, name, params) == (to is not None)
    if to is None:
        assert row(sql) == before
    else:
        assert row(sql)["state"] == to


@pytest.mark.parametrize("state", TaskState)
def test_a_reserve_chooses_a_queued_task_and_no_other(sql, state) -> None:
    put(sql, state)

    found = sql.db.execute(sqlite_statements.next_statement(1), ("default", 5)).fetchall()
    assert [seq for seq, *_ in found] == [1] * (advance(state, Move.RESERVE) is not None)


@pytest.mark.parametrize("state", TaskState)
def test_only_a_running_task_is_asked_to_stop(sql, state) -> None:
    put(sql, state)

    assert run(sql, "ASK_TO_STOP", (1,)) == (state is TaskState.RUNNING)
    assert row(sql)["state"] == state


@pytest.mark.parametrize("state", TaskState)
def test_only_what_has_ended_is_forgotten(sql, state) -> None:
    put(sql, state)
    sql.db.execute(
        "INSERT INTO sitq_tasks SELECT * FROM (SELECT 2 AS seq, 'u' AS id, * FROM ("
        "SELECT queue, name, state, priority, run_at_ms, enqueued_ms, payload, policy, max_crashes,"
        " token, attempt, crashes, worker_id, cancel_asked, parked_stamp, started_ms, finished_ms,"
        " result, error, error_type, traceback, reason FROM sitq_tasks))"
    )

    assert run(sql, "PRUNE", (99, 10)) == (state in FINAL)


@pytest.mark.parametrize("held", [(2, 7, "w"), (1, 6, "w"), (1, 8, "w"), (1, 7, "w2")])
@pytest.mark.parametrize("name", BY_THE_HOLDER)
def test_a_verdict_needs_the_task_the_token_and_the_worker(sql, name, held) -> None:
    _, params, cancel_asked = STATEMENTS[name]
    put(sql, TaskState.RUNNING, cancel_asked)
    before = row(sql)

    first = held[:1] if name == "COMPLETE" else ()  # of a run
    assert run(sql, name, (*params[: -3 - len(first)], *first, *held)) == 0
    assert row(sql) == before


@pytest.mark.parametrize("name", ["RETRY", "RELEASE", "PARK"])
def test_what_was_asked_to_stop_does_not_go_back(sql, name) -> None:
    put(sql, TaskState.RUNNING, cancel_asked=1)

    assert run(sql, name, STATEMENTS[name][1]) == 0


@pytest.mark.parametrize("name", ["ABORT_IF_ASKED", "RESCUE_ABORT", "RETIRE_ABORT"])
def test_what_was_not_asked_to_stop_is_not_aborted_in_passing(sql, name) -> None:
    put(sql, TaskState.RUNNING, cancel_asked=0)

    assert run(sql, name, STATEMENTS[name][1]) == 0


@pytest.mark.parametrize("name", ["RESCUE_ABORT", "RESCUE_FAIL", "RESCUE"])
def test_every_way_of_a_rescue_gives_a_new_token(sql, name) -> None:
    _, params, cancel_asked = STATEMENTS[name]
    put(sql, TaskState.RUNNING, cancel_asked)

    run(sql, name, params)
    assert row(sql)["token"] == 8
