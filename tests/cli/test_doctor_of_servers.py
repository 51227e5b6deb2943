"""`sitq doctor` of servers that cannot be had, or are hurt: each with what to do.

They have a server of their own, which trusts some roles, and is hurt.
"""

import json
import re
import shutil
from contextlib import ExitStack

import pytest

from sitq import PostgresBackend, SyncTaskQueue
from sitq.cli import doctor_pooler, doctor_upkeep, server_refusals
from tests.cli.conftest import wait_for
from tests.docs.test_postgres_roles_page import (
    GRANTS,
    PASSWORDS,
    ROLES,
    free_port,
    make_certificate,
)
from tests.private_postgres import running_server
from torture.pooler import ANNOUNCED_PID, Pooler
from torture.server import FAST

TRUSTED = "local all trusted trust\n"
NEVER_SWEPT = {"autovacuum_naptime": "1h", "max_prepared_transactions": "2"}


@pytest.fixture(scope="module")
def server():
    with running_server(FAST | NEVER_SWEPT, free_port()) as server:
        hba = server.data / "pg_hba.conf"
        hba.write_text(TRUSTED + hba.read_text().replace("host ", "#host "))
        with hba.open("a") as lines:
            lines.write("host all sitq 127.0.0.1/32 scram-sha-256\n")
        server.sql("CREATE ROLE trusted LOGIN SUPERUSER")
        server.sql("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def database(server):
    """A database with our tables in it."""
    name = server.create_database()
    PostgresBackend(server.dsn(name)).open_store().close()
    yield name
    server.drop_database(name)


@pytest.fixture
def findings(typed, server):
    """Return what the doctor says, by what it is about; never with a password."""

    def examine(url: str, *args: object, code: int = 0) -> dict[str, dict]:
        printed = typed("doctor", url, *args, "--json", code=code)
        for secret in (server.password, "wrong-one", *PASSWORDS.values()):
            assert secret not in printed
        worst_last = sorted(json.loads(printed), key=lambda f: f["verdict"] != "OK")
        return {finding["about"]: finding for finding in worst_last}

    return examine


def failed(found: dict[str, dict]) -> dict[str, dict]:
    return {about: finding for about, finding in found.items() if finding["verdict"] == "FAIL"}


# -- it cannot be connected to ------------------------------------------------------------


def test_each_reason_why_there_is_no_connection_has_its_remedy(findings, server, database) -> None:
    server.sql(
        "CREATE ROLE asleep NOLOGIN PASSWORD 'wrong-one'; CREATE ROLE one LOGIN CONNECTION LIMIT 0"
        f" PASSWORD 'wrong-one'; REVOKE CONNECT ON DATABASE {database} FROM PUBLIC;"
        " CREATE ROLE guest LOGIN PASSWORD 'wrong-one'"
    )
    tcp = f"host=127.0.0.1&port={server.port}"
    cases = {
        server.dsn(database, password="wrong-one"): ("password", "~/.pgpass"),
        server.dsn("nowhere"): ("database", "CREATE DATABASE"),
        server.dsn(user="asleep", password="wrong-one"): ("role", "ALTER ROLE"),
        server.dsn(user="one", password="wrong-one"): ("connections", "CONNECTION LIMIT"),
        server.dsn(database, user="guest", password="wrong-one"): ("database", "GRANT CONNECT"),
        server.dsn(where=f"{tcp}&sslmode=require"): ("TLS", "ssl = on"),
        server.dsn(user="guest", password="wrong-one", where=tcp): ("admission", "pg_hba.conf"),
        server.dsn(where=f"host=127.0.0.1&port={free_port()}"): ("server", "host and port"),
        server.dsn(where="host=/nowhere"): ("server", "host and port"),
    }
    for url, (about, to_do) in cases.items():
        found = failed(findings(url, code=1))
        assert found.keys() == {about}, (url, found)
        assert to_do in found[about]["to_do"]
        assert found[about]["found"].startswith("cannot connect to host=")


def test_stats_that_cannot_connect_say_why_without_the_password(typed, server) -> None:
    out = typed("stats", server.dsn(password="wrong-one"), code=1)

    assert "password authentication failed" in out
    assert "wrong-one" not in out


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ('FATAL:  role "me" does not exist', "role"),
        ("FATAL:  the database system is starting up", "server"),
        ("FATAL:  sorry, too many clients already", "connections"),
        ("SSL error: certificate verify failed", "TLS"),
        ("could not translate host name", "server"),
        ("connection timeout expired", "server"),
        ("qzx", "server"),
    ],
)
def test_what_libpq_says_is_understood(said, about) -> None:
    assert server_refusals.why(said).about == about


def test_what_nobody_knows_is_not_taken_for_something_else() -> None:
    assert server_refusals.why("qzx") is server_refusals.UNKNOWN


# -- roles --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roles(server):
    """The roles of the page, on a database that was made as it says."""
    name = server.create_database()
    server.sql(ROLES, name)
    admin = {"user": "sitq_admin", "password": PASSWORDS["sitq_admin"]}
    PostgresBackend(server.dsn(name, **admin)).open_store().close()
    server.sql(GRANTS, name, **admin)

    def dsn(role: str) -> str:
        return server.dsn(name, user=role, password=PASSWORDS[role])

    dsn.sql = lambda text: server.sql(text, name)
    return dsn


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("sitq_admin", "run tasks; enqueue and read results; cancel; see how tasks stand"),
        ("sitq_worker", "run tasks; enqueue and read results; cancel; see how tasks stand"),
        ("sitq_producer", "enqueue and read results; cancel"),
        ("sitq_watcher", "see how tasks stand"),
    ],
)
def test_the_roles_of_the_page_are_in_order(findings, roles, role, may) -> None:
    found = findings(roles(role))

    assert found["privileges"]["verdict"] == "OK"
    assert found["privileges"]["found"] == f"{role} may {may}"
    assert not [f for f in found.values() if "could not be looked at" in f["found"]]


def test_a_watcher_sees_the_stats(typed, roles) -> None:
    assert json.loads(typed("stats", roles("sitq_watcher"), "--json"))["tasks"] == []


def test_a_producer_is_told_which_grants_stats_want(typed, findings, roles) -> None:
    out = typed("stats", roles("sitq_producer"), code=1)
    assert "permission denied for table workers" in out
    assert "`sitq doctor`" in out

    told = findings(roles("sitq_producer"))["tasks"]["to_do"]
    assert told == 'as sitq_admin: GRANT SELECT ON sitq.workers TO "sitq_producer"'


@pytest.mark.parametrize(
    ("role", "grant"),
    [
        ("sitq_worker", "DELETE ON sitq.tasks"),
        ("sitq_worker", "USAGE ON sitq.task_numbers"),
        ("sitq_worker", "INSERT ON sitq.workers"),
        ("sitq_producer", "USAGE ON sitq.task_numbers"),
        ("sitq_producer", "SELECT ON sitq.tasks"),
        ("sitq_watcher", "SELECT ON sitq.workers"),
        ("sitq_watcher", "SELECT ON sitq.schema_version"),
        ("sitq_watcher", "USAGE ON SCHEMA sitq"),
    ],
)
def test_a_grant_that_is_missing_is_named_and_helps(findings, roles, role, grant) -> None:
    roles.sql(f"REVOKE {grant} FROM {role}")
    printed = findings(roles(role), code=1)["privileges"]["to_do"]
    assert f'GRANT {grant} TO "{role}"' in printed

    roles.sql("; ".join(re.findall(r"GRANT [^;]*", printed)))
    assert findings(roles(role))["privileges"]["verdict"] == "OK"


def test_a_producer_that_never_cancels_is_in_order(findings, roles) -> None:
    columns = "(state, reason, finished_ms, cancel_asked) ON sitq.tasks"
    roles.sql(f"REVOKE UPDATE {columns} FROM sitq_producer")
    found = findings(roles("sitq_producer"))["privileges"]
    roles.sql(f"GRANT UPDATE {columns} TO sitq_producer")

    assert found["found"] == "sitq_producer may enqueue and read results"


def test_who_may_not_make_the_schema_is_told_so(findings, roles) -> None:
    found = findings(roles("sitq_watcher"), "--schema", "nowhere", code=1)["schema"]

    assert "GRANT CREATE ON DATABASE" in found["to_do"]


# -- a server that only reads -------------------------------------------------------------


def test_a_server_that_refuses_to_write_is_looked_at_all_the_same(
    findings, typed, server, database
) -> None:
    with SyncTaskQueue(PostgresBackend(server.dsn(database))) as queue:
        queue.enqueue(len, "abc")
    server.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    found = findings(server.dsn(database), code=1)

    assert failed(found).keys() == {"writing"}
    assert "default_transaction_read_only" in found["writing"]["to_do"]
    assert found["waiting"]["found"].startswith("1 tasks are due")
    assert "queued" in typed("stats", server.dsn(database))


def test_a_standby_is_known(findings, typed) -> None:
    with running_server() as server:
        PostgresBackend(server.dsn()).open_store().close()
        server.stop()
        signal = server.data / "standby.signal"
        signal.touch()
        shutil.copystat(server.data / "PG_VERSION", signal)
        server._account.own(signal)
        server.start()
        printed = typed("doctor", server.dsn(), "--json", code=1)
        found = {finding["about"]: finding for finding in json.loads(printed)}

        assert failed(found).keys() == {"writing"}
        assert "is a standby" in found["writing"]["found"]
        assert "host=db1,db2" in found["writing"]["to_do"]
        assert "LISTEN" not in found  # a standby knows none
        assert "no tasks" in typed("stats", server.dsn())


# -- poolers, and LISTEN ------------------------------------------------------------------


@pytest.fixture
def pooler(server, database):
    with ExitStack() as poolers:

        def make(**options) -> str:
            return poolers.enter_context(Pooler(server.dsn(database), **options)).dsn

        yield make


@pytest.fixture
def in_a_second(monkeypatch):
    monkeypatch.setattr(doctor_pooler, "PATIENCE", 1.0)


@pytest.mark.usefixtures("in_a_second")
@pytest.mark.parametrize(
    "pool", [{"size": 1}, {"size": 3, "gives": "last used"}, {"size": 3, "gives": "longest idle"}]
)
def test_a_pooler_in_transaction_mode_is_known(findings, server, pooler, database, pool) -> None:
    found = findings(pooler(**pool))

    assert found["pooler"]["verdict"] == found["LISTEN"]["verdict"] == "WARN"
    assert "another connection" in found["pooler"]["found"]
    assert "listen=False, prepare=False" in found["pooler"]["to_do"]
    left = server.sql(
        f"SELECT query FROM pg_stat_activity WHERE datname = '{database}'"
        " AND (query LIKE '%LISTEN \"sitq_doctor%' OR state <> 'idle')"
    )
    assert left == []  # in the connections, which others get next


def test_a_pooler_in_session_mode_does_no_harm(findings, pooler) -> None:
    found = findings(pooler(by="session", size=4))

    assert found["pooler"]["verdict"] == found["LISTEN"]["verdict"] == "OK"
    assert "keeps sessions together" in found["pooler"]["found"]


def test_the_pooler_of_these_tests_is_one(pooler) -> None:
    import psycopg

    with psycopg.connect(pooler(by="session", size=1)) as client:
        assert client.info.backend_pid == ANNOUNCED_PID
        assert client.execute("SELECT pg_backend_pid()").fetchall() != [(ANNOUNCED_PID,)]


@pytest.mark.usefixtures("in_a_second")
def test_notifications_that_get_lost_are_told(findings, server, database, monkeypatch) -> None:
    from sitq.adapters.postgres_connection import Connection

    monkeypatch.setattr(Connection, "heard", lambda self: [])
    lost = findings(server.dsn(database))["LISTEN"]

    assert lost["verdict"] == "WARN"
    assert "listen=False" in lost["to_do"]


# -- upkeep -------------------------------------------------------------------------------


def test_dead_rows_that_nobody_sweeps_are_counted(findings, server, database) -> None:
    server.sql(
        "INSERT INTO sitq.tasks (seq, id, queue, name, state, priority, run_at_ms, enqueued_ms,"
        " payload, max_crashes) SELECT n, n::text, 'default', 'f', 'success', 0, 0, 0, '', 3"
        " FROM generate_series(1, 60000) AS n; UPDATE sitq.tasks SET attempt = 1",
        database,
    )
    found = wait_for(
        lambda: (f := findings(server.dsn(database))["dead rows"])["verdict"] == "WARN" and f
    )
    assert found["found"].startswith("sitq.tasks: 60,000 dead rows beside 60,000")
    assert "VACUUM (ANALYZE) sitq.tasks" in found["to_do"]


def test_autovacuum_that_is_switched_off_is_named(findings, server, database) -> None:
    url = server.dsn(database)
    server.sql("ALTER TABLE sitq.tasks SET (autovacuum_enabled = off)", database)
    found = findings(url, code=1)["autovacuum"]
    assert found["verdict"] == "FAIL"
    assert found["to_do"] == "ALTER TABLE sitq.tasks RESET (autovacuum_enabled)"
    server.sql(found["to_do"], database)
    assert "autovacuum" not in findings(url)

    server.configure(autovacuum="off")
    try:
        found = findings(url, code=1)["autovacuum"]
        assert found["found"] == "autovacuum is off on this server"
    finally:
        server.configure(autovacuum="on")


def test_a_prepared_transaction_that_nobody_ends_is_named(
    findings, server, database, monkeypatch
) -> None:
    monkeypatch.setattr(doctor_upkeep, "LONG_S", 0.0)
    server.sql("BEGIN; CREATE TABLE held (n int); PREPARE TRANSACTION 'mine'", database)
    found = findings(server.dsn(database))["old transactions"]
    server.sql("ROLLBACK PREPARED 'mine'", database)

    assert found["verdict"] == "WARN"
    assert "'mine'" in found["found"]
    assert "ROLLBACK PREPARED" in found["to_do"]


def test_who_does_not_see_the_transactions_of_others_is_told_so(findings, roles) -> None:
    found = findings(roles("sitq_worker"))["old transactions"]

    assert found["verdict"] == "OK"
    assert "GRANT pg_read_all_stats" in found["to_do"]


def test_a_commit_that_may_be_undone_is_told(findings, server, database) -> None:
    server.sql(f"ALTER DATABASE {database} SET synchronous_commit = off")
    found = findings(server.dsn(database))["durability"]

    assert (found["verdict"], found["to_do"]) == ("WARN", "set synchronous_commit = on")


def test_a_network_without_tls_is_warned_of(findings, server, database) -> None:
    tcp = server.dsn(database, where=f"host=127.0.0.1&port={server.port}")

    assert findings(tcp)["TLS"]["verdict"] == "WARN"
    assert findings(server.dsn(database))["TLS"]["verdict"] == "OK"


def test_a_server_that_need_not_prove_who_it_is_is_warned_of(typed, tmp_path) -> None:
    port = free_port()
    with running_server(FAST, port) as server:
        certificate, key = make_certificate(tmp_path, "own")
        other, _ = make_certificate(tmp_path, "other")
        try:
            server.use_tls(certificate.read_text(), key.read_text())
        except RuntimeError as error:
            if "SSL is not supported by this build" not in str(error):
                raise
            pytest.skip("this Postgres was built without TLS")
        PostgresBackend(server.dsn()).open_store().close()

        def tls(options: str, code: int = 0) -> tuple[str, str]:
            url = server.dsn(where=f"host=localhost&port={port}&{options}")
            found = json.loads(typed("doctor", url, "--json", code=code))
            (finding,) = (finding for finding in found if finding["about"] == "TLS")
            return finding["verdict"], finding["found"]

        assert tls("sslmode=require")[0] == "WARN"
        proved = f"sslmode=verify-full&sslrootcert={certificate}"
        assert tls(proved) == ("OK", "it is on, and the server has proved who it is")
        verdict, found = tls(f"sslmode=verify-full&sslrootcert={other}", code=1)
        assert verdict == "FAIL"
        assert "certificate verify failed" in found


def test_a_part_that_fails_spoils_no_other(findings, server, database) -> None:
    server.sql(
        "REVOKE EXECUTE ON FUNCTION pg_notification_queue_usage() FROM PUBLIC;"
        " CREATE ROLE plain LOGIN PASSWORD 'wrong-one'",
        database,
    )
    found = findings(server.dsn(database, user="plain", password="wrong-one"), code=1)

    assert "it could not be looked at: permission denied" in found["pooler"]["found"]
    assert found["clock"]["verdict"] == "OK"
