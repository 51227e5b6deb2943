"""Every backend: what is enqueued is stored as a whole or not at all, and comes out in order."""

import time
from typing import Any

import anyio
import pytest

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Completed,
    Conflict,
    Count,
    Counted,
    Enqueue,
    Enqueued,
    Reserve,
    Reserved,
    RetryPolicy,
    TaskPolicy,
    Unregistered,
)
from sitq.testing.conformance.asked import QUEUES, Ask, names, new_task, register, reserved, settle


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.anyio
class HandingOver:
    # -- enqueue -------------------------------------------------------------------------------

    async def test_an_id_that_is_taken_by_another_payload_stores_nothing_of_its_op(
        self, ask: Ask
    ) -> None:
        await ask(Enqueue((new_task("b"),)))
        clash = Enqueue((new_task("a"), new_task("b", b"other"), new_task("c")), may_exist=True)

        assert await ask(clash) == Conflict("b", S.QUEUED)
        assert await ask(Count()) == Counted((("default", S.QUEUED, 1),))

    async def test_the_same_again_changes_nothing(self, ask: Ask, session: Any) -> None:
        op = Enqueue((new_task("a"), new_task("b")), may_exist=True)
        assert [await ask(op) for _ in range(3)] == [Enqueued()] * 3
        assert await ask(Count()) == Counted((("default", S.QUEUED, 2),))

        await ask(register())
        (first, _) = await reserved(ask)
        await ask(settle(first, Completed(b"v")))
        assert await ask(op) == Enqueued(), "nor does it once the task has ended"
        assert (await session.fetch("a")).state is S.SUCCESS

    async def test_what_is_there_in_part_is_completed(self, ask: Ask) -> None:
        await ask(Enqueue((new_task("a"),)))

        assert await ask(Enqueue((new_task("a"), new_task("b")), may_exist=True)) == Enqueued()
        assert await ask(Count()) == Counted((("default", S.QUEUED, 2),))

    async def test_a_conflict_tells_how_the_stored_task_stands(self, ask: Ask) -> None:
        await ask(register())
        await ask(Enqueue((new_task("t"),)))
        clash = Enqueue((new_task("t", b"other"),), may_exist=True)
        (task,) = await reserved(ask)
        assert await ask(clash) == Conflict("t", S.RUNNING)
        await ask(settle(task, Completed(b"v")))
        assert await ask(clash) == Conflict("t", S.SUCCESS)

    async def test_two_payloads_under_one_id_in_one_op_are_a_conflict(self, ask: Ask) -> None:
        twice = Enqueue((new_task("a"), new_task("a", b"other")), may_exist=True)

        assert isinstance(await ask(twice), Conflict)
        assert await ask(Count()) == Counted(())

    async def test_a_thousand_tasks_are_one_op(self, ask: Ask) -> None:
        await ask(Enqueue(tuple(new_task(f"t{n:04}") for n in range(1000))))
        await ask(register())

        assert await names(ask, limit=1000) == [f"t{n:04}" for n in range(1000)]

    async def test_a_task_keeps_its_policy(self, ask: Ask) -> None:
        policies = [
            TaskPolicy(),
            TaskPolicy(max_crashes=1),
            TaskPolicy(timeout=0.25),
            TaskPolicy(timeout=2.5, retry=RetryPolicy(5, 0.1, 3.0, 77.0, 0.0), max_crashes=9),
        ]
        tasks = tuple(new_task(str(n), policy=policy) for n, policy in enumerate(policies))
        await ask(Enqueue(tasks))
        await ask(register())

        assert [task.policy for task in await reserved(ask)] == policies

    # -- order ---------------------------------------------------------------------------------

    async def test_first_in_first_out(self, ask: Ask) -> None:
        await ask(register())
        for n in range(5):
            await ask(Enqueue((new_task(f"{n}a"), new_task(f"{n}b"))))

        assert await names(ask, limit=3) == ["0a", "0b", "1a"]
        assert await names(ask) == ["1b", "2a", "2b", "3a", "3b", "4a", "4b"]

    async def test_a_larger_priority_runs_sooner_and_equal_ones_as_they_came(
        self, ask: Ask
    ) -> None:
        await ask(register())
        priorities = {"a": 0, "b": -5, "c": 7, "d": 0, "e": 7, "f": 2**31 - 1}
        await ask(Enqueue(tuple(new_task(id_, priority=p) for id_, p in priorities.items())))

        assert await names(ask) == ["f", "c", "e", "a", "d", "b"]

    async def test_a_worker_gets_tasks_of_the_queues_that_it_asks_for(self, ask: Ask) -> None:
        await ask(register())
        tasks = {"a": "mail", "b": "video", "c": "mail", "d": "default"}
        await ask(Enqueue(tuple(new_task(id_, queue=queue) for id_, queue in tasks.items())))

        assert await names(ask, queues=("nothing here",)) == []
        assert await names(ask, queues=("mail",)) == ["a", "c"]
        assert await names(ask, queues=("video", "mail")) == ["b"]
        assert await names(ask, queues=("default",)) == ["d"]

    @pytest.mark.parametrize("queues", [("x", "y", "z"), ("z", "y", "x")])
    async def test_among_several_queues_priority_decides_and_then_who_came_first(
        self, ask: Ask, queues: Any
    ) -> None:
        await ask(register())
        rows = [("a", "x", 0), ("b", "y", 1), ("c", "z", 0), ("d", "x", 1), ("e", "y", 0)]
        await ask(Enqueue(tuple(new_task(id_, queue=q, priority=p) for id_, q, p in rows)))

        assert await names(ask, queues=queues, limit=2) == ["b", "d"]
        assert await names(ask, queues=queues) == ["a", "c", "e"]

    # -- reserve -------------------------------------------------------------------------------

    async def test_a_reserve_gives_no_more_than_its_limit_and_each_task_once(
        self, ask: Ask
    ) -> None:
        await ask(Enqueue(tuple(new_task(str(n)) for n in range(7))))
        for worker_id in ("v", "w"):
            await ask(register(worker_id))

        assert await names(ask, worker_id="v", limit=3) == ["0", "1", "2"]
        assert await names(ask, worker_id="w", limit=1) == ["3"]
        assert await names(ask, worker_id="v", limit=9) == ["4", "5", "6"]
        assert await names(ask, worker_id="w", limit=9) == []

    async def test_a_reservation_says_all_that_its_worker_needs(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(register())
        await ask(Enqueue((new_task("t", b"the call"),)))
        (task,) = await reserved(ask)
        assert (task.id, task.name, task.payload, task.attempt) == ("t", "f", b"the call", 1)

        row = await session.fetch("t")
        assert (row.state, row.attempt, row.crashes, row.finished_ms) == (S.RUNNING, 1, 0, None)
        assert row.enqueued_ms <= row.started_ms <= now_ms()

    async def test_a_worker_that_is_not_registered_gets_nothing(self, ask: Ask) -> None:
        await ask(Enqueue((new_task(),)))

        assert await ask(Reserve("nobody", QUEUES, 1)) == Unregistered()
        assert await ask(Count()) == Counted((("default", S.QUEUED, 1),))

    # -- time ----------------------------------------------------------------------------------

    async def test_a_task_for_later_is_not_given_before_its_time(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(register())
        await ask(
            Enqueue(
                (
                    new_task("by delay", delay_ms=60_000),
                    new_task("by eta", run_at_ms=now_ms() + 90_000),
                    new_task("now"),
                    new_task("past", run_at_ms=now_ms() - 90_000),
                    new_task("long past", run_at_ms=0),
                )
            )
        )

        assert (await session.fetch("by delay")).state is S.SCHEDULED
        assert (await session.fetch("by eta")).state is S.SCHEDULED
        got = await ask(Reserve("w", QUEUES, 100))
        assert [task.id for task in got.tasks] == ["now", "past", "long past"]
        assert 59 < got.next_due_in <= 60

    async def test_an_eta_holds_over_a_delay(self, ask: Ask) -> None:
        await ask(register())
        await ask(Enqueue((new_task(run_at_ms=now_ms() - 1, delay_ms=60_000),)))

        assert await names(ask) == ["t"]

    async def test_what_has_become_due_is_given(self, ask: Ask) -> None:
        await ask(register())
        await ask(Enqueue((new_task("b", delay_ms=200), new_task("a", delay_ms=150))))
        assert await names(ask) == []

        deadline = anyio.current_time() + 5
        got: list[str] = []
        while len(got) < 2 and anyio.current_time() < deadline:
            outcome = await ask(Reserve("w", QUEUES, 1))
            got += [task.id for task in outcome.tasks]
            await anyio.sleep(outcome.next_due_in or 0)
        assert sorted(got) == ["a", "b"]  # a slow machine may find both due at once

    async def test_next_due_in_is_of_the_queues_that_were_asked_for(self, ask: Ask) -> None:
        await ask(register())
        await ask(
            Enqueue(
                (
                    new_task("a", queue="x", delay_ms=50_000),
                    new_task("b", queue="y", delay_ms=20_000),
                    new_task("c", queue="z", delay_ms=10_000),
                )
            )
        )

        for queues, seconds in [(("x",), 50), (("y",), 20), (("x", "y"), 20), (("z", "x"), 10)]:
            assert (await ask(Reserve("w", queues, 1))).next_due_in == pytest.approx(seconds, abs=1)
        assert await ask(Reserve("w", ("none",), 1)) == Reserved(())

    async def test_who_gets_as_many_as_asked_for_is_not_told_when_to_come_again(
        self, ask: Ask
    ) -> None:
        await ask(register())
        await ask(Enqueue((new_task("a"), new_task("b", delay_ms=60_000))))

        full = await ask(Reserve("w", QUEUES, 1))
        assert (len(full.tasks), full.next_due_in) == (1, None)

    async def test_a_due_task_of_priority_goes_before_those_that_wait(self, ask: Ask) -> None:
        await ask(register())
        await ask(Enqueue((new_task("late", priority=9, delay_ms=5), new_task("early"))))
        await anyio.sleep(0.01)

        assert await names(ask) == ["late", "early"]
