import pytest

from tests.storage.on_postgres import Postgres
from tests.storage.runs import InMemory, Sql


@pytest.fixture
def sql():
    sql = Sql()
    yield sql
    sql.db.close()


@pytest.fixture(scope="session")
def _opened_postgres(postgres_server):
    postgres = Postgres(postgres_server.dsn(postgres_server.create_database())).open()
    yield postgres
    postgres.close()


@pytest.fixture
def postgres(_opened_postgres):
    """The programs for Postgres, on empty tables."""
    _opened_postgres.empty()
    return _opened_postgres


@pytest.fixture(params=["sqlite", "postgres", "model"])
def store(request):
    match request.param:
        case "sqlite":
            yield request.getfixturevalue("sql")
        case "postgres":
            yield request.getfixturevalue("postgres")
        case "model":
            yield InMemory()
