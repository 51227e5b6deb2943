"""What `sitq doctor` finds out about the privileges of a role: which jobs it may do, what it lacks.

The jobs and their grants are those of the page "Roles on Postgres". A role that has all that a job
needs is in order, also if another job is not for it. One that has a part of what is one job's alone
was meant for it, and is told of the rest.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sitq.cli.finding import Finding
from sitq.cli.queue_server import Talk


class Need(NamedTuple):
    privileges: str
    on: str
    """A relation of the schema, or "" for the schema itself."""
    columns: tuple[str, ...] = ()

    def granted_to(self, role: str, schema: str) -> str:
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        on = f"{schema}.{self.on}" if self.on else f"SCHEMA {schema}"
        return f'GRANT {self.privileges}{columns} ON {on} TO "{role}"'


ENTER: Final = (Need("USAGE", ""), Need("SELECT", "schema_version"))
_NUMBERS: Final = Need("USAGE", "task_numbers")
_SEEN: Final = (
    "seq", "id", "queue", "name", "state", "priority", "run_at_ms", "enqueued_ms", "attempt",
    "crashes", "worker_id", "cancel_asked", "started_ms", "finished_ms", "error_type", "reason",
)  # fmt: skip
_NEW: Final = (
    "seq", "id", "queue", "name", "state", "priority", "run_at_ms", "enqueued_ms", "payload",
    "policy", "max_crashes",
)  # fmt: skip
_CANCELLED: Final = ("state", "reason", "finished_ms", "cancel_asked")

WORKER: Final = "run tasks"
PRODUCER: Final = "enqueue and read results"
CANCELLER: Final = "cancel"
WATCHER: Final = "see how tasks stand"
JOBS: Final[Mapping[str, Sequence[Need]]] = {
    WORKER: (
        *ENTER,
        *(Need(what, "tasks") for what in ("SELECT", "INSERT", "UPDATE", "DELETE")),
        *(Need(what, "workers") for what in ("SELECT", "INSERT", "UPDATE", "DELETE")),
        _NUMBERS,
    ),
    PRODUCER: (
        *ENTER,
        Need("SELECT", "tasks"),
        Need("INSERT", "tasks", _NEW),
        _NUMBERS,
    ),
    CANCELLER: (*ENTER, Need("SELECT", "tasks"), Need("UPDATE", "tasks", _CANCELLED)),
    WATCHER: (*ENTER, Need("SELECT", "tasks", _SEEN), Need("SELECT", "workers")),
}
SIGNS: Final[Mapping[str, Sequence[Need]]] = {
    WORKER: (
        *(Need(what, "tasks") for what in ("UPDATE", "DELETE")),
        *(Need(what, "workers") for what in ("INSERT", "UPDATE", "DELETE")),
    ),
    PRODUCER: (Need("INSERT", "tasks", _NEW), _NUMBERS),
    CANCELLER: (Need("UPDATE", "tasks", _CANCELLED),),
}
"""Who has one of these was meant for the job."""


class Lacks(NamedTuple):
    """What a role may not do, by job; *owner* is who can grant it."""

    role: str
    schema: str
    owner: str
    missing: Mapping[str, Sequence[Need]]
    meant_for: Sequence[str]

    @property
    def may(self) -> list[str]:
        return [job for job, needs in self.missing.items() if not needs]

    def to_do(self, job: str) -> str:
        grants = "; ".join(n.granted_to(self.role, self.schema) for n in self.missing[job])
        return f"as {self.owner}: {grants}"


def lacks(talk: Talk) -> Lacks:
    """Ask the server what this role may do; it needs no privilege to be told."""
    schema = talk.settings.schema
    needs = list(dict.fromkeys(need for job in JOBS.values() for need in job))
    ((role, owner),) = talk.ask(
        "SELECT current_user::text, pg_get_userbyid(nspowner)::text"
        " FROM pg_catalog.pg_namespace WHERE nspname = $1",
        schema,
    )
    (answers,) = talk.ask("SELECT " + ", ".join(_question(need, schema) for need in needs))
    has = dict(zip(needs, answers, strict=True))
    # None is the answer about a table that is not there: no grant would help.
    missing = {job: [need for need in JOBS[job] if has[need] is False] for job in JOBS}
    meant_for = [job for job, signs in SIGNS.items() if any(has[need] for need in signs)]
    return Lacks(role, schema, owner, missing, meant_for)


def _question(need: Need, schema: str) -> str:
    """Return it for `SELECT`. By numbers, since names are looked up with the role's own rights."""
    if not need.on:
        return f"has_schema_privilege('{schema}', '{need.privileges}')"
    oid = (
        "(SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n"
        f" ON n.oid = c.relnamespace WHERE n.nspname = '{schema}' AND c.relname = '{need.on}')"
    )
    if need.columns:
        each = (f"has_column_privilege({oid}, '{c}', '{need.privileges}')" for c in need.columns)
        return f"({' AND '.join(each)})"
    kind = "sequence" if need is _NUMBERS else "table"
    return f"has_{kind}_privilege({oid}, '{need.privileges}')"


def findings(found: Lacks) -> Iterator[Finding]:
    """Say what the role may do, and what it seems to miss."""
    # Who may run tasks, may all.
    unmet = [job for job in found.meant_for if found.missing[job] and WORKER not in found.may]
    if not found.may and not unmet:
        unmet = [WATCHER]
    for job in unmet:
        said = f"{found.role} seems to be meant to {job}, and may not"
        yield Finding("FAIL", "privileges", said, found.to_do(job))
    if not unmet:
        yield Finding("OK", "privileges", f"{found.role} may {'; '.join(found.may)}")
