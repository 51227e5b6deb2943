"""Who has a say in what new tasks of the running event loop run."""

from collections.abc import Callable, Coroutine
from typing import Any

from sitq.adapters.current import current_loop


def change_what_tasks_run(
    change: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]],
) -> None:
    """From here on, new tasks run what *change* makes of their coroutine, in their context.

    For virtual runs, whose event loop is gone afterwards.
    """
    if current_loop().name == "trio":
        from sitq.testing.processes import spawning_on_trio as here
    else:
        from sitq.testing.processes import spawning_on_asyncio as here  # type: ignore[no-redef]
    here.change_what_tasks_run(change)
