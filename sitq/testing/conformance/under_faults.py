"""A store that refuses, doubts and dawdles: callers are told the truth, and no task is lost.

The faults come between the store and its driver, as those of a disk or of a network would.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sitq.backends.base import Backend
from sitq.exceptions import CommitUnknownError, EnqueueUnknown, StoreError
from sitq.protocol import lease, worker
from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import Count, Counted, Enqueue, Enqueued, Fetch
from sitq.queue import TaskQueue
from sitq.task import Retry
from sitq.testing.conformance.asked import new_task
from sitq.testing.conformance.faulty import SLOW, Fault, Faulty, now_and_then
from sitq.worker import Worker

runs: Counter[int] = Counter()


async def work(n: int) -> int:
    """Is called by reference, so that its runs are counted here."""
    runs[n] += 1
    if n % 5 == 0 and runs[n] == 1:
        raise ConnectionError("not at once")
    return n * n


def apply(backend: Backend, *ops: Any) -> Any:
    """Ask the store itself, past all faults."""
    store = backend.open_store()
    try:
        return store.apply(ops)
    finally:
        store.close()


@pytest.mark.anyio
class UnderFaults:
    @pytest.fixture
    async def faulty(self, backend: Backend) -> Any:
        """Make a faulty backend of the one of the test; the first batch has the first fault."""
        made: list[Faulty] = []

        def make(faults: Iterable[Fault | None]) -> Faulty:
            made.append(Faulty(backend, iter(faults)))
            return made[-1]

        yield make
        for one in made:
            await one.close()

    async def test_what_was_refused_is_not_stored_and_can_be_asked_again(
        self, backend: Backend, faulty: Callable[..., Faulty]
    ) -> None:
        writer = (await faulty([Fault.REFUSED]).session()).writer
        with pytest.raises(StoreError, match="nothing was stored"):
            await writer.submit(Enqueue((new_task("a"), new_task("b"))))
        assert apply(backend, Count()) == (Counted(()),)

        assert await writer.submit(Enqueue((new_task("a"), new_task("b")))) == (Enqueued(),)
        assert apply(backend, Count()) == (Counted((("default", TaskState.QUEUED, 2),)),)

    @pytest.mark.parametrize("fault", [Fault.IN_DOUBT, Fault.LOST_ANSWER])
    async def test_what_is_in_doubt_is_said_to_be_and_can_be_asked_again(
        self, backend: Backend, faulty: Callable[..., Faulty], fault: Fault
    ) -> None:
        writer = (await faulty([fault]).session()).writer
        op = Enqueue((new_task("a"), new_task("b")), may_exist=True)
        with pytest.raises(CommitUnknownError):
            await writer.submit(op)
        stored = [("default", TaskState.QUEUED, 2)] if fault is Fault.LOST_ANSWER else []
        assert apply(backend, Count()) == (Counted(tuple(stored)),)

        assert await writer.submit(op) == (Enqueued(),)
        assert apply(backend, Count()) == (Counted((("default", TaskState.QUEUED, 2),)),)

    async def test_who_gives_up_on_a_slow_store_leaves_the_op_whole(
        self, backend: Backend, faulty: Callable[..., Faulty]
    ) -> None:
        session = await faulty([Fault.SLOW]).session()
        with anyio.move_on_after(SLOW / 5) as scope:
            await session.writer.submit(Enqueue((new_task("a"), new_task("b"))))

        assert scope.cancelled_caught
        await session.writer.submit(Enqueue((new_task("last"),)))
        (fetched,) = apply(backend, Fetch(("a", "b", "last")))
        assert set(fetched.rows) == {"a", "b", "last"}

    @pytest.mark.parametrize("seed", range(3))
    async def test_every_task_ends_and_none_is_run_again_for_a_fault(
        self,
        backend: Backend,
        faulty: Callable[..., Faulty],
        seed: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(worker, "STORE_BACKOFF", 0.01)
        monkeypatch.setattr(worker, "LONGEST_BACKOFF", 0.05)
        monkeypatch.setattr(lease, "FIRST_PAUSE", 0.01)
        runs.clear()
        bad = faulty(now_and_then(seed))
        queue = TaskQueue(bad).using(retry=Retry(attempts=3, delay=0.0))
        ids = [f"t{n}" for n in range(25)]
        async with Worker(bad, max_concurrency=4, poll_interval=0.05):
            with anyio.fail_after(20):
                for n, task_id in enumerate(ids):
                    await _enqueue(queue, task_id, n)
                await _all_ended(backend, len(ids))

        good = TaskQueue(backend)
        assert [await good.result(task_id) for task_id in ids] == [n * n for n in range(25)]
        assert runs == {n: 2 if n % 5 == 0 else 1 for n in range(25)}


async def _enqueue(queue: Any, task_id: str, n: int) -> None:
    """Ask until it is known to be stored; under the same id, so that it is stored once."""
    while True:
        try:
            await queue.using(task_id=task_id).enqueue(work, n)
        except (StoreError, EnqueueUnknown):
            continue
        return


async def _all_ended(backend: Backend, tasks: int) -> None:
    def ended() -> bool:
        (counted,) = apply(backend, Count())
        return bool(counted == Counted((("default", TaskState.SUCCESS, tasks),)))

    while not await anyio.to_thread.run_sync(ended):  # noqa: ASYNC110  # a store has no event
        await anyio.sleep(0.02)
