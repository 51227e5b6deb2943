"""trio's own calls."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import trio

F = TypeVar("F")
T = TypeVar("T")


def is_here() -> bool:
    """Say whether the caller runs in a trio event loop."""
    return trio.lowlevel.in_trio_run()


class TrioLoop:
    name = "trio"

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    def time(self) -> float:
        return trio.current_time()

    def soon(self, function: Callable[[], object]) -> None:
        self.soon_from_thread(function)

    def soon_from_thread(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # nobody listens any more
            self._token.run_sync_soon(function)

    def task_group(self) -> AbstractAsyncContextManager[trio.Nursery]:
        return trio.open_nursery()

    async def answer(self, ask: Callable[[Callable[[T], object]], object]) -> T:
        task = trio.lowlevel.current_task()
        answers: list[T] = []
        waits = False

        def give(answer: T) -> None:
            answers.append(answer)
            if waits:
                trio.lowlevel.reschedule(task)

        def give_up(raise_cancel: object) -> trio.lowlevel.Abort:  # noqa: ARG001
            nonlocal waits
            waits = False
            return trio.lowlevel.Abort.SUCCEEDED

        ask(give)
        if answers:
            await trio.lowlevel.checkpoint()
        else:
            waits = True
            await trio.lowlevel.wait_task_rescheduled(give_up)
        return answers[0]

    def scope(self) -> trio.CancelScope:
        return trio.CancelScope(shield=True)

    def watch(self, descriptor: int, readable: Callable[[], object]) -> Callable[[], object]:
        ended = False

        async def look() -> None:
            with contextlib.suppress(trio.ClosedResourceError):
                while not ended:  # *readable* may have ended it, and closed the descriptor
                    await trio.lowlevel.wait_readable(descriptor)
                    readable()

        def end() -> None:
            nonlocal ended
            ended = True
            trio.lowlevel.notify_closing(descriptor)

        trio.lowlevel.spawn_system_task(look)
        return end

    def when_writable(self, descriptor: int, function: Callable[[], object]) -> None:
        async def wait() -> None:
            with contextlib.suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_writable(descriptor)
                function()

        trio.lowlevel.spawn_system_task(wait)

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        async def wait() -> None:
            await trio.sleep(seconds)
            function()

        trio.lowlevel.spawn_system_task(wait)

    def is_over(self) -> bool:
        try:
            self._token.run_sync_soon(_nothing)
        except trio.RunFinishedError:
            return True
        return False

    def is_current(self) -> bool:
        return is_here() and trio.lowlevel.current_trio_token() is self._token

    def cancelled_outside(self) -> Callable[[], bool]:
        return lambda: False  # trio cancels by scopes only

    async def clear_own_cancellation(self) -> None:
        pass

    def guard(self, function: F) -> F:
        """Let Ctrl-C reach the main task, and not whichever task happens to run."""
        return trio.lowlevel.enable_ki_protection(function)  # type: ignore[type-var]


def _nothing() -> None:
    pass
