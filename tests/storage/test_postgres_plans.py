"""On Postgres: what a batch costs in round trips, and that the hot path is served by its indexes."""

from itertools import pairwise

import pytest

from sitq.protocol.ops import Completed, Enqueue, Fetch, Reserve, Settle
from sitq.storage import postgres_statements as sql
from sitq.storage.postgres import apply_batch
from sitq.storage.postgres_arrays import Blobs, Ints, Texts
from sitq.storage.program import Done, resume
from tests.storage.on_postgres import Postgres
from tests.storage.runs import NOW, new_task, register

QUEUES = Texts(["default"])
MANY = 300
HELD = (Texts(["t"] * MANY), Ints([1] * MANY), Ints([1] * MANY), Texts(["w"] * MANY))
PLANS = {
    "EXISTING": (sql.EXISTING, (Texts(["t"]),), {"tasks_pkey"}),
    "FIND": (sql.FIND, (Texts(["t"]),), {"tasks_pkey"}),
    "CANCEL": (sql.CANCEL, (5, Texts(["t"])), {"tasks_pkey"}),
    "PROMOTE": (sql.PROMOTE, (QUEUES, 5), {"tasks_scheduled"}),
    "RESERVE": (
        sql.RESERVE,
        ("w", QUEUES, 100, False),
        {"tasks_scheduled", "tasks_suspects", "tasks_queued"},
    ),
    "RESERVE_FROM_THERE": (
        sql.RESERVE_FROM_THERE,
        ("w", QUEUES, 100, False, 0, 5),
        {"tasks_scheduled", "tasks_suspects", "tasks_queued"},
    ),
    "RESERVE_FROM_SEVERAL": (
        sql.RESERVE_FROM_SEVERAL,
        ("w", Texts(["default", "other"]), 100, False),
        {"tasks_scheduled", "tasks_suspects", "tasks_queued"},
    ),
    "FORGOTTEN": (sql.FORGOTTEN, ("w", Ints([1]), 9), {"tasks_held"}),
    "COMPLETE": (sql.COMPLETE, (*HELD, Blobs([b"v"] * MANY)), {"tasks_pkey"}),
    "RELEASE": (sql.RELEASE, HELD, {"tasks_pkey"}),
    "STANDING": (sql.STANDING, (Texts(["t"]),), {"tasks_pkey"}),
    "RESCUE": (sql.RESCUE, (Texts(["w"]),), {"tasks_held"}),
    "ASKED_TO_STOP": (sql.ASKED_TO_STOP, ("w",), {"tasks_held"}),
    "UNPARK": (sql.UNPARK, (Texts(["x"]),), {"tasks_parked"}),
    "PRUNE": (sql.PRUNE, (0, 5, 100), {"tasks_ended"}),
    "FETCH": (sql.FETCH, (Texts(["t"]),), {"tasks_pkey"}),
}


BY_PLACE = {"PROMOTE", "RESERVE", "RESERVE_FROM_THERE", "RESERVE_FROM_SEVERAL", "PRUNE"}
"""They find rows by an index, and change those very rows."""


# A plan stays in use for as long as the server thinks that nothing has changed: one that is made
# while the table is empty has to be as good as any.
@pytest.fixture(scope="module", params=["never analysed", "analysed", "empty"])
def full(request, postgres_server):
    full = Postgres(postgres_server.dsn(postgres_server.create_database())).open()
    if request.param == "empty":
        full.ask("VACUUM ANALYZE")
        yield full
        full.close()
        return
    full.apply([register()])
    for state in ("success", "failed", "queued", "scheduled", "parked"):
        full.apply([Enqueue(tuple(new_task(f"{state}{n}") for n in range(3000)))])
        full.ask(
            "UPDATE sitq.tasks SET state = $1, finished_ms = 9, parked_stamp = $2"
            " WHERE id LIKE $1 || '%'",
            (state, "y"),
        )
    if request.param == "analysed":
        full.ask("ANALYZE")
    yield full
    full.close()


@pytest.mark.parametrize("name", PLANS)
def test_each_statement_goes_by_its_index_and_reads_no_table_as_a_whole(full, name) -> None:
    statement, params, indexes = PLANS[name]
    full.ask(sql.BEGIN)
    plan = [line for (line,) in full.ask(f"EXPLAIN {statement}", params)]
    full.ask("ROLLBACK")

    assert indexes <= {index for index in INDEXES if any(index in line for line in plan)}, plan
    assert not [line for line in plan if "Seq Scan on tasks" in line], plan
    for scan, condition in pairwise(plan):
        assert " using tasks_" not in scan or "Index Cond" in condition, plan
    assert any("Tid Scan on tasks" in line for line in plan) is (name in BY_PLACE), plan


def test_who_knows_where_to_look_begins_there(full) -> None:
    statement, params, _ = PLANS["RESERVE_FROM_THERE"]
    full.ask(sql.BEGIN)
    plan = [line for (line,) in full.ask(f"EXPLAIN {statement}", params)]
    full.ask("ROLLBACK")
    found = [line for line in plan if "Index Cond" in line and "priority" in line]
    assert ["priority > " in line for line in found] == [True, False, False]
    assert ["seq >= " in line for line in found] == [False, True, False]
    assert ["priority < " in line for line in found] == [False, False, True]


INDEXES = {index for _, _, indexes in PLANS.values() for index in indexes}


def trips(store, ops) -> int:
    program = apply_batch(ops, "sitq")
    count = 0
    step = resume(program, None)
    while not isinstance(step, Done):
        count += 1
        step = resume(program, store.step(step, NOW))
    return count


def test_a_batch_costs_as_many_round_trips_however_many_tasks_there_are(postgres) -> None:
    def enqueue(of) -> int:
        return trips(postgres, [Enqueue((new_task(str(n)),)) for n in of])

    assert enqueue(range(1)) == enqueue(range(1, 301)) == 1
    postgres.apply([register()])
    (reserved,) = postgres.apply([Reserve("w", ("default",), 200)])
    settles = [Settle(task.key, task.id, "w", Completed(b"")) for task in reserved.tasks]
    assert trips(postgres, [settles[0], Reserve("w", ("default",), 1)]) == 2
    assert trips(postgres, [*settles[1:], Reserve("w", ("default",), 99)]) == 2
    assert trips(postgres, [Enqueue((new_task("a"),)), Reserve("w", ("default",), 1)]) == 2
    assert trips(postgres, [Reserve("w", ("default",), 100)]) == 1
    assert trips(postgres, [Fetch(("1", "2")), Fetch(("3",))]) == 1
