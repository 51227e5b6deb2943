"""Where a queue is, as it is typed: the path of a file, or the URL of a database.

The promises: what is printed of a URL has no password; and what was meant as a database, but is no
URL of one, is not taken for the name of a file.
"""

import re
from typing import Final

from sitq.backends.postgres import SCHEME
from sitq.cli.terminal import shown
from sitq.exceptions import ValidationError

SCHEMA: Final = "sitq"


_PAIR: Final = re.compile("(host|hostaddr|port|dbname|user|password|service)=")


def is_server(where: str) -> bool:
    """Say whether it is a database's URL. Raises `ValidationError` if it was only meant as one."""
    if where.startswith(("postgresql://", "postgres://")):
        return True
    if scheme := SCHEME.match(where):
        raise ValidationError(
            f"what begins with {scheme[0]} is neither the path of a file nor the URL of a database"
            " (postgresql://...)"
        )
    if _PAIR.match(where):
        raise ValidationError(
            "name a database by its URL here (postgresql://user@host/database), and not by"
            " name=value pairs; a file of such a name is given as ./NAME"
        )
    return False


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


def check_schema_goes_with(where: str | None, schema: str) -> None:
    """Refuse a schema where there is none."""
    if schema != SCHEMA and (where is None or not is_server(where)):
        found = "none was given" if where is None else f"{where!r} is a file"
        raise ValidationError(f"--schema is for a database's URL, and {found}")
