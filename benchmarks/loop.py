"""What a workload needs of an event loop, on asyncio and on trio, without a library between.

Most peers know asyncio alone, and their environments have nothing but what they need themselves.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

Loop: TypeAlias = Literal["asyncio", "trio"]
Job: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]
Start: TypeAlias = Callable[[Job], object]


def run(main: Job, name: Loop) -> None:
    if name == "trio":
        import trio

        trio.run(main)
    else:
        asyncio.run(main())


async def sleep(seconds: float) -> None:
    if _on_trio():
        import trio

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def together(jobs: Iterable[Job]) -> None:
    """Run them at the same time, until all have ended."""
    async with group() as start:
        for job in jobs:
            start(job)


@asynccontextmanager
async def group() -> AsyncIterator[Start]:
    """Give a function that starts jobs beside the block, which waits for them at its end."""
    if _on_trio():
        import trio

        async with trio.open_nursery() as nursery:
            yield nursery.start_soon
    else:
        async with asyncio.TaskGroup() as tasks:
            yield lambda job: tasks.create_task(job())


def _on_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    import trio

    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
