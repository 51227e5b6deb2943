"""In which order asyncio and anyio cancel what they keep in sets.

Both keep tasks in sets, and anyio its cancel scopes too, and cancel them one by one in the order
of those sets. Python hashes such objects by their addresses, so that order would be another on each
machine. The promise: in a virtual run it depends on nothing but the order in which they were made.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anyio._backends import _asyncio as anyio_on_asyncio

from sitq.adapters.virtual import run_of_caller

T = TypeVar("T")


class _Task(asyncio.Task[T]):
    """A task with a number to be hashed by."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, T], **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


def tasks_with_numbers() -> Callable[..., asyncio.Task[Any]]:
    """Return a task factory."""
    numbers = itertools.count(1)

    def make(
        loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        number = next(numbers)
        if options.get("name") is None:
            options["name"] = f"Task-{number}"  # asyncio's own numbers go on from run to run
        return _Task(number, coro, loop=loop, **options)

    return make


class _InOrder(dict[Any, None]):
    """A set, as far as anyio makes use of one, in the order in which things were added."""

    # A task moves in and out of a dozen of them.
    add = dict.setdefault
    remove = dict.__delitem__

    def discard(self, item: Any) -> None:
        self.pop(item, None)


def _new_set(*items: Any) -> Any:
    return set(*items) if items or run_of_caller.get() is None else _InOrder()


def sets_in_order() -> None:
    """Give `set` this meaning in anyio's module for asyncio, for good.

    Outside of virtual runs it means there what it always did. This is the one place that touches
    anyio itself; a test holds anyio to it.
    """
    anyio_on_asyncio.set = _new_set  # type: ignore[attr-defined]
