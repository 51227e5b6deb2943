"""A process that is killed or paused in a virtual run, and what dead means.

It stands for a worker and all that it runs. The points of a process are counted as they are passed:
where its task comes back from an await, where it has recorded an effect, and where it has returned.
If a point was chosen, the process dies there.

The promises: nothing of a process that is dead or paused runs, no `finally` and no `except`. To
others it looks as a killed one does: its lease runs out, and no word comes of it. When the run is
over it goes on to where it is cancelled, so that the event loop can end; nothing that it records
counts any more.

One thing cannot be stopped between two awaits: a function that has just recorded an effect. It is
left by an exception that is none of the usual ones.
"""

import inspect
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import anyio

from sitq.testing.crashes.point import CrashPoint, after_await

T = TypeVar("T")


class Killed(BaseException):  # a task that catches every Exception does not catch a SIGKILL
    """Leaves plain code whose process has died."""


class Process:
    """From the start of a worker until it dies, at the point number *ends_after* if that is one."""

    def __init__(self, ends_after: int | None = None) -> None:
        self.points: list[CrashPoint] = []
        self.is_dead = False
        self.died = anyio.Event()
        self._ends_after = ends_after
        self._run_is_over = False
        self._goes_on: anyio.Event | None = None  # while it is held

    @property
    def is_held(self) -> bool:
        """Whether nothing of it may run: it is paused, or dead while its run goes on."""
        return self._goes_on is not None

    def pause(self) -> None:
        """Let it stand still until `go_on()`."""
        if self._goes_on is None:
            self._goes_on = anyio.Event()

    def go_on(self) -> None:
        """Let it run again, unless it has died meanwhile."""
        if self._goes_on is not None and (not self.is_dead or self._run_is_over):
            self._goes_on.set()
            self._goes_on = None

    def die(self) -> None:
        """End it here and now."""
        self.is_dead = True
        self.died.set()
        self.pause()

    def passed(self, point: CrashPoint) -> None:
        """Count *point*; the caller looks then whether it is still alive."""
        if self.is_dead:
            return
        if self._ends_after == len(self.points):
            self.die()
        self.points.append(point)

    def recorded(self, point: CrashPoint) -> None:
        """Count an effect; raise `Killed` if it was the last one."""
        self.passed(point)
        if self.is_dead:
            raise Killed

    def may_record(self) -> bool:
        """Say whether what happens now still counts; raise `Killed` where nothing may happen."""
        if self.is_dead and not self._run_is_over:
            raise Killed
        return not self.is_dead

    def end_run(self) -> None:
        """Let go of what was held: it is about to be cancelled."""
        self._run_is_over = True
        self.go_on()

    async def held(self) -> BaseException | None:
        """Stand still for as long as it is held; return a cancellation that came meanwhile."""
        cancelled: BaseException | None = None
        while self._goes_on is not None:
            try:
                with anyio.CancelScope(shield=True):
                    await self._goes_on.wait()
            except anyio.get_cancelled_exc_class() as error:  # asyncio's own, which no scope keeps
                cancelled = error
        return cancelled


process_of_caller: Final[ContextVar[Process | None]] = ContextVar("sitq_process", default=None)


class InProcess(Coroutine[Any, Any, T]):
    """Drives *coroutine* for as long as *process* lasts; *counts*: its awaits are points of it."""

    def __init__(
        self, process: Process, coroutine: Coroutine[Any, Any, T], *, counts: bool
    ) -> None:
        self._coroutine = coroutine
        self._steps = self._drive(process, counts)

    def _drive(self, process: Process, counts: bool) -> Generator[Any, Any, T]:
        error: BaseException | None = None
        answer: Any = None
        while True:
            if process.is_held:
                error = (yield from process.held().__await__()) or error
            try:
                asked = self._step(answer, error)
            except StopIteration as end:
                value: T = end.value
                return value
            point = after_await(self._coroutine) if counts and not process.is_dead else None
            answer, error = None, None
            try:
                answer = yield asked
            except GeneratorExit:
                raise
            except BaseException as raised:  # noqa: BLE001  # it is for the one who awaits
                error = raised
            if point is not None:
                process.passed(point)

    def _step(self, answer: Any, error: BaseException | None) -> Any:
        if error is None:
            return self._coroutine.send(answer)
        return self._coroutine.throw(error)

    def send(self, value: Any) -> Any:
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        if inspect.getgeneratorstate(self._steps) == inspect.GEN_CREATED:
            self._coroutine.close()  # it was cancelled before it began
        return self._steps.throw(*error)

    def close(self) -> None:
        self._steps.close()
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._steps


def beside_its_parent(
    coroutine: Coroutine[Any, Any, Any], *, counts: bool
) -> Coroutine[Any, Any, Any]:
    """Have what a new task runs belong to the process that starts it, if that is one."""
    process = process_of_caller.get()
    return coroutine if process is None else InProcess(process, coroutine, counts=counts)
