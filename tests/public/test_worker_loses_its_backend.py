"""A backend that is closed under a worker that runs ends the worker, and says why."""

import anyio
import pytest

from sitq import BackendClosedError, TaskQueue, Worker

pytestmark = pytest.mark.anyio


async def test_the_worker_ends_with_a_plain_error_and_its_task_goes_back(make_backend) -> None:
    backend = make_backend()
    queue = TaskQueue(backend)

    async def start() -> None:
        with pytest.raises(BackendClosedError, match="closed"):
            await Worker(backend, poll_interval=0.01, max_concurrency=2).start()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            task_id = await queue.enqueue(anyio.sleep_forever)
            while (await backend.session()).hints._holders == {}:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            await anyio.sleep(0.05)
            await backend.close()

    await backend.connect()
    row = await (await backend.session()).fetch(task_id)
    assert (row.state, row.attempt, row.crashes) == ("queued", 0, 0)
    await backend.close()
