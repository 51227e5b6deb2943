"""The stores that processes are tortured on: a file of SQLite, or a database of Postgres."""

from sitq import PostgresBackend, SQLiteBackend
from sitq.backends.base import Backend


def is_postgres(where: str) -> bool:
    return where.startswith("postgresql:")


def open_backend(where: str) -> Backend:
    """Return a backend on a file's path, or on a database's URL."""
    return PostgresBackend(where) if is_postgres(where) else SQLiteBackend(where)
