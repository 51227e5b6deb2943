"""The same seed tells the same story: in any process, for any hash seed, on any machine."""

import contextlib
import os
import subprocess
import sys

import anyio

from sitq import testing
from tests.testing import story


def told_elsewhere(*arguments: str, options=(), **environment: str) -> list[str]:
    """Tell the story in a process of its own."""
    done = subprocess.run(
        [sys.executable, *options, "-m", "tests.testing.story", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_story_is_the_same_in_every_process(loop) -> None:
    here = story.tell(loop, 1)

    assert len(here) > 60
    assert told_elsewhere(loop, "1", PYTHONHASHSEED="1") == here
    # Without assertions, all that is made lies elsewhere in memory.
    assert told_elsewhere(loop, "1", options=["-O"], PYTHONHASHSEED="2") == here


def test_the_story_is_the_same_on_a_file(loop, tmp_path) -> None:
    first = told_elsewhere(loop, "1", str(tmp_path / "1.db"), PYTHONHASHSEED="1")

    assert told_elsewhere(loop, "1", str(tmp_path / "2.db"), PYTHONHASHSEED="2") == first


def test_another_seed_tells_another_story(loop) -> None:
    stories = {tuple(story.tell(loop, seed)) for seed in range(3)}

    assert len(stories) == 3


def test_in_any_story_the_same_happens_to_the_tasks(loop) -> None:
    """Only the order and the names differ: each is a story that the loop allows."""
    endings = [
        sorted(line.split()[3:6] for line in story.tell(loop, seed) if "-" in line)
        for seed in range(3)
    ]

    assert endings[0] == endings[1] == endings[2]


def test_the_order_of_timers_is_the_seeds(run) -> None:
    async def main() -> list[int]:
        order = []

        async def sleep(n: int) -> None:
            await anyio.sleep(10)
            order.append(n)

        async with anyio.create_task_group() as sleepers:
            for n in range(20):
                sleepers.start_soon(sleep, n)
        return order

    assert run(main, seed=1) == run(main, seed=1) != run(main, seed=2)


def test_what_asyncio_calls_soon_stays_in_its_order() -> None:
    import asyncio

    async def main() -> list[int]:
        order: list[int] = []
        for n in range(20):
            asyncio.get_running_loop().call_soon(order.append, n)
        await asyncio.sleep(1)
        return order

    for seed in range(5):
        assert testing.run(main, seed=seed) == list(range(20))


def test_what_is_cancelled_together_is_cancelled_in_order() -> None:
    import asyncio

    async def main() -> list[int]:
        order = []

        async def wait(n: int) -> None:
            try:
                with anyio.CancelScope():
                    await anyio.sleep_forever()
            finally:
                order.append(n)

        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(wait, n)
            await anyio.sleep(1)
            group.cancel_scope.cancel()
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as other:
                for n in range(20, 40):
                    other.create_task(wait(n))
                await asyncio.sleep(1)
                raise ValueError
        return order

    assert testing.run(main) == list(range(40))


def test_a_trio_in_another_thread_does_not_meddle() -> None:
    import threading

    import trio

    def elsewhere() -> None:
        async def spin() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(trio.lowlevel.checkpoint)

        trio.run(spin)

    async def main(between) -> list[str]:
        lines = []

        async def sleep(n: int) -> None:
            await anyio.sleep(10)
            between()
            lines.append(f"{n} {testing.now()}")
            await anyio.sleep(1)
            lines.append(f"{n} {testing.now()}")

        async with anyio.create_task_group() as sleepers:
            for n in range(10):
                sleepers.start_soon(sleep, n)
        return lines

    def spin_elsewhere() -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    alone = testing.run(main, lambda: None, backend="trio")
    assert testing.run(main, spin_elsewhere, backend="trio") == alone
