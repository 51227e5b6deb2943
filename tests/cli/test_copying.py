"""`sitq copy`: whoever is killed or acts at whichever moment, each task is in one store and runs once."""

import random
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import partial

import anyio
import anyio.to_thread
import pytest
from click.testing import CliRunner

from sitq import PostgresBackend, SQLiteBackend, StoreError, SyncTaskQueue, TaskQueue, Worker
from sitq.cli import copying
from sitq.cli.commands import sitq
from sitq.cli.copying import Mover, Side, _open
from sitq.protocol import waiter
from sitq.protocol.lifecycle import FINAL, TaskState
from sitq.protocol.ops import (
    Cancel,
    Completed,
    Enqueue,
    Fetch,
    NewTask,
    Parked,
    Register,
    Reserve,
    Retire,
    RetryPolicy,
    Settle,
    TaskPolicy,
)
from sitq.storage import moving
from sitq.storage.moving import COLUMNS, SQLITE, postgres
from torture.proxy import Proxy

DIRECTIONS = ["sqlite to sqlite", "sqlite to postgres", "postgres to sqlite"]
HOUR_MS = 3_600_000


class Store:
    """A store of either kind, spoken to by ops, and as one side of a move."""

    def __init__(self, kind, path, server) -> None:
        self.server = server
        self.database = None
        if kind == "sqlite":
            self.where = str(path)
            self.backend = partial(SQLiteBackend, path, durability="normal")
        else:
            self.database = server.create_database()
            self.where = server.dsn(self.database)
            self.backend = partial(PostgresBackend, self.where)
        self.store = self.backend().open_store()
        self.side = Side(self.store, SQLITE if kind == "sqlite" else postgres("sitq"), self.where)

    def apply(self, *ops):
        return self.store.apply(ops)

    def enqueue(self, *tasks):
        self.apply(Enqueue(tasks, may_exist=True))

    def work(self, name, limit=1):
        """Take tasks; return what was given."""
        self.apply(Register(name, "host", 1, ("default", "other"), 99, 600.0))
        return self.apply(Reserve(name, ("default", "other"), limit))[0].tasks

    def complete(self, name, task, value=b"done"):
        (settled,) = self.apply(Settle(task.key, task.id, name, Completed(value)))
        assert settled.applied

    def rows(self):
        """Return what is kept of each task, by id."""
        ids = self.side.run(moving.movable, 10_000)
        if not ids:
            return {}
        rows = self.side.run(moving.fence, ids)
        self.side.run(moving.restore, moving.AWAY, ids)
        return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in rows}

    def states(self):
        ids = self.side.run(moving.movable, 10_000)
        (fetched,) = self.apply(Fetch(tuple(ids)))
        return {id_: str(row.state) for id_, row in fetched.rows.items()}

    def close(self) -> None:
        self.store.close()
        if self.database is not None:
            self.server.drop_database(self.database)


@pytest.fixture(params=DIRECTIONS)
def stores(request, tmp_path):
    kinds = request.param.split(" to ")
    server = request.getfixturevalue("postgres_server") if "postgres" in kinds else None
    source = Store(kinds[0], tmp_path / "source.db", server)
    target = Store(kinds[1], tmp_path / "target.db", server)
    yield source, target
    source.close()
    target.close()


def new(task_id, **more):
    return NewTask(task_id, b"payload of " + task_id.encode(), "f", **more)


def copy(stores, *options):
    source, target = stores
    return CliRunner().invoke(sitq, ["copy", source.where, target.where, *options])


# -- what is kept --------------------------------------------------------------------------


def test_a_task_keeps_all_but_its_place_and_its_worker(stores) -> None:
    source, target = stores
    policy = TaskPolicy(timeout=3.0, retry=RetryPolicy(attempts=5), max_crashes=7)
    source.enqueue(new("ended"), new("failed-once"), new("parked"))
    for task in source.work("w", 3):
        verdict = Completed(b"\x00\xff") if task.id == "ended" else Parked("strange-1", "of whom?")
        source.apply(Settle(task.key, task.id, "w", verdict))
    source.enqueue(
        new("later", run_at_ms=int(time.time() * 1000) + HOUR_MS, policy=policy),
        new("urgent", priority=5, queue="other"),
        new("a text with \N{SNOWMAN} and ' and \""),
    )
    source.enqueue(new("cancelled"))
    source.apply(Cancel("cancelled"))
    before = source.rows()
    assert {row["state"] for row in before.values()} >= {"parked", "success", "cancelled"}

    done = copy(stores)

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("moved 7 tasks from ")
    assert target.rows() == before
    assert source.rows() == {}
    (fetched,) = target.apply(Fetch(("ended", "later")))
    assert fetched.rows["ended"].value == b"\x00\xff"
    assert fetched.rows["later"].state is TaskState.SCHEDULED


def test_tasks_come_in_their_order_behind_those_that_are_there(stores) -> None:
    source, target = stores
    target.enqueue(new("first"))
    for n in range(5):
        source.enqueue(new(f"t{n}"))
    source.enqueue(new("urgent", priority=1))
    assert copy(stores).exit_code == 0
    assert [task.id for task in target.work("w", 99)] == [
        "urgent", "first", "t0", "t1", "t2", "t3", "t4",
    ]  # fmt: skip


def test_the_numbers_of_tasks_that_left_are_not_given_to_others(stores) -> None:
    source, _ = stores
    source.enqueue(new("a"), new("b"))
    keys = {task.key for task in source.work("w", 2)}
    for key, id_ in zip(sorted(keys), "ab", strict=True):
        source.apply(Settle(key, id_, "w", Completed(b"")))
    for _ in range(2):
        assert copy(stores).exit_code == 0
    source.enqueue(new("c"))
    (task,) = source.work("w")
    assert task.key not in keys


# -- what is left --------------------------------------------------------------------------


def test_what_runs_is_left_and_comes_when_it_has_ended(stores) -> None:
    source, target = stores
    source.enqueue(new("runs"), new("waits"))
    (task,) = source.work("w")
    done = copy(stores)
    assert done.exit_code == 1
    assert "1 tasks are still in" in done.stderr
    assert target.states() == {"waits": "queued"}
    source.complete("w", task, b"result")
    assert copy(stores).exit_code == 0
    assert target.rows()["runs"]["result"] == b"result"


def test_what_a_stopped_worker_hands_back_comes_as_well(stores) -> None:
    source, target = stores
    source.enqueue(new("runs"))
    (task,) = source.work("w")
    copy(stores)
    source.apply(Retire("w"))
    assert copy(stores).exit_code == 0
    (again,) = target.work("v")
    assert (again.id, again.attempt) == ("runs", 1)
    assert again.key.token > task.key.token


def test_an_id_that_another_task_has_there_stays_and_is_told_of(stores) -> None:
    source, target = stores
    source.enqueue(new("a"), new("b"))
    target.enqueue(NewTask("a", b"something else", "g"))
    done = copy(stores)
    assert done.exit_code == 1
    assert "1 tasks stay in" in done.stderr
    assert source.states() == {"a": "queued"}
    assert target.rows()["a"]["payload"] == b"something else"
    assert [task.id for task in source.work("w", 9)] == ["a"]


def test_one_that_was_asked_for_in_both_is_one(stores) -> None:
    source, target = stores
    source.enqueue(new("a"))
    target.enqueue(new("a"))
    assert copy(stores).exit_code == 0
    assert (source.states(), target.states()) == ({}, {"a": "queued"})


def test_what_is_about_to_leave_the_second_store_is_not_forgotten_in_the_first(stores) -> None:
    source, target = stores
    for store in stores:
        store.enqueue(new("a"))
    target.side.run(moving.fence, ["a"])  # by somebody who moves the other way

    assert copy(stores).exit_code == 1
    assert (source.states(), target.states()) == ({"a": "queued"}, {"a": "parked"})


# -- killed and meddled with ---------------------------------------------------------------


class Killed(Exception):
    """The copier is no more."""


class Meddled:
    """A side of the move; between any two steps of it others act, and it may be killed."""

    def __init__(self, side, act) -> None:
        self._side, self._act = side, act
        self.name, self.bells = side.name, side.bells

    def run(self, program, *args):
        self._act()
        found = self._side.run(program, *args)
        self._act()
        return found


def test_killed_between_any_two_steps_it_goes_on_where_it_was(stores, monkeypatch) -> None:
    source, target = stores
    monkeypatch.setattr(copying, "BATCH", 3)
    ids = {f"t{n}" for n in range(4)}
    at = 0
    finished = False
    while not finished:
        source.enqueue(*(new(id_) for id_ in sorted(ids)))
        at += 1
        steps = 0

        def act(at=at) -> None:
            nonlocal steps
            steps += 1
            if steps == at:
                raise Killed

        try:
            Mover(Meddled(source.side, act), Meddled(target.side, act)).run()
            finished = True
        except Killed:
            seen_in_both = {*source.states().items()} & {*target.states().items()}
            assert not [id_ for id_, state in seen_in_both if state == "queued"]
            Mover(source.side, target.side).run()
        assert source.states() == {}
        assert target.states() == dict.fromkeys(ids, "queued")
        for task in target.work("w", 9):
            target.complete("w", task)
        ids = {f"{id_}'" for id_ in ids}
        target.side.run(moving.drop, target.side.run(moving.fence, list(target.states())))
    assert at > 20


class World:
    """Workers and callers at both stores; what they saw."""

    def __init__(self, source, target, dice) -> None:
        self.source, self.target, self.dice = source, target, dice
        self.held = []
        self.started = []
        self.cancelled = set()
        self.ids = [f"t{n}" for n in range(20)]
        self.kills = 0
        source.enqueue(*map(new, self.ids))

    def act(self) -> None:
        dice = self.dice
        store = dice.choice((self.source, self.target))
        choice = dice.random()
        if choice < 0.06:
            self.kills += 1
            raise Killed
        if choice < 0.2:
            for task in store.work("w"):
                assert task.id not in self.cancelled, f"{task.id} was cancelled, and starts"
                self.started.append(task.id)
                self.held.append((store, task))
        elif choice < 0.35 and self.held:
            self._end_one()
        elif choice < 0.4:
            task_id = dice.choice(self.ids)
            (outcome,) = store.apply(Cancel(task_id))
            if outcome.was in {TaskState.QUEUED, TaskState.PARKED}:
                self.cancelled.add(task_id)
        elif choice < 0.45 and len(self.ids) < 40:
            self.ids.append(f"t{len(self.ids)}")
            store.enqueue(new(self.ids[-1]))

    def _end_one(self) -> None:
        store, task = self.held.pop(self.dice.randrange(len(self.held)))
        store.complete("w", task)

    def finish(self, mover) -> None:
        while self.held:
            self._end_one()
        mover.run()
        for task in self.target.work("w", 99):
            assert task.id not in self.cancelled, f"{task.id} was cancelled, and starts"
            self.started.append(task.id)
            self.target.complete("w", task)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_others_do_meanwhile_each_task_runs_once(stores, seed, monkeypatch) -> None:
    source, target = stores
    monkeypatch.setattr(copying, "BATCH", 4)
    world = World(source, target, random.Random(seed))
    for _ in range(8):
        with suppress(Killed):
            Mover(Meddled(source.side, world.act), Meddled(target.side, world.act)).run()
    world.finish(Mover(source.side, target.side))
    assert world.kills
    assert sorted(world.started) == sorted(set(world.started))
    assert {*world.started} | world.cancelled == {*world.ids}
    assert not {*world.started} & world.cancelled
    assert source.states() == {}
    states = target.states()
    assert states.keys() == {*world.ids}
    assert {*states.values()} <= {str(state) for state in FINAL}
    assert {id_ for id_, state in states.items() if state == "success"} == {*world.started}


@pytest.mark.parametrize("kinds", DIRECTIONS[1:])
def test_answers_of_the_server_that_are_lost_are_asked_for_again(
    kinds, postgres_server, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(copying, "BATCH", 5)
    kinds = kinds.split(" to ")
    source, target = (
        Store(kind, tmp_path / f"{i}.db", postgres_server) for i, kind in enumerate(kinds)
    )
    ids = [f"t{n}" for n in range(30)]
    source.enqueue(*map(new, ids))
    here = next(store for store in (source, target) if store.database is not None)
    with Proxy(postgres_server.socket) as proxy:
        dsn = postgres_server.dsn(here.database, where=proxy.where)
        far = PostgresBackend(dsn, timeout=5.0).open_store()
        by_proxy = Side(far, here.side.dialect, "far")
        mover = Mover(*(by_proxy if store is here else store.side for store in (source, target)))
        for lose in (proxy.lose_the_answer, lambda: proxy.lose_the_request(b"COMMIT\x00")) * 4:
            lose()
            with suppress(StoreError):
                mover.run()
        lost = proxy.up.lost + proxy.down.lost
        proxy.calm()
        mover.run()
        far.close()
    assert lost > 2
    assert source.states() == {}
    assert target.states() == dict.fromkeys(ids, "queued")
    for store in (source, target):
        store.close()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_workers_and_waiters_there_are_told_of_what_arrives(stores, monkeypatch) -> None:
    monkeypatch.setattr(waiter, "QUICKEST", 3600.0)
    monkeypatch.setattr(waiter, "SLOWEST", 3600.0)
    source, target = stores

    async def move() -> None:
        sides = [_open(store.where, "sitq", opened, make=False) for store in stores]
        await anyio.to_thread.run_sync(Mover(*sides).run)

    backend = target.backend()
    queue = TaskQueue(backend)
    here = SyncTaskQueue(source.backend())
    with ExitStack() as opened, anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            worker = Worker(backend, poll_interval=3600.0)
            group.start_soon(worker.start)
            await queue.result(await queue.enqueue(len, ""), timeout=60.0)  # it looks no more
            ended: list[object] = []

            async def wait(task_id) -> None:
                ended.append(await queue.get_result(task_id, timeout=60.0))

            there = here.enqueue(len, "ab")
            group.start_soon(wait, there)
            await move()
            assert await queue.result(there, timeout=60.0) == 2

            cancelled = here.enqueue(len, "abc")
            here.cancel(cancelled)
            group.start_soon(wait, cancelled)
            await anyio.wait_all_tasks_blocked()
            await move()
            await worker.stop()
        await backend.close()
    here.close()
    assert sorted(str(result.status) for result in ended) == ["cancelled", "success"]


@pytest.mark.slow
def test_killed_by_sigkill_again_and_again_it_comes_to_its_end(stores) -> None:
    source, target = stores
    ids = [f"t{n}" for n in range(3000)]
    source.enqueue(*map(new, ids))
    command = [sys.executable, "-m", "sitq.cli", "copy", source.where, target.where]
    dice = random.Random(1)
    killed = 0
    for _ in range(8):
        before = len(target.states())
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and len(target.states()) == before:
            time.sleep(0.001)
        time.sleep(dice.random() / 50)
        killed += process.poll() is None
        process.kill()
        process.communicate()
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert source.states() == {}
    assert target.states() == dict.fromkeys(ids, "queued")
    assert killed


@pytest.mark.slow
def test_with_follow_it_moves_what_comes_in_until_it_is_stopped(stores) -> None:
    source, target = stores
    command = [sys.executable, "-m", "sitq.cli", "copy", source.where, target.where, "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for n in range(3):
            source.enqueue(new(f"t{n}"))
            until = time.monotonic() + 30
            while f"t{n}" not in target.states() and time.monotonic() < until:
                time.sleep(0.05)
        process.terminate()
        told = process.stdout.read()
    assert target.states() == {"t0": "queued", "t1": "queued", "t2": "queued"}
    assert told.startswith("moved 3 tasks")
