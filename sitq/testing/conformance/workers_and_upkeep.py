"""Every backend: leases, rescues and crashes; and what keeps a store small and readable."""

import time
from typing import Any

import anyio
import pytest

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Cancel,
    Completed,
    Count,
    Counted,
    Enqueue,
    Failed,
    Fetch,
    Fetched,
    Prune,
    Pruned,
    Register,
    Registered,
    Released,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reserve,
    Retire,
    Retired,
    Settled,
    TaskPolicy,
    Unregistered,
    Watch,
    Watched,
)
from sitq.testing.conformance.asked import (
    BOOM,
    QUEUES,
    Ask,
    names,
    new_task,
    register,
    reserved,
    settle,
)

OVER = 0.0
"""A lease of no length: it has run out when it begins."""


@pytest.mark.anyio
class WorkersAndUpkeep:
    # -- leases --------------------------------------------------------------------------------

    async def test_a_lease_is_begun_renewed_and_ended(self, ask: Ask) -> None:
        assert await ask(Renew("w", 60.0)) == Unregistered()
        assert await ask(register()) == Registered()
        assert await ask(register()) == Registered(), "its answer may have been lost"
        assert await ask(Renew("w", 60.0)) == Renewed()
        assert await ask(Retire("w")) == Retired(0)
        assert await ask(Renew("w", 60.0)) == Unregistered()
        assert await ask(Retire("w")) == Retired(0)
        assert await ask(Reserve("w", QUEUES, 1)) == Unregistered()

    async def test_a_worker_that_retires_gives_back_what_it_holds_uncharged(
        self, ask: Ask, session: Any
    ) -> None:
        for worker_id in ("w", "other"):
            await ask(register(worker_id))
        await ask(Enqueue(tuple(new_task(str(n)) for n in range(4))))
        done, *_ = await reserved(ask, limit=3)
        await reserved(ask, worker_id="other")
        await ask(settle(done, Completed(b"v")))

        assert await ask(Retire("w")) == Retired(2)
        rows = [await session.fetch(str(n)) for n in range(4)]
        assert [row.state for row in rows] == [S.SUCCESS, S.QUEUED, S.QUEUED, S.RUNNING]
        assert [(row.attempt, row.crashes) for row in rows] == [(1, 0), (0, 0), (0, 0), (1, 0)]
        assert await names(ask, worker_id="other") == ["1", "2"]

    async def test_a_lease_that_was_renewed_in_time_is_left_alone(self, ask: Ask) -> None:
        await ask(register("w", OVER))
        await ask(Renew("w", 60.0))

        assert await ask(Rescue()) == Rescued((), 0)
        assert await ask(Renew("w", 60.0)) == Renewed()

    async def test_a_lease_that_has_run_out_can_still_be_renewed_before_anybody_minds(
        self, ask: Ask
    ) -> None:
        await ask(register("w", OVER))

        assert await ask(Renew("w", 60.0)) == Renewed()

    async def test_a_lease_runs_out_by_the_clock_of_the_store_and_not_before(
        self, ask: Ask
    ) -> None:
        began = time.monotonic()
        await ask(register("w", 0.05))
        while (await ask(Rescue())) == Rescued((), 0):
            assert time.monotonic() - began < 5
            await anyio.sleep(0.005)
        assert time.monotonic() - began >= 0.045

    # -- rescue --------------------------------------------------------------------------------

    async def test_the_tasks_of_those_whose_lease_has_run_out_come_back(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(register("alive"))
        await ask(register("dead", OVER))
        await ask(Enqueue(tuple(new_task(str(n)) for n in range(5))))
        await reserved(ask, worker_id="dead", limit=2)
        await reserved(ask, worker_id="alive", limit=1)

        assert await ask(Rescue()) == Rescued(("dead",), 2)
        assert await ask(Rescue()) == Rescued((), 0)
        assert await ask(Renew("dead", 60.0)) == Unregistered()
        assert await ask(Reserve("dead", QUEUES, 1)) == Unregistered()
        assert (await session.fetch("2")).state is S.RUNNING
        assert await names(ask, worker_id="alive") == ["0", "1", "3", "4"]

    async def test_the_tasks_of_those_who_are_known_to_be_dead_come_back_at_once(
        self, ask: Ask
    ) -> None:
        for worker_id in ("a", "b", "c"):
            await ask(register(worker_id))
        await ask(Enqueue(tuple(new_task(str(n)) for n in range(3))))
        for worker_id in ("a", "b", "c"):
            await reserved(ask, worker_id=worker_id, limit=1)

        assert await ask(Rescue(("c", "never heard of", "a"))) == Rescued(("a", "c"), 2)
        assert await ask(Renew("b", 60.0)) == Renewed()
        assert await names(ask, worker_id="b") == ["0", "2"]

    async def test_a_workers_death_is_counted_apart_from_its_tasks_failures(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(Enqueue((new_task(),)))
        for life in range(1, 3):
            await ask(register(f"life {life}"))
            (task,) = await reserved(ask, worker_id=f"life {life}")
            assert task.attempt == 1
            await ask(Rescue((f"life {life}",)))
            row = await session.fetch("t")
            assert (row.state, row.attempt, row.crashes) == (S.QUEUED, 0, life)
            assert row.started_ms is None

        await ask(register())
        (task,) = await reserved(ask)
        await ask(settle(task, Completed(b"v")))
        row = await session.fetch("t")
        assert (row.state, row.attempt, row.crashes) == (S.SUCCESS, 1, 2)

    @pytest.mark.parametrize("most", [1, 2, 3])
    async def test_a_task_that_outlives_too_many_workers_has_failed(
        self, ask: Ask, session: Any, most: Any
    ) -> None:
        await ask(Enqueue((new_task(policy=TaskPolicy(max_crashes=most)),)))
        for life in range(1, most + 1):
            assert (await session.fetch("t")).state is S.QUEUED
            worker_id = f"life {life}"
            await ask(Register(worker_id, "earth", 40 + life, QUEUES, 1, 60.0))
            assert await names(ask, worker_id=worker_id) == ["t"]
            assert await ask(Rescue((worker_id,))) == Rescued((worker_id,), 1)

        row = await session.fetch("t")
        assert (row.state, row.crashes, row.error_type) == (S.FAILED, most, "WorkerDied")
        assert row.reason == "crash"
        times = "1 time " if most == 1 else f"{most} times "
        assert f"the worker died {times}" in row.error
        assert f"pid {40 + most} on earth" in row.error
        assert row.finished_ms is not None
        await ask(register())
        assert await names(ask) == []

    async def test_of_tasks_that_may_be_to_blame_for_a_death_a_worker_has_one_at_a_time(
        self, ask: Ask
    ) -> None:
        policy = TaskPolicy(max_crashes=2)
        await ask(Enqueue(tuple(new_task(name, policy=policy) for name in "abc")))
        await ask(register("dead"))
        assert await names(ask, worker_id="dead") == ["a", "b", "c"]
        assert await ask(Rescue(("dead",))) == Rescued(("dead",), 3)
        await ask(Enqueue((new_task("new"), new_task("other"))))
        for worker_id in ("w", "v"):
            await ask(register(worker_id))

        a, new = await reserved(ask, limit=2)
        assert (a.id, new.id) == ("a", "new")
        assert await names(ask, limit=5) == ["other"], "it has one"
        assert await names(ask, limit=5, worker_id="v") == ["b"], "and so has this one now"
        await ask(settle(a, Completed(b"v")))
        assert await names(ask, limit=5) == ["c"], "it has none any more"

    async def test_a_task_that_kills_whoever_runs_it_takes_nobody_with_it(
        self, ask: Ask, session: Any
    ) -> None:
        tasks = [str(n) for n in range(6)]
        await ask(Enqueue(tuple(new_task(name) for name in tasks)))
        deaths = 0
        while (await session.fetch("3")).state is S.QUEUED:
            worker_id = f"life {deaths}"
            await ask(register(worker_id))
            given = await reserved(ask, limit=6, worker_id=worker_id)
            if "3" in {task.id for task in given}:
                await ask(Rescue((worker_id,)))
                deaths += 1
            else:
                for task in given:
                    await ask(settle(task, Completed(b"v"), worker_id))
                await ask(Retire(worker_id))

        assert deaths == 3
        rows = {name: await session.fetch(name) for name in tasks}
        assert (rows["3"].state, rows["3"].crashes) == (S.FAILED, 3)
        assert all(row.crashes == 2 for name, row in rows.items() if name != "3")
        assert all(row.state is not S.FAILED for name, row in rows.items() if name != "3")

    async def test_a_graceful_stop_charges_nothing(self, ask: Ask, session: Any) -> None:
        await ask(Enqueue((new_task(policy=TaskPolicy(max_crashes=1)),)))
        for life in range(5):
            await ask(register(f"{life}"))
            (task,) = await reserved(ask, worker_id=f"{life}")
            if life % 2:
                await ask(settle(task, Released(), f"{life}"))
            await ask(Retire(f"{life}"))

        row = await session.fetch("t")
        assert (row.state, row.attempt, row.crashes) == (S.QUEUED, 0, 0)

    # -- what a worker is told -----------------------------------------------------------------

    async def test_a_worker_is_told_of_its_peers_and_whether_one_is_overdue(self, ask: Ask) -> None:
        await ask(register("b"))
        assert await ask(Watch("b")) == Watched((), False, ())
        for worker_id in ("c", "a"):
            await ask(register(worker_id))
        assert await ask(Watch("b")) == Watched(("a", "c"), False, ())

        await ask(register("d", OVER))
        assert await ask(Watch("b")) == Watched(("a", "c", "d"), True, ())
        assert (await ask(Watch("d"))).expired is False, "its own lease is its own business"

    async def test_a_worker_is_told_which_of_its_tasks_callers_want_cancelled(
        self, ask: Ask
    ) -> None:
        for worker_id in ("w", "other"):
            await ask(register(worker_id))
        await ask(Enqueue(tuple(new_task(str(n)) for n in range(4))))
        mine = await reserved(ask, limit=3)
        (theirs,) = await reserved(ask, worker_id="other")
        for task in (mine[2], mine[0], theirs):
            await ask(Cancel(task.id))

        assert (await ask(Watch("w"))).cancelled == (mine[0].key, mine[2].key)
        assert (await ask(Watch("other"))).cancelled == (theirs.key,)
        await ask(settle(mine[0], Completed(b"v")))
        assert (await ask(Watch("w"))).cancelled == (mine[2].key,)

    # -- upkeep --------------------------------------------------------------------------------

    async def test_what_has_ended_is_forgotten_oldest_first_and_nothing_else_is(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(register())
        await ask(Enqueue(tuple(new_task(str(n)) for n in range(6))))
        for task in (await reserved(ask, limit=3))[::-1]:
            await ask(settle(task, Failed(BOOM)))
            await anyio.sleep(0.002)  # so that it has ended in a millisecond of its own
        await ask(Enqueue((new_task("later", delay_ms=60_000),)))
        await reserved(ask, limit=1)

        assert await ask(Prune(60.0, 100)) == Pruned(0), "none is so old"
        assert await ask(Prune(0.0, 2)) == Pruned(2)
        assert await session.fetch("2") is None
        assert await session.fetch("1") is None
        assert await session.fetch("0") is not None
        assert await ask(Prune(0.0, 100)) == Pruned(1)
        assert await ask(Count()) == Counted(
            (("default", S.QUEUED, 2), ("default", S.RUNNING, 1), ("default", S.SCHEDULED, 1))
        )

    async def test_a_number_is_never_given_twice_so_an_old_token_never_fits(
        self, ask: Ask, session: Any
    ) -> None:
        """A worker that was away while its task was rescued, ended and forgotten changes nothing."""
        await ask(register())
        await ask(Enqueue((new_task("old"),)))
        (old,) = await reserved(ask)
        await ask(settle(old, Completed(b"v")))
        await ask(Prune(0.0, 100))
        await ask(Enqueue((new_task("new"),)))
        (new,) = await reserved(ask)

        assert new.key != old.key
        answer = await ask(settle(old, Completed(b"late")))
        assert answer == Settled(await session.fetch("old") is not None)
        assert (await session.fetch("new")).state is S.RUNNING

    async def test_an_id_that_was_forgotten_may_be_used_again(self, ask: Ask, session: Any) -> None:
        await ask(Enqueue((new_task("t"), new_task("last"))))
        await ask(Cancel("t"))
        await ask(Prune(0.0, 100))
        assert await session.fetch("t") is None

        await ask(Enqueue((new_task("t", b"another"),), may_exist=True))
        assert (await session.fetch("t")).state is S.QUEUED

    # -- reading -------------------------------------------------------------------------------

    async def test_many_tasks_are_fetched_at_once_and_those_that_are_not_there_are_left_out(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(Enqueue(tuple(new_task(str(n), queue=f"q{n}") for n in range(300))))
        (fetched,) = await session.reader.submit(Fetch(tuple(str(n) for n in range(250, 350))))

        assert sorted(fetched.rows, key=int) == [str(n) for n in range(250, 300)]
        assert all(row.id == id_ and row.queue == f"q{id_}" for id_, row in fetched.rows.items())
        assert await session.reader.submit(Fetch(()), Fetch(("x",))) == (Fetched({}), Fetched({}))

    async def test_tasks_are_counted_by_queue_and_state(self, ask: Ask) -> None:
        assert await ask(Count()) == Counted(())
        await ask(register())
        tasks = [new_task("a", queue="x"), new_task("b", queue="x"), new_task("c", queue="b")]
        await ask(Enqueue((*tasks, new_task("d", queue="x", delay_ms=60_000))))
        await reserved(ask, queues=("x",), limit=1)
        await ask(Cancel("c"))

        assert await ask(Count()) == Counted(
            (
                ("b", S.CANCELLED, 1),
                ("x", S.QUEUED, 1),
                ("x", S.RUNNING, 1),
                ("x", S.SCHEDULED, 1),
            )
        )

    async def test_a_store_of_a_thread_gives_the_same_answers(
        self, backend: Any, session: Any
    ) -> None:
        """A lease's thread and code without a loop use the backend by its stores."""

        def work() -> None:
            store = backend.open_store()
            try:
                store.apply([register(), Enqueue((new_task("a"), new_task("b")))])
                (got,) = store.apply([Reserve("w", QUEUES, 1)])
                (task,) = got.tasks
                assert store.apply([settle(task, Completed(b"v")), Renew("w", 60.0)]) == (
                    Settled(True),
                    Renewed(),
                )
                assert store.apply([Cancel("b"), Retire("w")])[1] == Retired(0)
                store.tidy()
            finally:
                store.close()

        await anyio.to_thread.run_sync(work)
        assert (await session.fetch("a")).value == b"v"
        assert (await session.fetch("b")).state is S.CANCELLED
