"""Any op may be asked again after its answer was lost, and changes nothing the second time.

A reserve is asked again in other words: with what its worker knows to hold.
"""

import pytest

from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Completed,
    Count,
    Enqueue,
    Failed,
    Fetch,
    Op,
    Parked,
    Register,
    Released,
    Renew,
    Rescue,
    Rescued,
    Reserve,
    Retire,
    RetryIn,
    Settled,
    Unpark,
    Unregistered,
    Verdict,
    Watch,
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

IDS = tuple(f"t{n}" for n in range(10))
VERDICTS: list[Verdict] = [
    Completed(b"value"),
    Failed(BOOM),
    RetryIn(0.0, BOOM),
    RetryIn(60.0, BOOM),
    Released(),
    Parked("x", "cannot be read here"),
    Aborted(),
]
AGAIN: list[Op] = [
    Enqueue((new_task("t9"), new_task("new")), may_exist=True),
    Enqueue((new_task("newer"), new_task("t0", b"other")), may_exist=True),
    Cancel("t0"),
    Cancel("t9"),
    Register("new", "host", 7, QUEUES, 4, 60.0),
    Renew("w1", 60.0),
    Retire("w1"),
    Rescue(("w1", "w2")),
    Unpark(("x",)),
]


async def busy(ask: Ask) -> None:
    """Give each of two workers some of the tasks."""
    for worker_id in ("w1", "w2"):
        await ask(register(worker_id))
    await ask(Enqueue(tuple(map(new_task, IDS))))
    for worker_id in ("w1", "w2"):
        await reserved(ask, worker_id=worker_id, limit=3)


async def stands(ask: Ask) -> list[object]:
    looks: list[Op] = [Fetch((*IDS, "new", "newer")), Count(), *map(Watch, ("w1", "w2", "new"))]
    return [await ask(look) for look in looks]


@pytest.mark.anyio
class LostAnswers:
    @pytest.mark.parametrize("op", AGAIN, ids=lambda op: type(op).__name__)
    async def test_what_is_asked_again_changes_nothing(self, ask: Ask, op: Op) -> None:
        await busy(ask)
        first = await ask(op)
        left = await stands(ask)

        again = await ask(op)
        assert await stands(ask) == left
        if isinstance(op, Enqueue | Register | Renew | Unpark):
            assert type(again) is type(first)

    @pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: type(verdict).__name__)
    @pytest.mark.parametrize("asked_to_stop", [False, True], ids=["", "asked to stop"])
    async def test_a_verdict_that_was_stored_is_confirmed_and_not_stored_twice(
        self, ask: Ask, verdict: Verdict, asked_to_stop: bool
    ) -> None:
        await ask(register())
        await ask(Enqueue((new_task(),)))
        (task,) = await reserved(ask)
        if asked_to_stop:
            await ask(Cancel("t"))
        assert await ask(settle(task, verdict)) == Settled(True)
        left = await stands(ask)

        assert await ask(settle(task, verdict)) == Settled(True)
        assert await stands(ask) == left

    @pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: type(verdict).__name__)
    async def test_a_verdict_that_comes_after_a_rescue_is_refused(
        self, ask: Ask, verdict: Verdict
    ) -> None:
        await ask(register())
        await ask(Enqueue((new_task(),)))
        (task,) = await reserved(ask)
        await ask(Rescue(("w",)))
        left = await stands(ask)

        assert await ask(settle(task, verdict)) == Settled(False)
        assert await stands(ask) == left

    async def test_a_reserve_that_is_asked_again_is_given_first_what_the_lost_answer_named(
        self, ask: Ask
    ) -> None:
        for worker_id in ("w1", "w2"):
            await ask(register(worker_id))
        await ask(Enqueue(tuple(map(new_task, IDS))))
        first = await reserved(ask, worker_id="w1", limit=2)
        lost = await reserved(ask, worker_id="w1", limit=3)
        await reserved(ask, worker_id="w2", limit=1)

        known = tuple(task.key.seq for task in first)
        again = (await ask(Reserve("w1", QUEUES, 4, known))).tasks
        assert list(again[:3]) == lost
        assert [task.id for task in again[3:]] == ["t6"]  # t5 is the other worker's

    async def test_no_more_is_given_than_there_are_slots_whatever_was_lost(self, ask: Ask) -> None:
        await ask(register())
        await ask(Enqueue(tuple(map(new_task, IDS))))
        lost = await reserved(ask, limit=3)

        assert list((await ask(Reserve("w", QUEUES, 2, ()))).tasks) == lost[:2]

    async def test_a_worker_whose_lease_has_ended_is_given_nothing_that_was_lost(
        self, ask: Ask
    ) -> None:
        await ask(register())
        await ask(Enqueue((new_task(),)))
        await reserved(ask)
        await ask(Rescue(("w",)))

        assert await ask(Reserve("w", QUEUES, 1, ())) == Unregistered()

    async def test_a_register_that_is_asked_again_keeps_the_tasks(self, ask: Ask) -> None:
        await ask(register("w1"))
        await ask(Enqueue((new_task(),)))
        await reserved(ask, worker_id="w1")
        await ask(register("w1"))
        await ask(register("w2"))

        assert await names(ask, worker_id="w2") == []
        assert await ask(Rescue(("w1",))) == Rescued(("w1",), 1)
