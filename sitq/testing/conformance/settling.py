"""Every backend: one end for each task, said by the one who holds it, and cancelling."""

from typing import Any

import pytest

from sitq.protocol.lifecycle import FINAL, TaskState as S
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Enqueue,
    Failed,
    Parked,
    Released,
    Rescue,
    Retire,
    RetryIn,
    Settled,
    TaskKey,
    Unpark,
)
from sitq.testing.conformance.asked import BOOM, Ask, names, new_task, register, reserved, settle

VERDICTS = {
    "completed": (Completed(b"value"), S.SUCCESS),
    "failed": (Failed(BOOM), S.FAILED),
    "retried": (RetryIn(60.0, BOOM), S.SCHEDULED),
    "released": (Released(), S.QUEUED),
    "parked": (Parked("cloudpickle-4.0", "cannot be read here"), S.PARKED),
    "aborted": (Aborted(), S.CANCELLED),
}


# -- fencing -------------------------------------------------------------------------------


async def stands(session: Any) -> tuple[Any, ...]:
    row = await session.fetch("t")
    return row.state, row.value, row.error, row.attempt


async def lost_by_rescue(ask: Ask) -> None:
    await ask(Rescue(("w",)))


async def lost_by_retiring(ask: Ask) -> None:
    await ask(Retire("w"))


@pytest.mark.anyio
class Settling:
    @pytest.fixture(params=list(VERDICTS.values()), ids=list(VERDICTS))
    def verdict(self, request: Any) -> Any:
        """A verdict, and the state that it leads to."""
        return request.param

    @pytest.fixture
    async def task(self, ask: Ask) -> Any:
        """A task in the hands of `w`."""
        await ask(register())
        await ask(Enqueue((new_task(),)))
        (task,) = await reserved(ask)
        return task

    # -- verdicts ------------------------------------------------------------------------------

    async def test_a_verdict_leads_to_its_state(
        self, ask: Ask, session: Any, task: Any, verdict: Any
    ) -> None:
        said, state = verdict
        assert await ask(settle(task, said)) == Settled(True)

        row = await session.fetch("t")
        assert row.state is state
        assert (row.finished_ms is not None) == (state in FINAL)
        # What was handed back unharmed is not charged.
        assert row.attempt == (0 if state in {S.QUEUED, S.PARKED} else 1)
        assert row.crashes == 0

    async def test_what_a_task_returned_is_kept(self, ask: Ask, session: Any, task: Any) -> None:
        await ask(settle(task, Completed(b"value")))

        row = await session.fetch("t")
        assert (row.value, row.error, row.reason) == (b"value", None, None)
        assert row.enqueued_ms <= row.started_ms <= row.finished_ms

    async def test_what_went_wrong_is_kept(self, ask: Ask, session: Any, task: Any) -> None:
        await ask(settle(task, Failed(BOOM)))

        row = await session.fetch("t")
        assert (row.error, row.error_type) == ("boom", "ValueError")
        assert (row.traceback, row.reason) == ("the traceback", "the reason")
        assert row.value is None

    async def test_a_retry_waits_and_comes_back_as_another_attempt(
        self, ask: Ask, session: Any, task: Any
    ) -> None:
        await ask(settle(task, RetryIn(0.0, BOOM)))
        row = await session.fetch("t")
        assert (row.state, row.error, row.attempt) == (S.SCHEDULED, "boom", 1)

        (again,) = await reserved(ask)
        assert again.attempt == 2
        assert again.key.seq == task.key.seq
        assert again.key.token > task.key.token
        await ask(settle(again, Completed(b"v")))
        row = await session.fetch("t")
        assert (row.attempt, row.value, row.error, row.traceback) == (2, b"v", None, None)

    async def test_what_is_released_comes_back_uncharged_and_in_its_old_place(
        self, ask: Ask, task: Any
    ) -> None:
        await ask(Enqueue((new_task("younger"),)))
        await ask(settle(task, Released()))

        first, second = await reserved(ask)
        assert [first.id, second.id] == ["t", "younger"]
        assert first.attempt == 1
        assert first.key.token > task.key.token

    async def test_what_is_parked_waits_for_its_stamp(
        self, ask: Ask, session: Any, task: Any
    ) -> None:
        await ask(settle(task, Parked("x-2", "cannot be read here")))
        assert await names(ask) == []
        row = await session.fetch("t")
        assert (row.state, row.error) == (S.PARKED, "cannot be read here")

        assert (await ask(Unpark(("x-1", "x-3")))).tasks == 0
        assert (await ask(Unpark(()))).tasks == 0
        assert (await ask(Unpark(("x-1", "x-2")))).tasks == 1
        assert (await ask(Unpark(("x-1", "x-2")))).tasks == 0
        assert (await session.fetch("t")).error is None
        (again,) = await reserved(ask)
        assert again.attempt == 1

    async def test_another_worker_cannot_settle_it(
        self, ask: Ask, session: Any, task: Any, verdict: Any
    ) -> None:
        await ask(register("thief"))
        before = await stands(session)

        assert await ask(settle(task, verdict[0], "thief")) == Settled(False)
        assert await ask(settle(task, verdict[0], "nobody")) == Settled(False)
        assert await stands(session) == before

    async def test_a_token_that_was_never_given_settles_nothing(
        self, ask: Ask, session: Any, task: Any, verdict: Any
    ) -> None:
        before = await stands(session)
        for key in [
            TaskKey(task.key.seq, task.key.token + 1),
            TaskKey(task.key.seq, task.key.token - 1),
            TaskKey(task.key.seq + 1, task.key.token),
        ]:
            assert await ask(settle(task._replace(key=key), verdict[0])) == Settled(False)
        assert await stands(session) == before

    @pytest.mark.parametrize("lost", [lost_by_rescue, lost_by_retiring])
    async def test_a_worker_that_lost_its_lease_cannot_settle_once_another_has_the_task(
        self, ask: Ask, session: Any, task: Any, verdict: Any, lost: Any
    ) -> None:
        await lost(ask)
        await ask(register("other"))
        (theirs,) = await reserved(ask, worker_id="other")
        before = await stands(session)

        assert await ask(settle(task, verdict[0])) == Settled(False)
        assert await stands(session) == before
        assert await ask(settle(theirs, Completed(b"theirs"), "other")) == Settled(True)
        assert await ask(settle(task, verdict[0])) == Settled(False)
        assert (await session.fetch("t")).value == b"theirs"

    @pytest.mark.parametrize("lost", [lost_by_rescue, lost_by_retiring])
    async def test_a_lost_lease_fences_its_worker_off_at_once(
        self, ask: Ask, session: Any, task: Any, verdict: Any, lost: Any
    ) -> None:
        await lost(ask)
        before = await stands(session)

        assert await ask(settle(task, verdict[0])) == Settled(False)
        await ask(register())  # not even under its old name
        assert await ask(settle(task, verdict[0])) == Settled(False)
        assert await stands(session) == before

    async def test_a_settle_that_is_asked_again_is_known_and_changes_nothing(
        self, ask: Ask, session: Any, task: Any, verdict: Any
    ) -> None:
        said, state = verdict
        assert await ask(settle(task, said)) == Settled(True)
        before = await session.fetch("t")

        assert await ask(settle(task, said)) == Settled(True)
        assert await session.fetch("t") == before
        assert before.state is state

    async def test_the_first_of_two_verdicts_holds(self, ask: Ask, session: Any, task: Any) -> None:
        await ask(settle(task, Completed(b"first")))
        await ask(settle(task, Failed(BOOM)))
        await ask(settle(task, Completed(b"third")))

        row = await session.fetch("t")
        assert (row.state, row.value, row.error) == (S.SUCCESS, b"first", None)

    async def test_settles_of_one_group_are_judged_each_for_itself(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(register())
        await ask(Enqueue(tuple(new_task(str(n)) for n in range(4))))
        tasks = await reserved(ask)
        stale = tasks[1]._replace(key=TaskKey(tasks[1].key.seq, 99))

        answers = await session.writer.submit(
            settle(tasks[0], Completed(b"0")),
            settle(stale, Completed(b"1")),
            settle(tasks[2], Failed(BOOM)),
            settle(tasks[3], Completed(b"3"), "thief"),
        )
        assert answers == (Settled(True), Settled(False), Settled(True), Settled(False))
        states = [(await session.fetch(str(n))).state for n in range(4)]
        assert states == [S.SUCCESS, S.RUNNING, S.FAILED, S.RUNNING]

    # -- cancelling ----------------------------------------------------------------------------

    async def test_what_waits_is_cancelled_at_once(self, ask: Ask, session: Any) -> None:
        await ask(register())
        await ask(Enqueue((new_task("parked"),)))
        (parked,) = await reserved(ask)
        await ask(settle(parked, Parked("x", "text")))
        await ask(Enqueue((new_task("queued"), new_task("scheduled", delay_ms=60_000))))

        for id_, was in [("parked", S.PARKED), ("queued", S.QUEUED), ("scheduled", S.SCHEDULED)]:
            assert (await ask(Cancel(id_))).was is was
            row = await session.fetch(id_)
            assert (row.state, row.reason) == (S.CANCELLED, "user")
            assert row.finished_ms is not None
        assert await names(ask) == []
        assert (await ask(Unpark(("x",)))).tasks == 0

    async def test_what_has_ended_or_never_was_is_not_cancelled(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(register())
        await ask(Enqueue((new_task("a"), new_task("b"), new_task("c"))))
        a, b, _ = await reserved(ask)
        await ask(settle(a, Completed(b"v")))
        await ask(settle(b, Failed(BOOM)))
        for id_, was in [("a", S.SUCCESS), ("b", S.FAILED), ("never", None)]:
            before = await session.fetch(id_)
            assert await ask(Cancel(id_)) == Cancelled(was)
            assert await session.fetch(id_) == before

    async def test_cancelling_again_is_answered_and_changes_nothing(
        self, ask: Ask, session: Any
    ) -> None:
        await ask(Enqueue((new_task(),)))
        await ask(Cancel("t"))
        before = await session.fetch("t")

        assert await ask(Cancel("t")) == Cancelled(S.CANCELLED)
        assert await session.fetch("t") == before

    async def test_what_runs_is_only_asked_to_stop_and_its_holder_is_named(
        self, ask: Ask, session: Any, task: Any
    ) -> None:
        assert await ask(Cancel("t")) == Cancelled(S.RUNNING, "w", task.key)
        assert await ask(Cancel("t")) == Cancelled(S.RUNNING, "w", task.key)
        assert (await session.fetch("t")).state is S.RUNNING

    @pytest.mark.parametrize(
        ("said", "state"),
        [
            (Completed(b"v"), S.SUCCESS),  # it had ended already
            (Failed(BOOM), S.FAILED),
            (Aborted(), S.CANCELLED),
            (Released(), S.CANCELLED),  # none of these three bring it back
            (RetryIn(0.0, BOOM), S.CANCELLED),
            (Parked("x", "text"), S.CANCELLED),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, S) else value,
    )
    async def test_what_was_asked_to_stop_ends_and_does_not_come_back(
        self, ask: Ask, session: Any, task: Any, said: Any, state: Any
    ) -> None:
        await ask(Cancel("t"))
        assert await ask(settle(task, said)) == Settled(True)

        row = await session.fetch("t")
        assert row.state is state
        assert row.reason == {S.CANCELLED: "user", S.FAILED: "the reason"}.get(state)
        assert await names(ask) == []

    @pytest.mark.parametrize("lost", [lost_by_rescue, lost_by_retiring])
    async def test_what_was_asked_to_stop_is_cancelled_when_its_worker_is_gone(
        self, ask: Ask, session: Any, task: Any, lost: Any
    ) -> None:
        await ask(Cancel("t"))
        await lost(ask)

        row = await session.fetch("t")
        assert (row.state, row.reason, row.crashes) == (S.CANCELLED, "user", 0)
        assert await ask(settle(task, Completed(b"late"))) == Settled(False)
        assert (await session.fetch("t")).state is S.CANCELLED

    async def test_a_wish_to_cancel_does_not_outlive_its_attempt(
        self, ask: Ask, session: Any, task: Any
    ) -> None:
        """A task that is retried and cancelled while it waits is cancelled, once."""
        await ask(settle(task, RetryIn(60.0, BOOM)))
        assert await ask(Cancel("t")) == Cancelled(S.SCHEDULED)

        assert (await session.fetch("t")).state is S.CANCELLED
        assert await ask(settle(task, Completed(b"late"))) == Settled(
            True
        )  # its answer was lost, say
        assert (await session.fetch("t")).value is None
