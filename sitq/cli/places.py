"""Where a queue is, as it is typed: the path of a file, or the URL of a database.

The promise: what is printed of a URL has no password.
"""

from typing import Final

from sitq.cli.terminal import shown
from sitq.exceptions import ValidationError

SCHEMA: Final = "sitq"


def is_server(where: str) -> bool:
    return where.startswith(("postgresql://", "postgres://"))


def named(where: str) -> str:
    """Return *where* as people may see it."""
    if not is_server(where):
        return shown(where)
    try:
        from sitq.adapters.postgres_connection import PgError, shown as without_password
    except ImportError:  # it is said elsewhere that psycopg is missing
        return "a database"
    try:
        return shown(without_password(where))
    except PgError:  # the same of a URL that is none
        return "a database"


def check_schema_goes_with(where: str, schema: str) -> None:
    """Refuse a schema where there is none."""
    if schema != SCHEMA and not is_server(where):
        raise ValidationError(f"--schema is for a database's URL, and {where!r} is a file")
