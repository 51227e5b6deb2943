import pytest

from tests.storage.runs import InMemory, Sql


@pytest.fixture
def sql():
    sql = Sql()
    yield sql
    sql.db.close()


@pytest.fixture(params=[Sql, InMemory], ids=["sqlite", "model"])
def store(request):
    store = request.param()
    yield store
    if isinstance(store, Sql):
        store.db.close()
