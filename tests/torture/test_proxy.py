"""The network between a host and its server: each trouble, as both sides see it."""

import socket
import subprocess
import threading
import time
from contextlib import closing

import pytest

from torture.proxy import Proxy
from torture.waiting import wait_until


@pytest.fixture
def echo(tmp_path):
    """A server that says back what it hears; it is the path of its socket, and whom it has heard."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "echo"))
    listener.listen()
    heard: list[bytes] = []

    def serve(connection) -> None:
        with closing(connection):
            try:
                while data := connection.recv(65536):
                    heard.append(data)
                    connection.sendall(data)
                heard.append(b"<end>")
            except ConnectionError:
                heard.append(b"<reset>")

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield str(tmp_path / "echo"), heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def proxy(echo):
    with Proxy(echo[0]) as proxy:
        yield proxy


def connect(proxy):
    return closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=30))


@pytest.fixture
def client(proxy):
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(99) == b"hello"
        yield client


def hears(client, seconds=0.2) -> bool:
    """Say whether something arrives."""
    client.settimeout(seconds)
    try:
        return bool(client.recv(99))
    except TimeoutError:
        return False
    finally:
        client.settimeout(30)


def test_what_is_said_arrives_whole_and_so_does_the_end(client) -> None:
    text = bytes(range(256)) * 4000
    threading.Thread(target=client.sendall, args=(text,)).start()
    got = b""
    while len(got) < len(text):
        got += client.recv(65536)
    assert got == text
    client.shutdown(socket.SHUT_WR)
    assert client.recv(99) == b""


def test_a_cut_is_a_reset_for_the_client_and_the_end_for_the_server(proxy, client, echo) -> None:
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(99)
    wait_until(lambda: echo[1][-1] in {b"<end>", b"<reset>"})
    wait_until(lambda: proxy.connections == 0)
    with connect(proxy) as again:
        again.sendall(b"again")
        assert again.recv(99) == b"again"


def test_whoever_connects_is_refused(proxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(99)
    proxy.calm()
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(99) == b"hello"


def test_a_frozen_way_delivers_nothing_ends_nothing_and_delivers_later(proxy, client, echo) -> None:
    proxy.freeze()
    client.sendall(b"held")
    assert not hears(client)
    assert echo[1] == [b"hello"]
    proxy.thaw()
    assert client.recv(99) == b"held"


def test_the_death_of_a_client_is_not_heard_behind_a_frozen_way(proxy, client, echo) -> None:
    proxy.freeze()
    client.sendall(b"last words")
    client.close()
    time.sleep(0.2)
    assert echo[1] == [b"hello"]
    proxy.thaw()
    wait_until(lambda: len(echo[1]) > 2)
    assert echo[1][1] == b"last words"
    assert echo[1][2] in {b"<end>", b"<reset>"}


@pytest.mark.parametrize("way", ["up", "down"])
def test_one_way_freezes_alone(proxy, client, echo, way) -> None:
    proxy.freeze(up=way == "up", down=way == "down")
    client.sendall(b"held")
    assert not hears(client)
    assert echo[1] == ([b"hello"] if way == "up" else [b"hello", b"held"])
    proxy.thaw()
    assert client.recv(99) == b"held"


def test_who_connects_to_a_frozen_way_waits_and_is_served_later(proxy) -> None:
    proxy.freeze()
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert not hears(client)
        proxy.thaw()
        assert client.recv(99) == b"hello"


def test_a_delay_is_paid_by_each_answer(proxy, client) -> None:
    proxy.up.delay, proxy.down.delay = 0.1, 0.2
    began = time.monotonic()
    client.sendall(b"late")
    assert client.recv(99) == b"late"
    assert time.monotonic() - began >= 0.29


def test_a_slow_line_takes_its_time(proxy, client) -> None:
    proxy.up.bytes_per_second = 10_000
    began = time.monotonic()
    client.sendall(b"x" * 3000)
    got = b""
    while len(got) < 3000:
        got += client.recv(9999)
    assert time.monotonic() - began >= 0.29


def test_an_answer_is_lost_after_the_request_has_arrived(proxy, client, echo) -> None:
    proxy.lose_the_answer(b"COMMIT")
    client.sendall(b"something else")
    assert client.recv(99) == b"something else"
    client.sendall(b"COMMIT")
    with pytest.raises(ConnectionResetError):
        client.recv(99)
    assert b"COMMIT" in echo[1]
    assert (proxy.up.lost, proxy.down.lost) == (0, 1)


def test_a_request_is_lost_before_it_arrives(proxy, client, echo) -> None:
    proxy.lose_the_request(b"COMMIT")
    client.sendall(b"COMMIT")
    with pytest.raises(ConnectionResetError):
        client.recv(99)
    assert b"COMMIT" not in echo[1]
    assert (proxy.up.lost, proxy.down.lost) == (1, 0)


def test_a_proxy_whose_server_is_gone_resets_who_connects(tmp_path) -> None:
    nobody = str(tmp_path / "nobody")
    with Proxy(nobody) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(99)


def test_a_closed_proxy_leaves_no_thread_and_no_listener(echo) -> None:
    before = threading.active_count()
    proxy = Proxy(echo[0])
    port = proxy.port
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(99) == b"hello"
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(99)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
    wait_until(lambda: threading.active_count() <= before)


@pytest.mark.parametrize("listens_on", ["loopback", "a socket"])
def test_the_answer_to_a_commit_of_postgres_is_lost(postgres_server, listens_on) -> None:
    name = postgres_server.create_database()
    postgres_server.sql("CREATE TABLE t (n int)", name)
    folder = None if listens_on == "loopback" else postgres_server.folder / "elsewhere"
    if folder is not None:
        folder.mkdir()
    with Proxy(postgres_server.socket, folder) as proxy:

        def run(number) -> str:
            text = f"BEGIN; INSERT INTO t VALUES ({number}); COMMIT"
            psql = [postgres_server.programs / "psql", "-X", "-d"]
            psql += [postgres_server.dsn(name, where=proxy.where), "-c", text]
            return subprocess.run(psql, capture_output=True, text=True).stderr

        assert run(1) == ""
        proxy.lose_the_answer()
        assert "server closed the connection" in run(2) or "reset" in run(2)
        assert proxy.down.lost == 1
        proxy.lose_the_request(b"VALUES (3)")
        assert run(3) != ""
        assert run(4) == ""
    assert postgres_server.sql("SELECT n FROM t ORDER BY n", name) == [["1"], ["2"], ["4"]]
    postgres_server.drop_database(name)
