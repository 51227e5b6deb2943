"""On asyncio: who has a say in what new tasks run."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def change_what_tasks_run(
    change: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]],
) -> None:
    """From here on, new tasks of the running loop run what *change* makes of their coroutine."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    assert factory is not None, "a virtual loop has one of its own"

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        return factory(loop, change(coro), **options)

    loop.set_task_factory(make)
