"""When the tasks of a worker paused, and whether the disk stood still then."""

import os
import sqlite3
import time

import pytest

from benchmarks.disk import QUICK, DiskWatch
from benchmarks.marks import SPAN, Marks, place
from benchmarks.peers import PEERS
from benchmarks.peers.base import MANY
from sitq.adapters.ids import new_id

MS = 1_000_000


@pytest.fixture
def clock(monkeypatch) -> list[int]:
    """What time it is, in ns."""
    now = [10 * SPAN]
    monkeypatch.setattr(time, "monotonic_ns", lambda: now[0])
    return now


def test_of_each_span_the_longest_pause_is_kept(tmp_path, clock) -> None:
    marks = Marks(str(tmp_path / "marks"))
    for at in (0, 1, 31, 36, 100, 299):
        clock[0] = 10 * SPAN + at * MS
        marks.tick()

    assert marks.pauses() == {10: 30 * MS, 11: 64 * MS, 12: 199 * MS}
    marks.clear()
    assert marks.pauses() == {}


@pytest.fixture
def syncs(monkeypatch, clock) -> list[int]:
    """How long the next syncs take, in ms; then nothing happens any more."""
    coming: list[int] = []
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(
        os, "fdatasync", lambda file: clock.__setitem__(0, clock[0] + coming.pop() * MS)
    )
    return coming


def test_the_disk_was_slow_while_a_sync_took_long_and_just_before_and_after(
    tmp_path, clock, syncs
) -> None:
    began = place(clock[0])
    syncs += [5, 250, QUICK // MS]  # the last comes first
    with DiskWatch(str(tmp_path)) as disk:
        while syncs:
            time.sleep(0.001)

    assert disk.longest == 250
    slow = [span - began for span in range(began - 5, began + 9) if not disk.was_quick(span)]
    assert slow == [-1, 0, 1, 2, 3, 4]  # it ended in the third; who waited for it goes on then


def test_a_disk_that_is_well_is_never_slow(tmp_path, clock, syncs) -> None:
    syncs += [20, 20, 20]
    with DiskWatch(str(tmp_path)) as disk:
        while syncs:
            time.sleep(0.001)

    assert all(map(disk.was_quick, range(1024)))


def test_what_fails_in_the_watch_is_raised(tmp_path) -> None:
    watch = DiskWatch(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError), watch:
        pass


@pytest.mark.anyio
async def test_copies_have_ids_as_those_that_are_enqueued_one_after_the_other(tmp_path) -> None:
    """Else each task that is pruned takes a page of its own, and the disk has ten times the work."""
    peer = PEERS["sitq"].make(str(tmp_path))
    await peer.open()
    await peer.fill(MANY + 5_000)
    await peer._backend.close()

    with sqlite3.connect(tmp_path / "tasks.db") as db:
        ids = [id_ for (id_,) in db.execute("SELECT id FROM sitq_tasks ORDER BY seq")][1:]
    db.close()
    own = new_id()
    assert all(
        len(id_) == len(own) and id_[14] == "7" and id_[19] in "89ab" and id_.count("-") == 4
        for id_ in ids
    )
    since = [int(id_[:13].replace("-", ""), 16) for id_ in ids]
    assert since == sorted(since)
    assert since[-1] - since[0] == len(ids) // 10
    assert abs(since[0] - time.time() * 1000) < 60_000
