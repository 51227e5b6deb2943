"""What `sitq doctor` finds out about a server's upkeep: what runs out first where tasks are many.

Dead rows that nobody sweeps, transactions that keep them from being swept, connections, the clock,
and what a commit survives. Each question is one that every role may ask; where a role sees less than
all, that is said.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from sitq.adapters import clocks
from sitq.cli.finding import Finding
from sitq.cli.queue_server import NOW_MS, Talk

LONG_S: Final = 300.0
"""Seconds after which a transaction is a long one."""
SLACK_S: Final = 1.0
"""Seconds that clocks may differ before it is worth a word."""
CROWDED: Final = 0.8
SHOWN: Final = 3


class Sweeping(NamedTuple):
    """How many dead rows there may be before somebody has to look: some, and a part of the living.

    Ten times what the tables ask autovacuum for: see `UPKEEP` in `sitq.storage.postgres_schema`.
    """

    some: int
    part: float


SWEPT: Final[Mapping[str, Sweeping]] = {
    "tasks": Sweeping(50_000, 0.1),
    "workers": Sweeping(5_000, 0.0),
}

_TABLES: Final = """
    SELECT s.relname::text, s.n_live_tup, s.n_dead_tup, pg_total_relation_size(s.relid),
        extract(epoch FROM clock_timestamp() - greatest(s.last_autovacuum, s.last_vacuum))::float8,
        EXISTS (SELECT 1 FROM pg_options_to_table(c.reloptions) AS o
            WHERE o.option_name = 'autovacuum_enabled'
                AND lower(o.option_value) IN ('false', 'off', 'no', '0'))
    FROM pg_catalog.pg_stat_all_tables AS s JOIN pg_catalog.pg_class AS c ON c.oid = s.relid
    WHERE s.schemaname = $1 AND s.relname IN ('tasks', 'workers') ORDER BY 1
"""
# A session that has neither written nor looks at a moment of its own keeps nothing from being swept.
_LONG: Final = """
    SELECT pid, coalesce(usename::text, '?'), coalesce(state, '?'),
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age
    FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
        AND xact_start <= clock_timestamp() - make_interval(secs => $1::bigint) ORDER BY age DESC
"""
_PREPARED: Final = """
    SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8
    FROM pg_catalog.pg_prepared_xacts
    WHERE database = current_database()
        AND prepared <= clock_timestamp() - make_interval(secs => $1::bigint) ORDER BY prepared
"""
_SEES_ALL: Final = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
_CONNECTIONS: Final = """
    SELECT count(datname), current_setting('max_connections')::bigint
        - current_setting('superuser_reserved_connections')::bigint
        - coalesce(current_setting('reserved_connections', true), '0')::bigint
    FROM pg_catalog.pg_stat_activity
"""


def autovacuum(talk: Talk) -> Iterator[Finding]:
    """Find out whether dead rows are swept at all, and whether that keeps up."""
    for setting in ("autovacuum", "track_counts"):
        ((value,),) = talk.ask(f"SELECT current_setting('{setting}')")
        if value == "off":
            to_do = f"set {setting} = on in postgresql.conf, and reload: dead rows are never swept"
            yield Finding("FAIL", "autovacuum", f"{setting} is off on this server", to_do)
            return
    for table, live, dead, size, since, is_off in talk.ask(_TABLES, talk.settings.schema):
        name = f"{talk.settings.schema}.{table}"
        found = f"{name}: {dead:,} dead rows beside {live:,}, {size:,} bytes with indexes"
        found += ", never swept" if since is None else f", swept {since:,.0f} s ago"
        limit = SWEPT[table]
        if is_off:
            to_do = f"ALTER TABLE {name} RESET (autovacuum_enabled)"
            yield Finding("FAIL", "autovacuum", f"{found}; it is switched off there", to_do)
        elif dead > limit.some + limit.part * live:
            to_do = (
                "see whether an old transaction keeps it from that (below), or the server's workers"
                f" do not keep up (autovacuum_max_workers); by hand: VACUUM (ANALYZE) {name}"
            )
            yield Finding("WARN", "dead rows", found, to_do)
        else:
            yield Finding("OK", "dead rows", found)


def old_transactions(talk: Talk) -> Iterator[Finding]:
    """Find who keeps dead rows from being swept."""
    long = int(LONG_S)
    to_do = (
        "until it ends no dead row is swept, and all queries get slower: end it by SELECT"
        " pg_terminate_backend(pid), and set idle_in_transaction_session_timeout"
    )
    found = [
        f"pid {pid} of {user} ({state}, {age:,.0f} s)"
        for pid, user, state, age in talk.ask(_LONG, long)
    ]
    if found:
        said = f"{len(found)} for longer than {long} s: {', '.join(found[:SHOWN])}"
        yield Finding("WARN", "old transactions", said, to_do)
    prepared = [f"{gid!r} ({age:,.0f} s)" for gid, age in talk.ask(_PREPARED, long)]
    if prepared:
        said = f"{len(prepared)} prepared for longer than {long} s: {', '.join(prepared[:SHOWN])}"
        end = "nobody ends it by itself: COMMIT PREPARED or ROLLBACK PREPARED, as its program would"
        yield Finding("WARN", "old transactions", said, end)
    if found or prepared:
        return
    ((sees_all,),) = talk.ask(_SEES_ALL)
    if sees_all:
        yield Finding("OK", "old transactions", f"none for longer than {long} s")
    else:
        yield Finding(
            "OK",
            "old transactions",
            "none of this role's own; those of others it may not see",
            "to see all, as a superuser: GRANT pg_read_all_stats TO this role",
        )


def connections(talk: Talk) -> Iterator[Finding]:
    """Find out how many are left."""
    ((taken, most),) = talk.ask(_CONNECTIONS)
    found = f"{taken:,} of {most:,} are taken, those of all databases"
    if taken >= CROWDED * most:
        to_do = (
            "start fewer workers with more slots each, close what is idle, put a pooler before the"
            " server, or raise max_connections"
        )
        yield Finding("WARN", "connections", found, to_do)
    else:
        yield Finding("OK", "connections", found)


def clock(talk: Talk) -> Iterator[Finding]:
    """Compare this host's clock with the server's, by which alone sitq goes."""
    before = clocks.wall_ms()
    ((server_ms,),) = talk.ask(f"SELECT {NOW_MS}")
    after = clocks.wall_ms()
    ahead_s = ((before + after) / 2 - server_ms) / 1000
    unsure_s = (after - before) / 2000
    if abs(ahead_s) > SLACK_S + unsure_s:
        which = "ahead of" if ahead_s > 0 else "behind"
        found = f"this host's is {abs(ahead_s):,.1f} s {which} the server's"
        to_do = "nothing for sitq, which goes by the server's; an `eta` that is made here is off"
        yield Finding("OK", "clock", found, to_do)
    else:
        yield Finding("OK", "clock", f"this host's and the server's agree within {SLACK_S:g} s")


DURABLE: Final = {
    "fsync": "a crash of the machine can destroy all of its databases",
    "full_page_writes": "a power cut can destroy all of its databases",
    "synchronous_commit": "a power cut may undo the last moments before it",
}


def durability(talk: Talk) -> Iterator[Finding]:
    """Find out what a returned `enqueue` survives."""
    off = [
        (setting, what)
        for setting, what in DURABLE.items()
        if talk.ask(f"SELECT current_setting('{setting}')") == [("off",)]
    ]
    for setting, what in off:
        yield Finding("WARN", "durability", f"{setting} is off: {what}", f"set {setting} = on")
    if not off:
        yield Finding("OK", "durability", "what is committed survives a power cut")


PARTS: Final[Mapping[str, Callable[[Talk], Iterator[Finding]]]] = {
    "autovacuum": autovacuum,
    "old transactions": old_transactions,
    "connections": connections,
    "clock": clock,
    "durability": durability,
}
"""By what each is about."""
