"""The backends of sitq, held to what is asked of any."""

from pathlib import Path

import pytest

from sitq import MemoryBackend, PostgresBackend, SQLiteBackend
from sitq.testing.conformance import BackendSuite
from torture.pooler import Pooler


@pytest.fixture(scope="module")
def postgres_database(postgres_server):
    name = postgres_server.create_database()
    yield postgres_server.dsn(name)
    postgres_server.drop_database(name)


class TestMemoryBackend(BackendSuite):
    making = "from sitq import MemoryBackend\nbackend = MemoryBackend()"
    outlives_its_process = False

    def new_backend(self, folder: Path) -> MemoryBackend:
        return MemoryBackend()


class TestSQLiteBackend(BackendSuite):
    making = "from sitq import SQLiteBackend\nbackend = SQLiteBackend(folder / 'tasks.db')"

    def new_backend(self, folder: Path) -> SQLiteBackend:
        return SQLiteBackend(folder / "tasks.db")


class TestPostgresBackend(BackendSuite):
    """Each store is a schema of its own, named for its folder, in the database of the module."""

    @pytest.fixture(autouse=True)
    def _database(self, postgres_database):
        type(self).dsn = postgres_database
        type(self).making = (
            "from sitq import PostgresBackend\n"
            f"backend = PostgresBackend({postgres_database!r}, schema='s_' + folder.name.lower())"
        )

    def new_backend(self, folder: Path) -> PostgresBackend:
        return PostgresBackend(self.dsn, schema=f"s_{folder.name.lower()}")


@pytest.fixture(scope="module")
def pooler(postgres_database):
    with Pooler(postgres_database) as pooler:
        yield pooler
        assert pooler.left_behind() == []


class TestPostgresBackendBehindAPooler(BackendSuite):
    """Each transaction has another connection; on one event loop, which makes no difference here."""

    @pytest.fixture(params=["asyncio"])
    def anyio_backend(self, request):
        return request.param

    @pytest.fixture(autouse=True)
    def _pooler(self, pooler):
        type(self).dsn = pooler.dsn
        type(self).making = (
            "from sitq import PostgresBackend\n"
            f"backend = PostgresBackend({pooler.dsn!r}, schema='p_' + folder.name.lower(),"
            " listen=False, prepare=False)"
        )

    def new_backend(self, folder: Path) -> PostgresBackend:
        schema = f"p_{folder.name.lower()}"
        return PostgresBackend(self.dsn, schema=schema, listen=False, prepare=False)
