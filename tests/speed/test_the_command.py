"""`python -m benchmarks`, with as little as it can do. How fast anything is, is not looked at."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import disk, instructions, marks, rounds, soak
from benchmarks.__main__ import main, options_of
from benchmarks.hot_path import LOOPS, PARTS
from benchmarks.peers import PEERS
from benchmarks.peers.base import MANY
from benchmarks.servers import Postgres
from benchmarks.workloads import WORKLOADS
from sitq import Worker

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def measure(tmp_path: Path, *arguments: str) -> list[dict]:
    file = tmp_path / "figures.json"
    done = command("--size", "smoke", "--repeat", "1", "--json", str(file), *arguments)

    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())["runs"]


@pytest.mark.slow
def test_every_workload_has_its_figures_for_sitq_and_for_the_loop_by_hand(tmp_path) -> None:
    runs = measure(tmp_path, "--peers", "sitq,by-hand", "--svg", str(tmp_path / "figures.svg"))

    assert len(runs) == 2 * len(WORKLOADS)
    for run in runs:
        lacking = WORKLOADS[run["workload"]].figures.keys() ^ run["figures"].keys()
        # A run of a tenth of a second may lie in a pause of the disk as a whole.
        assert not lacking or (
            lacking == {"quiet"} and run["figures"]["disk"] > disk.QUICK / 1e6
        ), run
    assert (tmp_path / "figures.svg").read_text().startswith("<svg ")


@pytest.mark.slow
def test_the_same_is_measured_on_trio(tmp_path) -> None:
    some = "enqueue-100,drain-2,pickup-inside,callers"
    runs = measure(tmp_path, "--peers", "sitq-trio", "--workloads", some)

    assert [run["workload"] for run in runs if "figures" in run] == some.split(",")


@pytest.mark.slow
def test_the_peers_of_a_workload_run_next_to_each_other_and_nobody_is_always_the_first(
    tmp_path,
) -> None:
    some = "--peers", "sqlite3,by-hand", "--workloads", "enqueue,enqueue-bulk"
    runs = measure(tmp_path, *some, "--repeat", "2")

    assert [(run["round"], run["workload"], run["peer"]) for run in runs] == [
        (turn, workload, peer)
        for turn, peers in ((0, ("sqlite3", "by-hand")), (1, ("by-hand", "sqlite3")))
        for workload in ("enqueue", "enqueue-bulk")
        for peer in peers
    ]


def test_who_is_not_installed_is_left_out_and_why_is_said(monkeypatch) -> None:
    monkeypatch.setattr(type(PEERS["huey"]), "is_importable_here", False)

    found, missing = rounds.pythons(["huey"], None)
    assert found == {}
    assert missing == {"huey": "huey is not installed"}


def test_a_peer_runs_in_the_environment_that_was_made_for_it(tmp_path) -> None:
    python = tmp_path / "huey/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()

    assert rounds.pythons(["huey"], tmp_path) == ({"huey": str(python)}, {})


def test_the_environment_that_is_made_for_sitq_has_what_each_of_its_rows_imports() -> None:
    """They share it: once one of them has asked for it, all find it before the Python at hand."""
    needs = {row.needs for row in PEERS.values() if row.file == "sitq" and row.needs}
    assert needs, "or none has one"
    for need in needs:
        assert need[:2] == ("--editable", f"{ROOT}[trio,postgres]")


@pytest.mark.parametrize(
    ("arguments", "size", "repeat"),
    [
        ([], "full", 5),
        (["--quick"], "quick", 3),
        (["--size", "smoke", "--repeat", "1"], "smoke", 1),
    ],
)
def test_it_is_measured_in_full_unless_it_is_to_be_quick(arguments, size, repeat) -> None:
    options = options_of(arguments)

    assert (options.size, options.repeat) == (size, repeat)


def test_nothing_is_left_of_a_measurement_that_hangs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rounds, "PATIENCE", 1.0)
    python, worker = tmp_path / "python", tmp_path / "worker"
    python.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {worker}\nwait\n")
    python.chmod(0o755)

    folder = str(tmp_path)
    (run,) = rounds.run({"by-hand": str(python)}, ["import"], rounds=1, size="smoke", folder=folder)

    assert run["error"] == "it had not ended after 1 s"
    status = Path(f"/proc/{int(worker.read_text())}/stat")
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)


def test_a_name_that_is_not_known_is_refused_with_those_that_are(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--peers", "sitq,celery"])
    assert "there is no 'celery'; there are sitq, " in capsys.readouterr().err


@pytest.mark.parametrize(("name", "level"), [("by-hand", 2), ("sqlite3", 2), ("by-hand-normal", 1)])
def test_a_store_is_as_durable_as_its_row_says(tmp_path, name: str, level: int) -> None:
    async def found() -> int:
        peer = PEERS[name].make(str(tmp_path))
        await peer.open()
        if isinstance(peer._db, sqlite3.Connection):
            rows = peer._db.execute("PRAGMA synchronous").fetchall()
            peer._db.close()
        else:
            rows = await peer._db.execute_fetchall("PRAGMA synchronous")
            await peer._db.close()
        return next(iter(rows))[0]

    assert asyncio.run(found()) == level


def test_what_is_left_as_finished_long_ago_is_what_a_worker_prunes(tmp_path) -> None:
    async def pruned() -> None:
        peer = PEERS["sitq"].make(str(tmp_path))
        await peer.open()
        await peer.retire(2000)
        assert await peer.retired() == 2000
        async with Worker(peer._backend):
            while await peer.retired() > 1:  # noqa: ASYNC110  # it is another program's file
                await asyncio.sleep(0.01)
        await peer._backend.close()

    asyncio.run(asyncio.wait_for(pruned(), 30))


@pytest.mark.parametrize("name", ["sitq", "by-hand"])
def test_a_backlog_of_copies_waits_as_one_that_was_enqueued(tmp_path, name: str) -> None:
    marks.here = marks.Marks(str(tmp_path / "marks"))

    async def drained() -> int:
        peer = PEERS[name].make(str(tmp_path))
        await peer.open()
        await peer.fill(MANY + 10)
        worker = asyncio.create_task(peer.work(peer.slots))
        while (count := marks.here.of_workers(marks.COUNT)[0]) < 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        worker.cancel()
        await asyncio.wait([worker])
        await (peer._backend if name == "sitq" else peer._db).close()
        return count

    assert asyncio.run(asyncio.wait_for(drained(), 30)) >= 200


@pytest.mark.slow
def test_calls_are_counted_and_are_the_same_again() -> None:
    first, second = instructions.counts(60, few=20), instructions.counts(60, few=20)

    assert {(count.loop, count.part) for count in first} == {(x, y) for x in LOOPS for y in PARTS}
    for count, again in zip(first, second, strict=True):
        assert count.per_task > 10
        assert again.per_task == pytest.approx(count.per_task, rel=0.02)


def test_instructions_are_those_of_each_process_less_what_was_needed_before() -> None:
    printed, said = [], []
    pid = 100
    for loop in LOOPS:
        for part, cost in zip(PARTS, (7, 2, 5, 9), strict=True):
            for tasks in (10, 20):
                pid += 1
                printed.append(f"{loop} {part} {tasks} {pid}")
                said.append(f"=={pid}== I   refs:      {1_000_000 + cost * tasks:,}")

    counts = instructions.per_task("\n".join(printed), "\n".join(said), 10, 20)
    assert [count.per_task for count in counts] == [7, 2, 3, 4] * 2


def test_too_few_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 500, and not 500"):
        instructions.counts(500)


@pytest.mark.slow
@pytest.mark.parametrize("pruned", [False, True], ids=["kept", "pruned"])
def test_a_soak_shows_each_stretch_beside_one_on_a_new_table(pruned) -> None:
    if Postgres.program() is None:
        pytest.skip("there is no Postgres server here")
    lines = soak.report(300, pruned=pruned, stretch=100).splitlines()

    stretches = [line.split(" | ") for line in lines[2:-4]]
    assert [one[0] for one in stretches] == [f"| {n}00" for n in range(1, 9)]
    rows = [int(one[7]) for one in stretches]
    assert max(rows) <= 100 if pruned else rows == [100 * n for n in range(1, 9)]
    assert [line.partition(",")[0] for line in lines[-3:]] == [
        "before the first sweep",
        "in the second half",
        "once it was swept",
    ]
