"""The programs on a plain connection to Postgres, with the model's face."""

from sitq.adapters.postgres import block
from sitq.adapters.postgres_connection import PgError, PostgresSettings, connect
from sitq.storage.postgres import apply_batch
from sitq.storage.postgres_schema import VERSION, open_schema
from sitq.storage.postgres_statements import BEGIN, BEGIN_READING, COMMIT, LOOK_UP, TELL_NOW
from sitq.storage.program import Commit, Done, Query, Together, resume
from tests.storage.runs import NOW


class Postgres:
    """The SQL, told the time as the model is: the server's clock is an answer like any other."""

    def __init__(self, dsn, schema="sitq") -> None:
        self.schema = schema
        self.settings = PostgresSettings(dsn, schema)
        self.connection = connect(self.settings)

    def open(self) -> "Postgres":
        self.run(open_schema(self.schema))
        return self

    def empty(self) -> None:
        for statement in (
            "TRUNCATE sitq.tasks, sitq.workers",
            "ALTER SEQUENCE sitq.task_numbers RESTART",
        ):
            self.ask(statement)

    def ask(self, sql, params=()) -> list:
        return list(block(self.connection.ask(sql, params), self.settings))

    def run(self, program, now=NOW):
        """Run *program* to its end; roll back if it dies."""
        step = resume(program, None)
        try:
            while not isinstance(step, Done):
                step = resume(program, self.step(step, now))
        except Exception:
            self.ask("ROLLBACK")
            raise
        return step.value

    def step(self, step, now=NOW) -> list:
        match step:
            case Query(sql, params):
                rows = self.ask(sql, params)
                if sql in {BEGIN, BEGIN_READING, LOOK_UP}:
                    if rows[0][1] <= VERSION:
                        self.ask(TELL_NOW, (str(now.wall_ms),))
                    rows = [(now.wall_ms, *rows[0][1:])]
                return rows
            case Together(queries):
                try:
                    return [tuple(self.step(query, now)) for query in queries]
                except PgError:
                    self.ask("ROLLBACK")
                    return []
            case Commit():
                return self.ask("COMMIT")
            case _:
                raise AssertionError(step)

    def apply(self, ops, now=NOW):
        return self.run(apply_batch(ops, self.schema), now)

    def close(self) -> None:
        self.connection.shut()


def one_by_one(program):
    """Run what is sent together as steps of their own, so that one can halt between two of them."""
    step = resume(program, None)
    while not isinstance(step, Done):
        if isinstance(step, Together):
            answers = []
            for query in step.queries:
                rows = yield Commit() if query.sql == COMMIT else query
                answers.append(tuple(rows))
            step = resume(program, answers)
        else:
            step = resume(program, (yield step))
    return step.value


__all__ = ["PgError", "Postgres", "one_by_one"]
