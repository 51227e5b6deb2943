"""A crash between any two statements of a batch leaves nothing behind."""

from sitq.protocol.ops import (
    Cancel,
    Completed,
    Count,
    Enqueue,
    Failed,
    Failure,
    Fetch,
    Parked,
    Prune,
    Register,
    Released,
    Renew,
    Rescue,
    Reserve,
    Retire,
    RetryIn,
    Settle,
    TaskKey,
    Unpark,
    Watch,
)
from sitq.storage.program import Change, Commit, Done, Query, resume
from sitq.storage.sqlite import apply_batch
from tests.storage.runs import NOW, Sql, new_task, register

BOOM = Failure("boom", "ValueError")
VERDICTS = [Completed(b"v"), Failed(BOOM), RetryIn(1.0, BOOM), Released(), Parked("x", "text")]


def everything(db) -> list:
    return [db.execute(f"SELECT * FROM {t}").fetchall() for t in ("sitq_tasks", "sitq_workers")]


def busy() -> Sql:
    """Return a store in which every op of the batch below has something to do."""
    sql = Sql()
    tasks = tuple(new_task(str(n)) for n in range(12))
    sql.apply([register("w"), register("dead"), register("gone"), Enqueue(tasks)])
    sql.apply([Reserve("w", ("default",), 6)])
    sql.apply([Reserve("dead", ("default",), 2)])
    sql.apply([Reserve("gone", ("default",), 1)])
    sql.apply([Settle(TaskKey(6, 1), "5", "w", Completed(b""))])
    sql.apply([Enqueue((new_task("soon"), new_task("late", delay_ms=9)))])
    return sql


def the_batch() -> list:
    settles = [
        Settle(TaskKey(n + 1, 1), str(n), "w", verdict) for n, verdict in enumerate(VERDICTS)
    ]
    return [
        *settles,
        Settle(TaskKey(6, 1), "5", "w", Completed(b"")),
        Register("new", "h", 1, ("default",), 1, 30.0),
        Renew("w", 30.0),
        Retire("gone"),
        Rescue(("dead",)),
        Unpark(("x",)),
        Prune(0.0, 10),
        Enqueue((new_task("a"), new_task("b"))),
        Enqueue((new_task("11"),), may_exist=True),
        Cancel("10"),
        Reserve("w", ("default", "other"), 3),
        Watch("w"),
        Fetch(("1",)),
        Count(),
    ]


def run_until(db, program, crash_at: int) -> int:
    """Run *program* up to statement *crash_at* and drop it; return the statements run."""
    ran = 0
    step = resume(program, None)
    while not isinstance(step, Done):
        if ran == crash_at:
            program.close()
            break
        ran += 1
        match step:
            case Query(sql, params):
                rows = db.execute(sql, params).fetchall()
            case Change(sql, many):
                rows = [(db.executemany(sql, many).rowcount,)]
            case Commit():
                db.execute("COMMIT")
                rows = []
        step = resume(program, rows)
    if db.in_transaction:
        db.execute("ROLLBACK")  # what the file does by itself when its process dies
    return ran


def test_wherever_a_batch_is_cut_off_the_store_is_as_it_was() -> None:
    whole = busy()
    before = everything(whole.db)
    statements = run_until(whole.db, apply_batch(the_batch(), NOW), 10_000)
    after = everything(whole.db)
    whole.db.close()
    assert statements > 25
    assert after != before

    for crash_at in range(statements):
        sql = busy()
        assert run_until(sql.db, apply_batch(the_batch(), NOW), crash_at) == crash_at
        assert everything(sql.db) == before, f"cut off before statement {crash_at}"
        run_until(sql.db, apply_batch(the_batch(), NOW), 10_000)
        assert everything(sql.db) == after  # all of it can be asked again
        sql.db.close()
