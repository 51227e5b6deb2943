"""What `sitq doctor` finds out about a queue in Postgres, from the connection to the tasks.

What cannot be had ends it: without a connection nothing else is looked at, and without our tables
nothing of what is in them. All else is looked at part by part, and a part that fails is told of and
spoils no other. It changes nothing: see `queue_server`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from sitq.adapters.postgres_connection import PgError, PostgresSettings, option, shown
from sitq.adapters.postgres_errors import NoAnswerError
from sitq.cli import (
    doctor_grants,
    doctor_pooler,
    doctor_queue,
    doctor_upkeep,
    queue_server,
    server_refusals,
)
from sitq.cli.doctor_grants import Lacks
from sitq.cli.finding import Finding
from sitq.cli.queue_server import Talk
from sitq.exceptions import NewerSchemaError, SitqError
from sitq.storage import postgres_schema

PATIENCE: Final = 20.0
_TROUBLE: Final = (PgError, NoAnswerError)

_STANDBY: Final = (
    "connect to the primary; name all hosts in the URL (host=db1,db2), so that the one is found that"
    " can be written to"
)
_READ_ONLY: Final = (
    "default_transaction_read_only is on, for the server, the database or the role: reset it, with"
    " ALTER SYSTEM, ALTER DATABASE or ALTER ROLE ... RESET default_transaction_read_only"
)


def examine(url: str, schema: str) -> list[Finding]:
    """Return all findings."""
    return list(_examine(queue_server.settings_for(url, schema, PATIENCE)))


def _examine(settings: PostgresSettings) -> Iterator[Finding]:
    try:
        try:
            talk = Talk(settings)
        except PgError as error:
            if not queue_server.is_about_writing(error):
                raise
            settings = queue_server.for_reading(settings)
            talk = Talk(settings)
    except PgError as error:
        said = "; ".join(line.strip() for line in str(error).strip().splitlines())
        refusal = server_refusals.why(said)
        found = f"cannot connect to {shown(settings.dsn)}: {said}"
        yield Finding("FAIL", refusal.about, found, refusal.to_do)
        return
    try:
        yield from _server(talk)
        yield from _tls(talk)
        ((is_standby,),) = talk.ask("SELECT pg_is_in_recovery()")
        yield from _guarded("writing", lambda: _writing(talk, is_standby=is_standby))
        yield from _guarded("schema", lambda: _queue(talk))
        own = replace(settings, timeout=doctor_pooler.PATIENCE)
        yield from _guarded("pooler", lambda: doctor_pooler.examine(own, can_listen=not is_standby))
        for about, part in doctor_upkeep.PARTS.items():
            yield from _guarded(about, partial(part, talk))
    except _TROUBLE as error:
        yield _not_examined("server", error)
    finally:
        talk.close()


def _guarded(about: str, part: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from part()
    except _TROUBLE as error:
        yield _not_examined(about, error)


def _not_examined(about: str, error: Exception) -> Finding:
    said = "; ".join(line.strip() for line in str(error).strip().splitlines())
    return Finding(
        "WARN", about, f"it could not be looked at: {said}", "try again, or as its owner"
    )


# -- the server ------------------------------------------------------------------------


def _server(talk: Talk) -> Iterator[Finding]:
    ((version,),) = talk.ask("SELECT current_setting('server_version')")
    yield Finding("OK", "server", f"PostgreSQL {version} at {shown(talk.settings.dsn)}")


def _tls(talk: Talk) -> Iterator[Finding]:
    """Look at this end of the connection: behind a pooler, the server sees another."""
    connection, to_do = talk.connection, "sslmode=verify-full and sslrootcert=FILE in the URL"
    if connection.is_local:
        yield Finding("OK", "TLS", "none is needed: a socket of this host")
    elif not connection.is_encrypted:
        yield Finding("WARN", "TLS", "none: payloads and results can be read on the way", to_do)
    elif option(talk.settings.dsn, "sslmode") != "verify-full":
        yield Finding("WARN", "TLS", "it is on, but the server need not prove who it is", to_do)
    else:
        yield Finding("OK", "TLS", "it is on, and the server has proved who it is")


def _writing(talk: Talk, *, is_standby: bool) -> Iterator[Finding]:
    ((read_only,),) = talk.ask("SELECT current_setting('default_transaction_read_only')")
    if is_standby:
        yield Finding("FAIL", "writing", "this server is a standby, and only reads", _STANDBY)
    elif read_only == "on":
        found = "every transaction is read-only: nothing can be enqueued or run"
        yield Finding("FAIL", "writing", found, _READ_ONLY)
    else:
        yield Finding("OK", "writing", "the server can be written to")


# -- the queue -------------------------------------------------------------------------


def _queue(talk: Talk) -> Iterator[Finding]:
    """Look at the schema, and at what is in it as far as this role may."""
    schema = talk.settings.schema
    ((exists, may_make, database),) = talk.ask(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1),"
        " has_database_privilege(current_database(), 'CREATE'), current_database()::text",
        schema,
    )
    if not exists:
        to_do = "it is made when a program with this URL connects; or name another one: --schema"
        if not may_make:
            to_do = (
                "have one who may make it, as the page 'Roles on Postgres' says, or as the"
                f' database\'s owner: GRANT CREATE ON DATABASE "{database}" TO this role'
            )
        yield Finding("FAIL", "schema", f"there is no schema {schema!r} in {database!r}", to_do)
        return
    found = doctor_grants.lacks(talk)
    if any(need in found.missing[doctor_grants.WATCHER] for need in doctor_grants.ENTER):
        said = f"{schema!r} is there, and this role may not look into it"
        yield Finding("FAIL", "schema", said, "see the grants that it lacks")
        yield from doctor_grants.findings(found)
        return
    try:
        with talk.reading():
            version = talk.run(postgres_schema.check_schema(schema))
    except SitqError as error:
        is_newer = isinstance(error, NewerSchemaError)
        to_do = "upgrade sitq here, too" if is_newer else "as it says; nothing was changed"
        yield Finding("FAIL", "schema", str(error), to_do)
        return
    if version == 0:
        to_do = "they are made when a program connects as a role that may: see 'Roles on Postgres'"
        yield Finding("FAIL", "schema", f"{schema!r} has no tables of sitq", to_do)
        return
    if version == postgres_schema.VERSION:
        yield Finding("OK", "schema", f"version {version}")
    else:
        said = f"version {version}, this sitq has {postgres_schema.VERSION}"
        to_do = f"it is migrated when a program connects as {found.owner}, once older ones are gone"
        yield Finding("WARN", "schema", said, to_do)
    yield from doctor_grants.findings(found)
    yield from _guarded("tasks", lambda: _tasks(talk, found))


def _tasks(talk: Talk, found: Lacks) -> Iterator[Finding]:
    if found.missing[doctor_grants.WATCHER]:
        if found.may:  # as producers may: they do not see the workers
            to_do = found.to_do(doctor_grants.WATCHER)
            yield Finding("OK", "tasks", "this role may not see workers, so none was sought", to_do)
        return
    with talk.reading():
        rows = queue_server.workers(talk)
        counts = queue_server.counts(talk)
        reasons = queue_server.parked(talk)
    to_do = "start a worker: it takes back what they held, once their leases are out"
    yield from doctor_queue.alive(rows, to_do)
    yield from doctor_queue.unserved(rows, counts)
    yield from doctor_queue.parked(reasons)
