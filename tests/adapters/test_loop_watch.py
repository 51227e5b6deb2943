"""A task that keeps the event loop busy is named, with the place where it stands."""

import logging
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from sitq import MemoryBackend, TaskQueue, Worker

pytestmark = pytest.mark.anyio

SOON = 0.3
PATIENCE = 20.0


@pytest.fixture
def said(tmp_path):
    """The file of the worker's log: a task that blocks can read it, wherever it is unpickled."""
    handler = logging.FileHandler(tmp_path / "log")
    log = logging.getLogger("sitq.worker")
    log.addHandler(handler)
    yield tmp_path / "log"
    log.removeHandler(handler)
    handler.close()


def deep_down(said: Path, seconds: float) -> None:
    """Keep the thread until something was said, or for *seconds*."""
    give_up_at = time.monotonic() + seconds
    while not said.read_text() and time.monotonic() < give_up_at:
        time.sleep(0.01)


async def hold_the_loop(said: Path, seconds: float) -> str:
    await anyio.lowlevel.checkpoint()
    deep_down(said, seconds)
    return "done"


async def nothing() -> str:
    return "done"


async def test_the_task_that_blocks_is_named_with_its_stack_and_its_end_is_told(said) -> None:
    async with MemoryBackend() as backend:
        queue = TaskQueue(backend)
        async with Worker(backend, poll_interval=0.02, blocked_after=SOON):
            task_id = await queue.enqueue(hold_the_loop, said, PATIENCE)
            assert await queue.result(task_id, timeout=30) == "done"
            blocked = said.read_text()
            with anyio.fail_after(30):
                while said.read_text() == blocked:  # noqa: ASYNC110  # a thread writes it
                    await anyio.sleep(0.01)
    assert blocked.startswith(f"task {task_id} (")
    assert "hold_the_loop) has kept the event loop busy for" in blocked
    assert "in hold_the_loop" in blocked
    assert "in deep_down" in "".join(blocked.splitlines()[-4:])
    assert "sitq/adapters" not in blocked
    assert said.read_text()[len(blocked) :].startswith("the event loop answers again, after ")


async def test_whoever_else_blocks_it_is_shown_and_called_no_task(said) -> None:
    async with MemoryBackend() as backend:
        queue = TaskQueue(backend)
        async with Worker(backend, poll_interval=0.02, blocked_after=SOON):
            assert await queue.result(await queue.enqueue(nothing), timeout=30) == "done"
            deep_down(said, PATIENCE)
    assert said.read_text().startswith("something that is no task of this worker has kept")
    assert "in deep_down" in said.read_text()


async def test_it_can_be_turned_off(said) -> None:
    async with MemoryBackend() as backend:
        queue = TaskQueue(backend)
        async with Worker(backend, poll_interval=0.02, blocked_after=None):
            task_id = await queue.enqueue(hold_the_loop, said, 2.5)
            assert await queue.result(task_id, timeout=30) == "done"
    assert not said.read_text()
