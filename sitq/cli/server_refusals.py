"""Why a server could not be connected to, and what to do: by what libpq says, in a table.

libpq hands over no SQLSTATE of a connection that was refused, only words; they are in English unless
the server was told to speak another language. What no row knows is shown as it was said.
"""

import re
from typing import Final, NamedTuple


class Refusal(NamedTuple):
    pattern: str
    about: str
    to_do: str


REFUSALS: Final = (
    Refusal(
        r"certificate|SSL|TLS|GSSAPI",
        "TLS",
        "sslmode=verify-full needs sslrootcert=FILE with the authority that has signed the server's"
        " certificate, and a host by the name that stands in it; if the server demands TLS, say"
        " sslmode=require at least; if it has none, switch it on there (ssl = on)",
    ),
    Refusal(
        r"password authentication failed|no password supplied|authentication failed",
        "password",
        "check user and password: they come from the URL, from PGUSER and PGPASSWORD, or from"
        " ~/.pgpass (PGPASSFILE), which must have mode 600",
    ),
    Refusal(
        r"database .* does not exist",
        "database",
        "name another database in the URL, or make this one: CREATE DATABASE ... ENCODING 'UTF8'",
    ),
    Refusal(
        r"role .* does not exist",
        "role",
        "name another user in the URL, or make this one: CREATE ROLE ... LOGIN PASSWORD '...'",
    ),
    Refusal(
        r"not permitted to log in",
        "role",
        "as one who may: ALTER ROLE ... LOGIN; or name another user in the URL",
    ),
    Refusal(
        r"permission denied for database",
        "database",
        "as the database's owner: GRANT CONNECT ON DATABASE ... TO this role",
    ),
    Refusal(
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "admission",
        "have pg_hba.conf of the server admit this user from this host to this database, and reload"
        " it: SELECT pg_reload_conf()",
    ),
    Refusal(
        r"too many (clients|connections)|remaining connection slots|no more connections",
        "connections",
        "all are taken: close what is idle, start fewer workers, put a pooler before the server, or"
        " raise max_connections (or the CONNECTION LIMIT of the role or the database)",
    ),
    Refusal(
        r"is starting up|is shutting down|in recovery mode|not (currently|yet) accepting",
        "server",
        "it starts, stops or recovers: wait, and look into its log if that does not end",
    ),
    Refusal(
        r"refused|No such file|timed? ?out|timeout expired|could not translate|not known"
        r"|unreachable|No route|resolve|closed the connection|reset by peer",
        "server",
        "it does not answer there: check host and port in the URL, that the server runs, that it"
        " listens on that address (listen_addresses), and that no firewall stands between",
    ),
)
"""The first that fits is taken."""

UNKNOWN: Final = Refusal("", "server", "look into the server's log, and try: psql with this URL")


def why(said: str) -> Refusal:
    """Return what is known of what libpq has *said*."""
    return next((known for known in REFUSALS if re.search(known.pattern, said)), UNKNOWN)
