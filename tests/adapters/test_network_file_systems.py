"""A queue on a network file system is refused: SQLite's locks cannot be trusted there."""

from contextlib import closing

import pytest

from sitq import NetworkFileSystemError, SQLiteBackend
from sitq.adapters import sqlite_file
from tests.adapters.folder import contents

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # no bytes
ROOT = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Have the kernel's table of mounts say what the test says."""
    table = tmp_path / "mountinfo"

    def say(*lines: str | bytes) -> None:
        raw = [line.encode() if isinstance(line, str) else line for line in (ROOT, *lines)]
        table.write_bytes(b"\n".join(raw) + b"\n")
        monkeypatch.setattr(sqlite_file, "_MOUNTS", str(table))

    return say


@pytest.fixture
def share(tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    return share


def mount(where, kind: str) -> str:
    """A line of proc(5), mountinfo: blanks in the path are written in octal."""
    escaped = str(where).replace("\\", r"\134").replace(" ", r"\040").replace("\t", r"\011")
    return f"99 23 0:50 / {escaped} rw,noatime shared:9 master:1 - {kind} server:/export rw"


@pytest.mark.parametrize(
    "kind",
    sorted(sqlite_file._NETWORK),
)
def test_a_network_file_system_is_refused_by_its_name(mounts, share, kind) -> None:
    mounts(mount(share, kind))

    with pytest.raises(NetworkFileSystemError, match=rf"\({kind}\).*local disk"):
        SQLiteBackend(share / "tasks.db").open_store()
    assert contents(share) == {}


def test_a_file_that_is_there_already_is_refused_and_left_alone(mounts, share) -> None:
    SQLiteBackend(share / "tasks.db").open_store().close()
    before = contents(share)
    mounts(mount(share, "nfs4"))

    with pytest.raises(NetworkFileSystemError):
        SQLiteBackend(share / "tasks.db").open_store()
    assert contents(share) == before


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuse.mergerfs"]
)
def test_a_local_file_system_is_taken(mounts, share, kind) -> None:
    mounts(mount(share, kind))

    with closing(SQLiteBackend(share / "tasks.db").open_store()):
        assert sqlite_file.file_system(share / "tasks.db") == kind


def test_the_innermost_mount_decides_and_of_two_on_one_place_the_later(mounts, share) -> None:
    (share / "scratch").mkdir()
    mounts(mount(share, "nfs4"), mount(share / "scratch", "xfs"))
    assert sqlite_file.file_system(share / "scratch" / "tasks.db") == "xfs"
    assert sqlite_file.file_system(share / "tasks.db") == "nfs4"

    mounts(mount(share, "xfs"), mount(share, "nfs4"))
    assert sqlite_file.file_system(share / "tasks.db") == "nfs4"


def test_a_mount_of_a_similar_name_is_another_one(mounts, tmp_path, share) -> None:
    (tmp_path / "share2").mkdir()
    mounts(mount(share, "nfs4"))

    assert sqlite_file.file_system(tmp_path / "share2" / "tasks.db") == "ext4"


def test_a_link_into_a_network_file_system_is_followed(mounts, tmp_path, share) -> None:
    (tmp_path / "here").symlink_to(share)
    mounts(mount(share, "nfs4"))

    with pytest.raises(NetworkFileSystemError):
        SQLiteBackend(tmp_path / "here" / "tasks.db").open_store()


def test_a_link_to_a_file_there_is_followed_before_the_file_is_made(
    mounts, tmp_path, share
) -> None:
    (tmp_path / "tasks.db").symlink_to(share / "tasks.db")
    mounts(mount(share, "nfs4"))

    for _ in range(2):
        with pytest.raises(NetworkFileSystemError):
            SQLiteBackend(tmp_path / "tasks.db").open_store()
        assert contents(share) in ({}, {"tasks.db": EMPTY})
        (share / "tasks.db").touch()


@pytest.mark.parametrize("name", ["my files", "a\tb", "back\\slash", "dépôt", "共有"])
def test_a_mount_point_may_have_any_name(mounts, tmp_path, name) -> None:
    share = tmp_path / name
    share.mkdir()
    mounts(mount(share, "nfs4"))

    with pytest.raises(NetworkFileSystemError):
        SQLiteBackend(share / "tasks.db").open_store()


def test_a_mount_elsewhere_whose_name_is_no_text_stops_nobody(mounts, share) -> None:
    mounts(b"98 23 0:49 / /mnt/\xff rw - ext4 /dev/sdb1 rw", mount(share, "xfs"))

    with closing(SQLiteBackend(share / "tasks.db").open_store()):
        assert sqlite_file.file_system(share / "tasks.db") == "xfs"


def test_where_the_kernel_keeps_no_such_table_nothing_is_refused(share, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_file, "_MOUNTS", str(share / "none"))

    with closing(SQLiteBackend(share / "tasks.db").open_store()):
        assert sqlite_file.file_system(share / "tasks.db") is None
