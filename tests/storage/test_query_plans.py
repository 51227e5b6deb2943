"""Every statement of the hot path is served by the index that was made for it."""

import pytest

from sitq.protocol.ops import Enqueue
from sitq.storage import sqlite_statements as st
from sitq.storage.sqlite_inserts import insert_statement
from tests.storage.runs import Sql, new_task, register

QUEUED = "sitq_tasks_queued (queue=?)"
SCHEDULED = "sitq_tasks_scheduled (queue=? AND run_at_ms<?)"
HELD = "sitq_tasks_held (worker_id=?)"
SUSPECTS = "sitq_tasks_suspects (state=?)"
BY_SEQ = "INTEGER PRIMARY KEY (rowid=?)"
A_RUN = "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
BY_ID = "sqlite_autoindex_sitq_tasks_1 (id=?)"
LOOKED_UP = ["sitq_tasks_scheduled (queue=?)", SUSPECTS]

PLANS = {
    "EXISTING": (st.EXISTING, [BY_ID]),
    "FIND": (st.FIND, [BY_ID]),
    "FETCH": (st.FETCH, [BY_ID]),
    "FETCH_ONE": (st.FETCH_ONE, [BY_ID]),
    "CANCEL": (st.CANCEL, [BY_SEQ]),
    "ASK_TO_STOP": (st.ASK_TO_STOP, [BY_SEQ]),
    "PROMOTE": (st.PROMOTE, [BY_SEQ, SCHEDULED]),
    "LOOK": (st.look_statement(1), LOOKED_UP),
    "LOOK at two": (st.look_statement(2), LOOKED_UP * 2),
    "NEXT": (st.next_statement(1), [QUEUED]),
    "NEXT of two": (st.next_statement(2), [QUEUED, QUEUED]),
    "NEXT with suspects": (st.next_statement(1, st.NEXT_WITH_ONE_SUSPECT), [QUEUED]),
    "TAKE": (st.TAKE, [A_RUN]),
    "HOLDS_SUSPECT": (st.HOLDS_SUSPECT, ["sitq_tasks_suspects (state=? AND worker_id=?)"]),
    "FIRST_SUSPECT": (st.FIRST_SUSPECT, [SUSPECTS]),
    "FORGOTTEN": (st.FORGOTTEN, [HELD]),
    "COMPLETE": (st.COMPLETE, [A_RUN]),
    "FAIL": (st.FAIL, [BY_SEQ]),
    "ABORT": (st.ABORT, [BY_SEQ]),
    "ABORT_IF_ASKED": (st.ABORT_IF_ASKED, [BY_SEQ]),
    "RETRY": (st.RETRY, [BY_SEQ]),
    "RELEASE": (st.RELEASE, [BY_SEQ]),
    "PARK": (st.PARK, [BY_SEQ]),
    "STANDING": (st.STANDING, [BY_SEQ]),
    "RESCUE_ABORT": (st.RESCUE_ABORT, ["sitq_tasks_asked (worker_id=?)"]),
    "RESCUE_FAIL": (st.RESCUE_FAIL, [HELD]),
    "RESCUE": (st.RESCUE, [HELD]),
    "RETIRE_ABORT": (st.RETIRE_ABORT, ["sitq_tasks_asked (worker_id=?)"]),
    "RETIRE_RELEASE": (st.RETIRE_RELEASE, [HELD]),
    "ASKED_TO_STOP": (st.ASKED_TO_STOP, ["sitq_tasks_asked (worker_id=?)"]),
    "UNPARK": (st.UNPARK, ["sitq_tasks_parked (parked_stamp=?)"]),
    "PRUNE": (st.PRUNE, [BY_SEQ, "sitq_tasks_finished (finished_ms<?)", "SEARCH sitq_tasks"]),
}


@pytest.fixture(scope="module", params=["empty", "full of history, analysed"])
def db(request):
    sql = Sql()
    if request.param != "empty":
        for state in ("success", "failed", "queued", "scheduled", "parked"):
            tasks = tuple(new_task(f"{state}{n}") for n in range(2000))
            sql.apply([register(), Enqueue(tasks)])
            ended = 1 if state in ("success", "failed") else None
            sql.db.execute(
                "UPDATE sitq_tasks SET state = ?, finished_ms = ? WHERE id LIKE ?",
                (state, ended, f"{state}%"),
            )
        sql.db.execute("ANALYZE")
    yield sql.db
    sql.db.close()


@pytest.mark.parametrize(
    "statement",
    [
        insert_statement(1),
        insert_statement(64),
        st.TAKE,
        st.COMPLETE,
        st.FETCH_ONE,
        st.RENEW,
    ],
)
def test_what_is_run_for_every_task_has_sqlite_build_no_table(db, statement) -> None:
    """It costs as much as ten rows: an `IN` does that, also in the condition of an index."""
    nothing = [None] * statement.count("?")
    steps = [row[1] for row in db.execute(f"EXPLAIN {statement}", nothing)]
    assert not {"OpenEphemeral", "SorterOpen"} & set(steps)


@pytest.mark.parametrize("name", PLANS)
def test_a_statement_is_served_by_its_index(db, name) -> None:
    statement, indexes = PLANS[name]
    nothing = [None] * statement.count("?")
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", nothing)]

    used = [step for step in plan if "sitq_tasks" in step]
    assert [step for step in used if step.startswith("SCAN")] == []
    assert len(used) == len(indexes), plan
    for index in indexes:
        assert any(index in step for step in used), plan
    sorts = [step for step in plan if "TEMP B-TREE" in step]
    # Only the merge of several queues sorts (a handful of rows, the best of each), and of the few
    # suspects the first is sought.
    assert bool(sorts) == (name in {"NEXT of two", "FIRST_SUSPECT"}), plan
