"""`sitq stats` and `sitq doctor` of a queue in Postgres that is well, or whose tasks are not."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest

from sitq import PostgresBackend, SQLiteBackend, SyncTaskQueue
from sitq.adapters import clocks
from sitq.cli import doctor_upkeep
from sitq.protocol.ops import Register, Reserve
from sitq.storage import moving, postgres_schema
from sitq.storage.moving import postgres

ENVIRONMENT = {"platform", "packages"}


@pytest.fixture
def url(postgres_dsn):
    """A queue with some tasks."""
    with SyncTaskQueue(PostgresBackend(postgres_dsn)) as queue:
        for _ in range(3):
            queue.enqueue(len, "abc")
        queue.using(delay=timedelta(hours=1), queue="mail").enqueue(len, "abc")
    return postgres_dsn


@pytest.fixture
def sql(postgres_server, url):
    database = url.partition("@/")[2].partition("?")[0]
    return lambda text: postgres_server.sql(text, database)


@pytest.fixture
def apply(url):
    store = PostgresBackend(url).open_store()
    yield lambda *ops: store.apply(ops)
    store.close()


@pytest.fixture
def findings(typed, postgres_server):
    """Return what the doctor says of a queue, by what it is about; never with the password."""

    def examine(*args: object, code: int = 0) -> dict[str, dict]:
        printed = typed("doctor", *args, "--json", code=code)
        assert postgres_server.password not in printed
        found = json.loads(printed)
        return {finding["about"]: finding for finding in found}

    return examine


# -- stats --------------------------------------------------------------------------------


def test_stats_of_a_server_are_those_of_a_file(typed, url, tmp_path) -> None:
    from sitq import SQLiteBackend

    path = tmp_path / "tasks.db"
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        for _ in range(3):
            queue.enqueue(len, "abc")
        queue.using(delay=timedelta(hours=1), queue="mail").enqueue(len, "abc")

    of_file, of_server = (json.loads(typed("stats", at, "--json")) for at in (path, url))
    assert of_server.pop("schema") == "sitq"
    assert re.fullmatch(r"host=\S+ port=5432 dbname=d\d+ user=sitq", of_server.pop("server"))
    del of_file["file"]
    assert of_server.keys() == of_file.keys()
    assert of_server["tasks"] == of_file["tasks"]
    assert 0 <= of_server["oldest_waiting_s"] < 60
    assert 3500 < of_server["next_due_s"] <= 3600


def test_stats_of_a_server_for_people(typed, url, postgres_server) -> None:
    out = typed("stats", url)

    assert "│ default │ queued    │     3 │" in out
    assert "│ mail    │ scheduled │     1 │" in out
    assert "the oldest waiting task has been due for" in out
    assert "the next scheduled task is due in 3," in out
    assert "no worker is at work on this schema" in out
    assert "schema=sitq" in out
    assert postgres_server.password not in out


def test_a_worker_lives_until_its_lease_runs_out(typed, findings, url, sql, apply) -> None:
    apply(Register("w", "elsewhere", 77, ("default", "mail"), 4, 60.0))
    apply(Reserve("w", ("default",), 1))

    (seen,) = json.loads(typed("stats", url, "--json"))["workers"]
    assert 50 < seen.pop("lease_s") <= 60
    assert seen == {
        "id": "w", "host": "elsewhere", "pid": 77, "queues": ["default", "mail"], "slots": 4,
        "running": 1, "alive": True,
    }  # fmt: skip
    assert findings(url)["workers"]["found"] == "1 at work"

    sql("UPDATE sitq.workers SET lease_until_ms = 0")
    (seen,) = json.loads(typed("stats", url, "--json"))["workers"]
    assert seen["alive"] is False
    assert "dead" in typed("stats", url)
    dead = findings(url)["workers"]
    assert (dead["verdict"], dead["found"]) == ("WARN", "1 died (pid 77), holding 1")


def test_a_worker_of_this_host_is_seen_dead_before_its_lease_is_out(
    typed, url, apply, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    apply(Register("w", clocks.host(), 77, ("default",), 1, 60.0))
    assert json.loads(typed("stats", url, "--json"))["workers"][0]["alive"] is True

    (tmp_path / "sitq-workers" / "w.lock").touch(mode=0o600)  # and nobody holds it
    assert json.loads(typed("stats", url, "--json"))["workers"][0]["alive"] is False


def test_stats_of_another_schema(typed, url) -> None:
    with SyncTaskQueue(PostgresBackend(url, schema="reports")) as queue:
        queue.enqueue(len, "abc")

    found = json.loads(typed("stats", url, "--schema", "reports", "--json"))
    assert found["tasks"] == [{"queue": "default", "state": "queued", "tasks": 1}]
    assert "has no tables of sitq" in typed("stats", url, "--schema", "nowhere", code=1)


def test_stats_make_no_schema_and_change_nothing(typed, url, sql) -> None:
    everything = (
        "SELECT nspname FROM pg_namespace ORDER BY 1",
        "SELECT * FROM sitq.tasks ORDER BY seq",
        "SELECT last_value FROM sitq.task_numbers",
    )
    before = [sql(text) for text in everything]
    typed("stats", url)
    typed("stats", url, "--schema", "nowhere", code=1)
    typed("doctor", url)
    typed("doctor", url, "--schema", "nowhere", code=1)

    assert [sql(text) for text in everything] == before


@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_a_schema_is_for_a_server(typed, command, tmp_path) -> None:
    out = typed(command, tmp_path / "x.db", "--schema", "mine", code=1)
    assert "--schema is for a database's URL, and" in out


def test_a_schema_without_a_queue_is_nothing_to_look_at(typed) -> None:
    assert "--schema is for a database's URL, and none was given" in typed(
        "doctor", "--schema", "mine", code=1
    )


@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_a_url_that_is_none_is_told_without_its_password(typed, command) -> None:
    out = typed(command, "postgresql://me:secret@[/x", code=1)

    assert "dsn must be such as" in out
    assert "secret" not in out


MEANT = ["postgresql+psycopg://me:secret@host/x", "Postgres://me:secret@host/x", "sqlite:///secret"]
PAIRS = ["host=db dbname=shop password=secret", "dbname=secret"]


@pytest.mark.parametrize("where", MEANT + PAIRS)
def test_what_was_meant_as_a_database_is_not_taken_for_a_file(
    typed, tmp_path, monkeypatch, where
) -> None:
    monkeypatch.chdir(tmp_path)
    with SyncTaskQueue(SQLiteBackend("tasks.db")) as queue:
        queue.enqueue(len, "abc")
    commands = (["stats", where], ["doctor", where], ["backup", "tasks.db", where])
    for command in (*commands, ["copy", where, "tasks.db"], ["copy", "tasks.db", where]):
        out = typed(*command, code=1)
        assert "postgresql://" in out
        assert "secret" not in out
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["tasks.db"]


@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_without_psycopg_it_is_said_how_to_install_it(typed, command, monkeypatch) -> None:
    monkeypatch.setitem(os.sys.modules, "sitq.adapters.postgres_connection", None)

    assert "pip install '.[postgres]'" in typed(command, "postgresql://x", code=1)


# -- doctor -------------------------------------------------------------------------------


def test_doctor_finds_a_new_queue_in_good_health(findings, typed, url) -> None:
    found = findings(url)

    assert found.keys() == ENVIRONMENT | {
        "server", "TLS", "writing", "schema", "privileges", "workers", "waiting", "pooler",
        "LISTEN", "dead rows", "old transactions", "connections", "clock", "durability",
    }  # fmt: skip
    bad = {about for about, finding in found.items() if finding["verdict"] != "OK"}
    # Nobody works on it yet; and a server for tests need not survive a power cut.
    assert bad == {"waiting", "durability"}
    assert found["waiting"]["found"] == "3 tasks are due in 'default', and no worker serves it"
    assert found["server"]["found"].startswith("PostgreSQL ")
    assert "psycopg " in found["packages"]["found"]
    assert "sitq.workers: " in found["dead rows"]["found"]
    out = typed("doctor", url)
    assert "3 WARN, 0 FAIL" in out


def test_doctor_names_parked_tasks_with_their_reason(findings, url, sql) -> None:
    sql("UPDATE sitq.tasks SET state = 'parked', error = 'no such module' WHERE queue = 'mail'")

    parked = findings(url)["parked tasks"]
    assert (parked["verdict"], parked["found"]) == ("WARN", "1: no such module")


def test_doctor_tells_tasks_that_a_copy_has_left_from_those_that_nobody_can_read(
    findings, url
) -> None:
    store = PostgresBackend(url).open_store()
    ids = store.run(lambda: moving.movable(postgres("sitq"), 2))
    store.run(lambda: moving.fence(postgres("sitq"), ids))
    store.close()

    parked = findings(url)["parked tasks"]
    assert parked["found"] == "2: on their way in a `sitq copy`"
    assert "do the same `sitq copy` again" in parked["to_do"]


def test_doctor_knows_a_schema_of_another_version(findings, typed, url, sql, monkeypatch) -> None:
    monkeypatch.setattr(postgres_schema, "VERSION", postgres_schema.VERSION + 1)
    older = findings(url)["schema"]
    assert older["verdict"] == "WARN"
    assert "it is migrated when a program connects as sitq" in older["to_do"]

    sql("UPDATE sitq.schema_version SET version = 99")
    newer = findings(url, code=1)["schema"]
    assert (newer["verdict"], newer["to_do"]) == ("FAIL", "upgrade sitq here, too")
    assert "has version 99" in newer["found"]
    assert "Upgrade sitq here, too" in typed("stats", url, code=1)


def test_doctor_knows_a_schema_that_is_not_there_or_not_ours(findings, url, sql) -> None:
    missing = findings(url, "--schema", "nowhere", code=1)["schema"]
    assert "there is no schema 'nowhere'" in missing["found"]
    assert "when a program with this URL connects" in missing["to_do"]

    sql("CREATE SCHEMA bare; CREATE SCHEMA theirs; CREATE TABLE theirs.invoices (n int)")
    assert "no tables of sitq" in findings(url, "--schema", "bare", code=1)["schema"]["found"]
    theirs = findings(url, "--schema", "theirs", code=1)["schema"]
    assert "another program's (it holds invoices)" in theirs["found"]


def test_doctor_refuses_a_server_that_is_too_old(findings, url, monkeypatch) -> None:
    monkeypatch.setattr(postgres_schema, "OLDEST_SERVER", 990000)

    assert "needs 99 or newer" in findings(url, code=1)["schema"]["found"]


@pytest.mark.parametrize(
    ("hours", "words"), [(-1, "s behind the server's"), (1, "s ahead of the server's")]
)
def test_a_clock_that_differs_is_a_note(findings, url, monkeypatch, hours, words) -> None:
    real = clocks.wall_ms
    monkeypatch.setattr(clocks, "wall_ms", lambda: real() + hours * 3_600_000)

    clock = findings(url)["clock"]
    assert clock["verdict"] == "OK"
    assert re.search(rf"3,(600\.\d|599\.\d) {words}", clock["found"])


def test_few_connections_that_are_left_are_told(findings, url, monkeypatch) -> None:
    assert findings(url)["connections"]["verdict"] == "OK"

    monkeypatch.setattr(doctor_upkeep, "CROWDED", 0.01)
    few = findings(url)["connections"]
    assert few["verdict"] == "WARN"
    assert re.match(r"\d+ of 97 are taken", few["found"])


def test_a_transaction_that_keeps_dead_rows_is_named(findings, url, sql, monkeypatch) -> None:
    import psycopg

    monkeypatch.setattr(doctor_upkeep, "LONG_S", 0.0)
    with psycopg.connect(url) as held:
        held.execute("SELECT 1")  # in a transaction by now, but nothing is kept for it
        assert findings(url)["old transactions"]["verdict"] == "OK"
        held.execute("CREATE TABLE kept (n int)")
        pid = held.info.backend_pid
        found = findings(url)["old transactions"]
        assert found["verdict"] == "WARN"
        assert re.search(
            rf"1 for longer than 0 s: pid {pid} of sitq \(idle in trans", found["found"]
        )
    assert findings(url)["old transactions"]["verdict"] == "OK"


def test_what_the_page_says_dumps_a_queue_and_restores_it(postgres_server, url) -> None:
    if not (postgres_server.programs / "pg_dump").exists():
        pytest.skip("no pg_dump beside this server")
    page = (Path(__file__).parents[2] / "docs/how-to/postgres.md").read_text()
    commands = re.findall(r"^(pg_dump|pg_restore) (.*)$", page, re.MULTILINE)
    restored = postgres_server.create_database()
    for (program, options), to in zip(commands, (url, postgres_server.dsn(restored)), strict=True):
        typed = re.sub(r"postgresql://\S+", to, options).split()
        postgres_server._run(postgres_server.programs / program, *typed)

    with SyncTaskQueue(PostgresBackend(postgres_server.dsn(restored))) as queue:
        assert queue.using(task_id="new").enqueue(len, "abc") == "new"
    counted = "SELECT queue, count(*), count(DISTINCT seq) FROM sitq.tasks GROUP BY 1 ORDER BY 1"
    assert postgres_server.sql(counted, restored) == [["default", "4", "4"], ["mail", "1", "1"]]
    postgres_server.drop_database(restored)
