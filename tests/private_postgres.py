"""A Postgres server for tests alone."""

import contextlib
import os
from collections.abc import Iterator, Mapping

import pytest

from torture.server import FAST, NoServerError, Server, start_server


@contextlib.contextmanager
def running_server(settings: Mapping[str, str] = FAST, port: int | None = None) -> Iterator[Server]:
    """A private server; without one the tests that need it fail in CI, and else are skipped."""
    try:
        server = start_server(settings, port)
    except NoServerError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    with server:
        yield server
