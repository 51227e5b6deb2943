"""On trio: who has a say in what new tasks run."""

from collections.abc import Callable, Coroutine
from typing import Any

import trio


def change_what_tasks_run(
    change: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]],
) -> None:
    """From here on, new tasks of the running loop run what *change* makes of their coroutine."""
    trio.lowlevel.add_instrument(_Spawning(change))


class _Spawning(trio.abc.Instrument):
    def __init__(
        self, change: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]
    ) -> None:
        self._change = change

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Called before it runs for the first time, and in the context of its parent."""
        change: Any = self._change  # trio needs no more of it than what all coroutines have
        task.coro = task.context.run(change, task.coro)
