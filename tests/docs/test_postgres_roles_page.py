"""The SQL of the page on roles is run, and then each role tries what it may do, and what not."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sitq import PostgresBackend, StoreError, SyncTaskQueue, Task
from sitq.adapters.base import BatchError
from sitq.protocol.ops import (
    Cancel,
    Completed,
    Count,
    Counted,
    Enqueue,
    Fetch,
    NewTask,
    Prune,
    Pruned,
    Register,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reserve,
    Retire,
    Retired,
    Settle,
    Settled,
    Unpark,
    Unparked,
    Watch,
)
from torture.server import start_server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/postgres-roles.md").read_text()
ROLES, GRANTS, LOOK = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
CONNECT, WITH_TLS = re.findall(r"^```none\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PASSWORDS = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '(.*?)'", ROLES))
WORKER = Register("w", "host", 1, ("default",), 1, 60.0)


class Database:
    """A database that was made as the page says."""

    def __init__(self, server) -> None:
        self.server = server
        self.name = server.create_database()
        server.sql(ROLES, self.name)
        environment = os.environ | {
            "SITQ_ADMIN_DSN": self.dsn("sitq_admin"),
            "PYTHONPATH": str(ROOT),
        }
        subprocess.run([sys.executable, "-c", CONNECT], env=environment, check=True)
        self.sql("sitq_admin", GRANTS)

    def dsn(self, role):
        return self.server.dsn(self.name, user=role, password=PASSWORDS[role])

    def sql(self, role, text):
        return self.server.sql(text, self.name, user=role, password=PASSWORDS[role])

    def apply(self, role, *ops):
        store = PostgresBackend(self.dsn(role)).open_store()
        try:
            return store.apply(ops)
        finally:
            store.close()


@pytest.fixture(scope="module")
def made():
    """A server of its own: roles belong to all of its databases."""
    with start_server() as server:
        yield Database(server)


@pytest.fixture
def database(made):
    made.sql("sitq_admin", "TRUNCATE sitq.tasks, sitq.workers")
    return made


def enqueue(task_id="t"):
    return Enqueue((NewTask(task_id, b"secret", "f"),), may_exist=True)


def test_a_producer_enqueues_cancels_and_reads_results(database) -> None:
    with SyncTaskQueue(PostgresBackend(database.dsn("sitq_producer"))) as queue:
        (drawn,) = queue.enqueue_many([Task(print, 1)])
        own = queue.using(task_id="own").enqueue(print, 2)
        assert queue.using(task_id="own").enqueue(print, 2) == own
        assert queue.cancel(drawn)
        assert queue.get_results([drawn])[drawn].status == "cancelled"


def test_a_worker_does_all_that_workers_do(database) -> None:
    def apply(*ops):
        return database.apply("sitq_worker", *ops)

    apply(WORKER, enqueue("a"), enqueue("b"), enqueue("c"))
    ((task, *_),) = [reserved.tasks for reserved in apply(Reserve("w", ("default",), 2))]
    assert apply(Settle(task.key, task.id, "w", Completed(b""))) == (Settled(True),)
    assert apply(Renew("w", 60.0)) == (Renewed(),)
    apply(Cancel("c"), Cancel("b"), Watch("w"), Fetch(("a",)))
    assert apply(Rescue(("w",))) == (Rescued(("w",), 1),)
    assert apply(Retire("w"), Unpark(("x",))) == (Retired(0), Unparked(0))
    assert apply(Prune(0.0, 10)) == (Pruned(2),)  # the last one stays


def test_a_watcher_counts(database) -> None:
    database.apply("sitq_producer", enqueue())
    assert database.sql("sitq_watcher", LOOK) == [["default", "queued", "1"]]
    assert database.apply("sitq_watcher", Count()) == (Counted((("default", "queued", 1),)),)


@pytest.mark.parametrize(
    ("role", "ops"),
    [
        ("sitq_producer", [WORKER]),
        ("sitq_producer", [Reserve("w", ("default",), 1)]),
        ("sitq_producer", [Prune(0.0, 10)]),
        ("sitq_producer", [Rescue(("w",))]),
        ("sitq_watcher", [enqueue("another")]),
        ("sitq_watcher", [Cancel("t")]),
        ("sitq_watcher", [WORKER]),
        ("sitq_watcher", [Fetch(("t",))]),  # it would show the result
    ],
)
def test_what_a_role_may_not_do_is_refused_and_changes_nothing(database, role, ops) -> None:
    database.apply("sitq_worker", WORKER, enqueue())
    everything = "SELECT * FROM sitq.tasks, sitq.workers"
    before = database.sql("sitq_admin", everything)
    with pytest.raises(BatchError, match="permission denied"):
        database.apply(role, *ops)
    assert database.sql("sitq_admin", everything) == before


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        *(
            (role, statement)
            for role in ("sitq_worker", "sitq_producer", "sitq_watcher")
            for statement in (
                "CREATE TABLE sitq.mine (n int)",
                "ALTER TABLE sitq.tasks ADD COLUMN mine int",
                "DROP TABLE sitq.tasks",
                "TRUNCATE sitq.tasks",
                "UPDATE sitq.schema_version SET version = 99",
                "CREATE TRIGGER t AFTER INSERT ON sitq.tasks EXECUTE FUNCTION f()",
                "SET ROLE sitq_admin",
            )
        ),
        ("sitq_producer", "UPDATE sitq.tasks SET token = 9"),
        ("sitq_producer", "UPDATE sitq.tasks SET payload = 'evil'"),
        ("sitq_producer", "UPDATE sitq.tasks SET result = 'evil'"),
        ("sitq_producer", "INSERT INTO sitq.tasks (seq, id, token) VALUES (1, 'x', 1)"),
        ("sitq_producer", "DELETE FROM sitq.tasks"),
        ("sitq_producer", "SELECT * FROM sitq.workers"),
        ("sitq_watcher", "SELECT payload FROM sitq.tasks"),
        ("sitq_watcher", "SELECT result FROM sitq.tasks"),
        ("sitq_watcher", "SELECT error, traceback FROM sitq.tasks"),
        ("sitq_watcher", "UPDATE sitq.tasks SET state = 'queued'"),
        ("sitq_watcher", "SELECT nextval('sitq.task_numbers')"),
    ],
)
def test_sql_that_a_role_may_not_say_is_denied(database, role, statement) -> None:
    with pytest.raises(RuntimeError, match=r"permission denied|must be owner"):
        database.sql(role, statement)


def test_a_producer_is_told_in_words_what_it_may_not(database) -> None:
    with (
        SyncTaskQueue(PostgresBackend(database.dsn("sitq_watcher"))) as queue,
        pytest.raises(StoreError, match=r"nothing was stored: .*permission denied"),
    ):
        queue.enqueue(print, 1)


# -- TLS -----------------------------------------------------------------------------------


def openssl(*words) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def make_certificate(folder, name):
    """Make a certificate that stands for itself; return its path, and that of its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", 1, *subject, "-keyout", key, "-out", certificate),
    )
    return certificate, key


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def test_a_server_that_cannot_prove_who_it_is_is_not_spoken_to(tmp_path) -> None:
    options = re.search(r"\?(sslmode=\S+?)&sslrootcert=", WITH_TLS)[1]
    port = free_port()
    with start_server(port=port) as server:
        certificate, key = make_certificate(tmp_path, "own")
        other, _ = make_certificate(tmp_path, "other")
        try:
            server.use_tls(certificate.read_text(), key.read_text())
        except RuntimeError as error:
            if "SSL is not supported by this build" not in str(error):
                raise
            pytest.skip("this Postgres was built without TLS")
        where = f"host=localhost&port={port}&{options}&sslrootcert="
        PostgresBackend(server.dsn(where=f"{where}{certificate}")).open_store().close()
        with pytest.raises(StoreError, match="certificate verify failed"):
            PostgresBackend(server.dsn(where=f"{where}{other}")).open_store()
