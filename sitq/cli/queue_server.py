"""A queue in a schema of Postgres, looked at from outside: by questions that change nothing.

The promises: what is no queue of sitq is refused by name; a look makes no schema, leaves no setting
and no statement in the session, waits for no lock longer than `LOCKS`, and sees all of one moment.
All times are the server's. No text has a password.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from sitq.adapters.postgres import block
from sitq.adapters.postgres_connection import (
    Connection,
    PgError,
    PostgresSettings,
    connect,
    shown,
    with_option,
)
from sitq.adapters.postgres_errors import NoAnswerError, cannot_connect, judge
from sitq.backends.postgres import PostgresBackend, settings_of
from sitq.cli.queue_file import PARKED_BECAUSE, WorkerRow
from sitq.exceptions import ForeignFileError, StoreError
from sitq.storage.postgres_schema import check_schema
from sitq.storage.program import Done, Program, Query, Row, resume

T = TypeVar("T")

PATIENCE: Final = 60.0
"""Seconds: to count millions of tasks takes its time."""
LOCKS: Final = 5
"""Seconds that a look waits for a lock."""
_READ: Final = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
    f" SET LOCAL lock_timeout = '{LOCKS}s'; SET LOCAL statement_timeout = '{PATIENCE:g}s'"
)
NOW_MS: Final = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"


class Talk:
    """Asks one question after another, on one connection."""

    def __init__(self, settings: PostgresSettings) -> None:
        """Connect. Raises `PgError`."""
        self.settings = settings
        self.connection: Connection = connect(settings)

    def ask(self, sql: str, *params: Any) -> Sequence[Row]:
        return block(self.connection.ask(sql, params), self.settings)

    def run(self, program: Program[T]) -> T:
        """Run a program that only asks."""
        step = resume(program, None)
        while not isinstance(step, Done):
            assert isinstance(step, Query)
            step = resume(program, self.ask(step.sql, *step.params))
        return step.value

    @contextmanager
    def reading(self) -> Generator[None]:
        """See all of one moment, and write nothing."""
        try:
            self.ask(_READ)
            yield
        finally:
            with suppress(PgError, NoAnswerError):  # what had failed before says more
                self.ask("ROLLBACK")

    def close(self) -> None:
        self.connection.shut()


def settings_for(url: str, schema: str, timeout: float = PATIENCE) -> PostgresSettings:
    """Return what to connect with, checked as a program's would be."""
    return settings_of(PostgresBackend(url, schema=schema, timeout=timeout, prepare=False))


def for_reading(settings: PostgresSettings) -> PostgresSettings:
    """Return the same for a server that cannot be written to."""
    return replace(settings, dsn=with_option(settings.dsn, "target_session_attrs", "any"))


def is_about_writing(error: Exception) -> bool:
    """Say whether libpq has refused a server since nothing can be written there."""
    return "read-only" in str(error) or "hot standby" in str(error)


def look(url: str, schema: str, at: Callable[[Talk], T]) -> T:
    """Return what *at* finds in the queue, all of it of one moment.

    Raises `ForeignFileError` and the like if there is no queue, `StoreError` if it cannot be read.
    """
    settings = settings_for(url, schema)
    where = f"{shown(settings.dsn)} schema={schema}"
    try:
        try:
            talk = Talk(settings)
        except PgError as error:
            if not is_about_writing(error):
                raise
            talk = Talk(for_reading(settings))  # a standby can be looked at
    except PgError as error:
        raise cannot_connect(error, where) from error
    try:
        with talk.reading():
            if talk.run(check_schema(schema)) == 0:
                raise ForeignFileError(
                    f"{where} has no tables of sitq: no queue has used it yet, or it is in another"
                    " schema (--schema)"
                )
            return at(talk)
    except (PgError, NoAnswerError) as error:
        if getattr(error, "sqlstate", None) == NOT_ALLOWED:
            raise StoreError(
                f"{where} may not be looked at by this role: {str(error).strip()}; `sitq doctor`"
                " with the same URL says which grants it lacks"
            ) from error
        raise judge(error, where, committing=False, lost=talk.connection.is_lost).error from error
    finally:
        talk.close()


NOT_ALLOWED: Final = "42501"


# -- what is in it ---------------------------------------------------------------------


def workers(talk: Talk) -> list[WorkerRow]:
    """Return what is known of each worker: it lives until its lease runs out.

    Of the workers of this user on this host it is known sooner, by their locks.
    """
    found = talk.ask(
        f"""
        SELECT id, host, pid, queues, max_concurrency, lease_until_ms - {NOW_MS},
            (SELECT count(*) FROM sitq.tasks
                WHERE worker_id = sitq.workers.id AND state = 'running')
        FROM sitq.workers ORDER BY registered_ms, id
        """
    )
    presence = PostgresBackend(talk.settings.dsn).presence()
    dead = {*presence.dead([id_ for id_, *_ in found])}
    return [
        WorkerRow(
            id_,
            host,
            pid,
            tuple(queues),
            slots,
            running,
            left_ms > 0 and id_ not in dead,
            round(left_ms / 1000, 1),
        )
        for id_, host, pid, queues, slots, left_ms, running in found
    ]


def counts(talk: Talk) -> list[tuple[str, str, int]]:
    """Return (queue, state, number of tasks)."""
    found = talk.ask(
        "SELECT queue, state, count(*) FROM sitq.tasks GROUP BY queue, state ORDER BY 1, 2"
    )
    return [(queue, state, count) for queue, state, count in found]


def oldest_waiting_s(talk: Talk) -> float | None:
    """Return for how many seconds the oldest task that is due has waited."""
    return _seconds(talk, f"{NOW_MS} - min(run_at_ms)", "queued")


def next_due_s(talk: Talk) -> float | None:
    """Return in how many seconds the next scheduled task is due."""
    return _seconds(talk, f"min(run_at_ms) - {NOW_MS}", "scheduled")


def _seconds(talk: Talk, what: str, state: str) -> float | None:
    ((found,),) = talk.ask(f"SELECT {what} FROM sitq.tasks WHERE state = '{state}'")
    return None if found is None else round(found / 1000, 1)


def parked(talk: Talk) -> list[tuple[str, int]]:
    """Return why tasks are parked, and how many for each reason; who may not read that, how many."""
    ((may,),) = talk.ask(
        "SELECT has_column_privilege('sitq.tasks', 'error', 'SELECT')"
        " AND has_column_privilege('sitq.tasks', 'parked_stamp', 'SELECT')"
    )
    reason = PARKED_BECAUSE if may else "'this role may not read why'"
    found = talk.ask(
        f"SELECT {reason}, count(*) FROM sitq.tasks WHERE state = 'parked' GROUP BY 1 ORDER BY 1"
    )
    return [(said, count) for said, count in found]
