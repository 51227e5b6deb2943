"""The programs on a plain SQLite connection, and the model beside it."""

import sqlite3

from sitq.protocol.ops import Moment, NewTask, Register
from sitq.storage.model import Model
from sitq.storage.program import Change, Commit, Done, Query, resume
from sitq.storage.sqlite import apply_batch
from sitq.storage.sqlite_schema import open_database

NOW = Moment(1_000_000, 50_000, "boot")


def run(db: sqlite3.Connection, program):
    """Run *program* to its end; the whole of a driver that never fails."""
    step = resume(program, None)
    while not isinstance(step, Done):
        match step:
            case Query(sql, params):
                rows = db.execute(sql, params).fetchall()
            case Change(sql, many):
                rows = [(db.executemany(sql, many).rowcount,)]
            case Commit():
                rows = []
                if db.in_transaction:
                    db.execute("COMMIT")
        step = resume(program, rows)
    return step.value


class Sql:
    """The SQL, with the model's face."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        run(self.db, open_database("tasks.db"))

    def close(self) -> None:
        self.db.close()

    def apply(self, ops, now=NOW):
        return run(self.db, apply_batch(ops, now))


class InMemory:
    """The model, told the time as the SQL is."""

    def __init__(self) -> None:
        self.model = Model()

    def apply(self, ops, now=NOW):
        return self.model.apply(ops, now)


def new_task(id_="t", payload=b"p", **options) -> NewTask:
    return NewTask(id=id_, payload=payload, name="f", **options)


def register(worker_id="w", lease_for=30.0) -> Register:
    return Register(worker_id, "host", 7, ("default",), 4, lease_for)


def later(seconds: float, now: Moment = NOW, epoch: str | None = None) -> Moment:
    ms = round(seconds * 1000)
    return Moment(now.wall_ms + ms, now.lease_ms + ms, epoch or now.epoch)
