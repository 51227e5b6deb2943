"""A private Postgres server: it starts, is hurt, comes back, and leaves nothing behind."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from torture import server as module
from torture.server import ROOT, NoServerError, is_alive, start_server
from torture.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def server():
    with start_server() as server:
        yield server


def test_databases_are_fresh_and_have_nothing_to_do_with_each_other(server) -> None:
    one, other = server.create_database(), server.create_database()
    server.sql("CREATE TABLE t (n int)", one)
    assert server.sql("SELECT count(*) FROM pg_tables WHERE tablename = 't'", other) == [["0"]]
    copy = server.create_database(template=one)
    assert server.sql("SELECT count(*) FROM t", copy) == [["0"]]
    server.drop_database(one)
    with pytest.raises(RuntimeError, match=f'database "{one}" does not exist'):
        server.sql("SELECT 1", one)


def test_it_keeps_out_who_has_no_password(server) -> None:
    wrong = server.dsn(password="guessed")
    psql = subprocess.run([server.programs / "psql", "-d", wrong], capture_output=True, text=True)
    assert "password authentication failed" in psql.stderr
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_it_comes_back_with_what_was_committed(server, mode) -> None:
    server.sql("CREATE TABLE t AS SELECT 7 AS n")
    server.restart(mode)
    assert server.sql("SELECT n FROM t") == [["7"]]


def test_it_comes_back_after_all_of_its_processes_were_killed(server) -> None:
    server.sql("CREATE TABLE t AS SELECT 7 AS n")
    children = server.children()
    server.kill()
    assert children
    assert not any(map(is_alive, children))
    assert not server.is_running()
    server.start()
    assert server.sql("SELECT n FROM t") == [["7"]]


def test_it_is_made_read_only_and_back(server) -> None:
    server.read_only(True)
    with pytest.raises(RuntimeError, match="read-only transaction"):
        server.sql("CREATE TABLE t (n int)")
    server.read_only(False)
    server.sql("CREATE TABLE t (n int)")


@pytest.mark.parametrize("how", ["terminate_connections", "kill_a_backend"])
def test_connections_are_ended(server, how) -> None:
    name = server.create_database()
    client = subprocess.Popen(
        [server.programs / "psql", "-d", server.dsn(name)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with client:
        client.stdin.write(b"SELECT 1;\n")
        client.stdin.flush()
        assert b"?column?" in client.stdout.readline()
        assert getattr(server, how)(name)
        client.stdin.write(b"SELECT 1;\n")
        client.stdin.close()
        assert client.wait() == 2
    server.wait_until_it_answers()
    assert server.sql("SELECT 1") == [["1"]]


def test_nothing_is_left_after_it_was_closed() -> None:
    with start_server() as server:
        children = server.children()
    assert not server.folder.exists()
    assert not any(map(is_alive, children))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_who_started_it_is_killed(number) -> None:
    text = (
        "import time; from torture.server import start_server; s = start_server();"
        "print(s.folder, *s.children(), flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with starter:
        folder, *children = starter.stdout.readline().split()
        assert children
        starter.send_signal(number)
    wait_until(lambda: not Path(folder).exists())
    assert not any(is_alive(int(pid)) for pid in children)


@pytest.fixture
def made(monkeypatch):
    """The folders that were made meanwhile."""
    made = []
    mkdtemp = module.tempfile.mkdtemp

    def mkdtemp_noted(**how):
        made.append(Path(mkdtemp(**how)))
        return str(made[-1])

    monkeypatch.setattr(module.tempfile, "mkdtemp", mkdtemp_noted)
    return made


def test_without_programs_it_says_what_to_do(monkeypatch, tmp_path, made) -> None:
    monkeypatch.setenv(module.BIN, str(tmp_path))
    with pytest.raises(NoServerError, match="install one of them"):
        start_server()
    assert [folder.exists() for folder in made] == [False]


def test_programs_in_a_folder_of_root_alone_are_copied(monkeypatch, tmp_path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has folders that its Postgres may not enter")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "installed").symlink_to(module.find_programs().parent)
    monkeypatch.setenv(module.BIN, str(closed / "installed" / "bin"))
    with start_server() as server:
        assert server.programs.is_relative_to(server.folder)
        assert server.sql("SELECT 1") == [["1"]]


def test_one_that_cannot_start_shows_its_log_and_leaves_nothing(made) -> None:
    with pytest.raises(RuntimeError, match='unrecognized configuration parameter "no_such"'):
        start_server({"no_such": "setting"})
    assert [folder.exists() for folder in made] == [False]
