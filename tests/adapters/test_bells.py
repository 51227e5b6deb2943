"""Bells between processes: rung, heard, missed, left behind; and nothing that goes wrong is raised."""

import errno
import gc
import os
import socket
from pathlib import Path

import pytest

from sitq.adapters import bells as module
from sitq.adapters.bells import IDS_IN_A_RING, NoBells, SocketFiles, Want


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "bells"


@pytest.fixture
def hung(folder):
    """Two bells of somebody else."""
    other = SocketFiles(str(folder))
    bells = {want: other.hang(want) for want in Want}
    yield bells
    for bell in bells.values():
        bell.take_down()


def files(folder) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def rung(bell) -> bool:
    try:
        return os.read(bell.descriptor, 100) is not None
    except BlockingIOError:
        return False


def test_a_ring_is_heard_by_those_who_want_it(folder, hung) -> None:
    SocketFiles(str(folder)).ring(Want.WORK)

    assert not rung(hung[Want.ENDS])
    assert rung(hung[Want.WORK])
    assert not rung(hung[Want.WORK])


def test_ids_arrive_however_many_there_are(folder, hung) -> None:
    ids = [f"task {n}" for n in range(2 * IDS_IN_A_RING + 1)]
    SocketFiles(str(folder)).ring(Want.ENDS, ids)
    heard = []
    while more := hung[Want.ENDS].heard():
        heard += more
    assert heard == ids


def test_one_does_not_ring_for_oneself_and_another_of_the_same_process_does(folder) -> None:
    mine = SocketFiles(str(folder))
    bell = mine.hang(Want.WORK)
    mine.ring(Want.WORK)
    assert not rung(bell)
    SocketFiles(str(folder)).ring(Want.WORK)
    assert rung(bell)
    bell.take_down()


def test_one_that_was_hung_since_is_found_at_once(folder, hung) -> None:
    ringing = SocketFiles(str(folder))
    for _ in range(20):
        ringing.ring(Want.WORK)
        newcomer = SocketFiles(str(folder)).hang(Want.WORK)
        ringing.ring(Want.WORK)
        assert rung(newcomer)
        newcomer.take_down()


def test_where_nobody_has_ever_listened_nothing_is_made(folder) -> None:
    SocketFiles(str(folder)).ring(Want.WORK)
    assert not folder.exists()


def test_a_bell_that_is_taken_down_or_forgotten_leaves_nothing(folder) -> None:
    bells = SocketFiles(str(folder))
    bell, forgotten = bells.hang(Want.WORK), bells.hang(Want.ENDS)
    assert files(folder) == [".ends", ".work"]
    bell.take_down()
    bell.take_down()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(bell.descriptor)
    del forgotten
    gc.collect()
    assert files(folder) == []


def test_the_bell_of_a_process_that_died_is_removed_by_the_next_ring(folder) -> None:
    pid = os.fork()
    if pid == 0:
        kept = SocketFiles(str(folder)).hang(Want.WORK)
        os._exit(0 if kept is not None else 1)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert files(folder) == [".work"]

    SocketFiles(str(folder)).ring(Want.WORK)
    assert files(folder) == []


def test_the_child_of_a_fork_leaves_the_bells_of_its_parent_alone(folder, hung) -> None:
    pid = os.fork()
    if pid == 0:
        hung[Want.WORK].take_down()
        os._exit(0)
    os.waitpid(pid, 0)
    assert files(folder) == [".ends", ".work"]
    SocketFiles(str(folder)).ring(Want.WORK)
    assert rung(hung[Want.WORK])


def test_one_who_does_not_listen_keeps_nobody_waiting(folder, hung) -> None:
    ringing = SocketFiles(str(folder))
    for _ in range(5000):
        ringing.ring(Want.ENDS, ["an id"] * 50)
    assert hung[Want.ENDS].heard()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux has a way round this")
def test_a_folder_whose_name_is_too_long_for_an_address_has_bells_too(tmp_path) -> None:
    folder = tmp_path / ("x" * 90) / ("y" * 90)
    folder.parent.mkdir()
    bell = SocketFiles(str(folder)).hang(Want.WORK)
    SocketFiles(str(folder)).ring(Want.WORK)
    assert rung(bell)
    bell.take_down()
    assert files(folder) == []


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.EACCES, errno.ENOSPC])
def test_where_no_socket_can_be_made_there_is_no_bell(folder, monkeypatch, code) -> None:
    def refuse(self, address):
        raise OSError(code, os.strerror(code))

    class Refusing(socket.socket):
        bind = refuse

    monkeypatch.setattr(module.socket, "socket", Refusing)
    assert SocketFiles(str(folder)).hang(Want.WORK) is None


def test_a_folder_that_cannot_be_read_is_nobodys_trouble(folder, hung, monkeypatch) -> None:
    def refuse(path):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(module.os, "listdir", refuse)
    SocketFiles(str(folder)).ring(Want.WORK)
    assert not rung(hung[Want.WORK])


def test_where_there_are_none_nothing_happens() -> None:
    assert NoBells().hang(Want.WORK) is None
    NoBells().ring(Want.ENDS, ["a"])
