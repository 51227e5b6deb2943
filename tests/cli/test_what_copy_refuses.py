"""`sitq copy`: stores that it does not move from, or to, and leaves as they are."""

import pytest

from sitq import PostgresBackend, SQLiteBackend, SyncTaskQueue


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file with a task, in the current directory."""
    monkeypatch.chdir(tmp_path)
    with SyncTaskQueue(SQLiteBackend("a.db")) as queue:
        queue.enqueue(len, "ab")
    return tmp_path / "a.db"


@pytest.fixture
def url(postgres_dsn) -> str:
    """A database with a task."""
    with SyncTaskQueue(PostgresBackend(postgres_dsn)) as queue:
        queue.enqueue(len, "ab")
    return postgres_dsn


def test_a_file_that_is_not_there_is_not_made(typed, tmp_path) -> None:
    assert "there is no file" in typed("copy", tmp_path / "no.db", tmp_path / "b.db", code=1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_queue_yet_is_not_made_one(typed, tmp_path) -> None:
    (tmp_path / "empty.db").touch()

    out = typed("copy", tmp_path / "empty.db", tmp_path / "b.db", code=1)
    assert "is empty: no queue has used it yet" in out
    assert [(p.name, p.stat().st_size) for p in tmp_path.iterdir()] == [("empty.db", 0)]


def test_a_schema_that_is_not_there_is_not_made(typed, tmp_path, url) -> None:
    for _ in range(2):  # by the first it was not made either
        out = typed("copy", url, tmp_path / "b.db", "--schema", "mistyped", code=1)
        assert "schema=mistyped has no tables of sitq" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.db", "./a.db", "{}", "link.db", "hard.db"])
def test_a_file_is_not_moved_to_itself_by_whichever_name(typed, path, name) -> None:
    path.with_name("link.db").symlink_to("a.db")
    path.with_name("hard.db").hardlink_to(path)

    out = typed("copy", "a.db", name.format(path), code=1)
    assert "are the same store" in out
    assert "Name another one" in out
    assert "queued" in typed("stats", "a.db")


def test_a_database_is_not_moved_to_itself_by_whichever_url(typed, url, postgres_server) -> None:
    other = url.replace("postgresql://", "postgres://") + "&application_name=mover"
    for target in (url, other):
        out = typed("copy", url, target, code=1)
        assert "are the same store" in out
        assert postgres_server.password not in out
    assert "queued" in typed("stats", url)
