"""Liveness locks: the operating system says who is dead, at once and for certain."""

import os
import stat
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest

from sitq.adapters.presence import LockFiles, NoPresence, lock_files, own_folder
from tests.adapters.folder import contents, permissions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a platform with flock")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tasks.db-workers"


@pytest.fixture
def locks(folder):
    return LockFiles(str(folder))


@pytest.fixture
def worker(folder):
    """Start a process that holds a lock and does as it is told, line by line."""
    processes = []

    def start(worker_id: str) -> subprocess.Popen[str]:
        program = textwrap.dedent("""
            import os, subprocess, sys
            from sitq.adapters.presence import LockFiles
            locks = LockFiles(sys.argv[1])
            locks.enter(sys.argv[2])
            print("held", flush=True)
            for line in sys.stdin:
                match line.strip():
                    case "fork a child that ends":
                        pid = os.fork()
                        if pid == 0:
                            os._exit(0)
                        os.waitpid(pid, 0)
                    case "fork a child that stays":
                        ours, theirs = os.pipe()
                        pid = os.fork()
                        if pid == 0:
                            os.close(theirs)
                            print(os.getpid(), flush=True)
                            sys.stdin.close()
                            os.read(int(os.environ["GATE"]), 1)  # until the test is over
                            os._exit(0)
                        continue
                    case "run a program that stays":
                        child = subprocess.Popen(
                            [sys.executable, "-c", "import os; os.read(%s, 1)" % os.environ["GATE"]],
                            pass_fds=[int(os.environ["GATE"])],
                        )
                        print(child.pid, flush=True)
                        continue
                    case "leave":
                        locks.leave(sys.argv[2])
                print("done", flush=True)
        """)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), worker_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"GATE": str(gate)},
            pass_fds=[gate],
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    gate, opens = os.pipe()
    yield start
    os.close(opens)  # whatever a worker has left behind ends with this
    os.close(gate)
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def tell(process, command: str) -> str:
    process.stdin.write(command + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def kill(process) -> None:
    process.kill()
    process.wait()


def test_a_worker_is_not_dead_while_its_process_lives(worker, locks) -> None:
    worker("a")

    assert locks.dead(("a",)) == ()


def test_a_worker_that_was_killed_is_dead_at_once(worker, locks) -> None:
    processes = {name: worker(name) for name in "abc"}
    began = time.monotonic()
    kill(processes["b"])

    assert locks.dead(("a", "b", "c")) == ("b",)
    assert time.monotonic() - began < 1
    assert locks.dead(("a", "b", "c")) == ("b",), "and asking changes nothing"


def test_a_child_that_ends_does_not_end_its_parents_lock(worker, locks) -> None:
    process = worker("a")
    assert tell(process, "fork a child that ends") == "done"

    assert locks.dead(("a",)) == ()
    kill(process)
    assert locks.dead(("a",)) == ("a",)


@pytest.mark.parametrize("command", ["fork a child that stays", "run a program that stays"])
def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(worker, locks, command) -> None:
    process = worker("a")
    child = int(tell(process, command))
    kill(process)

    deadline = time.monotonic() + 5  # a program lets go when it has begun: O_CLOEXEC
    while locks.dead(("a",)) != ("a",) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, 0)  # it is still there
    assert locks.dead(("a",)) == ("a",)


def test_a_worker_that_left_is_not_called_dead(worker, locks, folder) -> None:
    process = worker("a")
    assert tell(process, "leave") == "done"

    assert contents(folder) == {}
    assert locks.dead(("a",)) == ()


def test_a_worker_nobody_has_heard_of_is_not_called_dead(locks, folder) -> None:
    assert locks.dead(("nobody",)) == ()
    folder.mkdir()
    assert locks.dead(("nobody",)) == ()
    assert contents(folder) == {}, "asking makes no files"


def test_of_two_in_one_process_each_has_its_own(folder) -> None:
    ours, others = LockFiles(str(folder)), LockFiles(str(folder))
    ours.enter("a")
    others.enter("b")

    assert ours.dead(("a", "b")) == others.dead(("a", "b")) == ()
    ours.leave("a")
    assert list(contents(folder)) == ["b.lock"]
    others.leave("b")
    assert contents(folder) == {}


def test_what_the_dead_left_behind_is_swept(worker, locks, folder) -> None:
    kill(worker("a"))
    worker("b")
    locks.sweep(("a", "never there"))

    assert list(contents(folder)) == ["b.lock"]
    assert locks.dead(("b",)) == ()


def test_leaving_twice_or_without_having_entered_is_no_harm(locks, folder) -> None:
    locks.leave("a")
    locks.enter("a")
    locks.leave("a")
    locks.leave("a")

    assert not contents(folder)
    locks.enter("a")  # as if nothing had been
    assert list(contents(folder)) == ["a.lock"]
    locks.leave("a")


def test_descriptors_are_given_back(locks) -> None:
    locks.enter("warm")
    before = len(os.listdir("/dev/fd"))
    for n in range(20):
        locks.enter(f"w{n}")
        assert locks.dead((f"w{n}", "warm", "nobody")) == ()
        locks.leave(f"w{n}")
    assert len(os.listdir("/dev/fd")) == before
    locks.leave("warm")


def test_a_link_in_the_place_of_a_lock_is_not_followed(locks, folder, tmp_path, caplog) -> None:
    (tmp_path / "precious").write_text("text")
    folder.mkdir()
    (folder / "a.lock").symlink_to(tmp_path / "precious")

    assert locks.dead(("a",)) == ()
    locks.enter("a")
    assert "no liveness lock" in caplog.text
    assert (tmp_path / "precious").read_text() == "text"


def test_the_folder_and_its_files_are_for_their_owner_alone(locks, folder) -> None:
    before = os.umask(0)
    try:
        locks.enter("a")
    finally:
        os.umask(before)

    assert (permissions(folder), permissions(folder / "a.lock")) == (0o700, 0o600)
    locks.leave("a")


def test_the_folder_is_made_when_the_first_worker_enters(folder) -> None:
    locks = lock_files(str(folder))
    assert not folder.exists()
    locks.enter("a")
    assert folder.exists()
    locks.leave("a")


def test_where_nobody_can_be_seen_nobody_is_called_dead() -> None:
    nobody = NoPresence()
    nobody.enter("a")

    assert nobody.dead(("a", "b")) == ()
    nobody.sweep(("a",))
    nobody.leave("a")


def test_what_workers_of_one_user_share_lies_in_a_folder_of_that_user(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = own_folder("sitq-workers")
    assert folder == str(tmp_path / "sitq-workers")
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert own_folder("sitq-workers") == str(tmp_path / f"sitq-workers-{os.getuid()}")


@pytest.mark.parametrize("kind", ["a link", "anybody's", "nowhere"])
def test_a_folder_that_may_be_another_users_is_not_used(tmp_path, monkeypatch, kind) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone" if kind == "nowhere" else tmp_path))
    path = tmp_path / "sitq-workers"
    if kind == "a link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "anybody's":
        path.mkdir()
        path.chmod(0o777)

    assert own_folder("sitq-workers") is None
