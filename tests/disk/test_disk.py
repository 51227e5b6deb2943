"""Which disks a power cut can leave."""

from tests.disk.disk import Disk, Image, power_cuts
from tests.disk.vfs import Call


def disks(disk: Disk, **options) -> set[Image]:
    options = {"all_subsets": False, "dice": 0, "seed": 1} | options
    return {cut.image for cut in power_cuts(disk.now(), **options)}


def write(offset: int, data: bytes) -> Call:
    return Call("write", "f", offset, len(data), data)


def test_of_what_was_not_synced_any_part_may_be_lost() -> None:
    disk = Disk((("f", b"old"),))
    disk.change(write(0, b"new"))
    disk.change(write(3, b"er"))

    assert disk.now().killed() == (("f", b"newer"),)
    every = {b"old", b"newer", b"old\0\0", b"new", b"older"}
    assert disks(disk, all_subsets=True) == {(("f", content),) for content in every}
    disk.change(Call("sync", "f"))
    assert disks(disk, all_subsets=True, dice=5) == {(("f", b"newer"),)}


def test_a_write_may_be_torn_at_each_sector_of_the_disk() -> None:
    disk = Disk((("f", b""),))
    disk.change(write(500, b"x" * 1000))

    lengths = {len(image[0][1].rstrip(b"\0")) for image in disks(disk)}
    assert lengths == {0, 512, 1024, 1500}


def test_sectors_may_be_kept_in_any_order() -> None:
    disk = Disk((("f", bytes(1024)),))
    disk.change(write(0, b"x" * 1024))

    assert (("f", bytes(512) + b"x" * 512),) in disks(disk, dice=40)


def test_a_cut_may_not_have_got_there_either() -> None:
    disk = Disk((("f", b"long"),))
    disk.change(Call("truncate", "f", size=1))
    assert disks(disk) == {(("f", b"l"),), (("f", b"long"),)}


def test_a_new_file_may_be_gone_until_its_folder_is_synced() -> None:
    disk = Disk(())
    disk.change(Call("open", "f"))
    disk.change(write(0, b"x"))
    disk.change(Call("sync", "f"))
    assert disks(disk) == {(), (("f", b"x"),)}
    disk.change(Call("sync", "f", dirsync=True))
    assert disks(disk) == {(("f", b"x"),)}


def test_a_file_that_was_deleted_may_be_back() -> None:
    disk = Disk((("f", b"x"), ("g", b"")))
    disk.change(Call("delete", "f"))
    assert disks(disk) == {(("g", b""),), (("f", b"x"), ("g", b""))}
    disk.change(Call("sync", "g", dirsync=True))
    assert disks(disk) == {(("g", b""),)}


def test_a_sync_that_failed_forgets_what_it_was_to_write() -> None:
    disk = Disk((("f", b"old"),))
    disk.change(write(0, b"n"))
    disk.fail_to_sync("f")
    disk.change(write(2, b"w"))
    disk.change(Call("sync", "f"))

    assert disk.now().killed() == (("f", b"nlw"),)
    assert disk.now().synced() == (("f", b"olw"),)
