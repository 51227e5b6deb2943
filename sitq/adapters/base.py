"""The seams: what applies a batch, and what an event loop must be able to do."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from sitq.adapters.hints import Heard, told_nobody
from sitq.exceptions import (
    BackendClosedError,
    CommitUnknownError,
    FileReplacedError,
    NewerSchemaError,
    SitqError,
    StoreError,
)
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Op, Outcome

F = TypeVar("F")
T = TypeVar("T")
Answer: TypeAlias = "tuple[Outcome, ...] | BatchError"

FOR_GOOD: Final = (BackendClosedError, FileReplacedError, NewerSchemaError)
"""What no later attempt can mend: a worker ends with it, rather than try again for ever."""


class BatchError(Exception):
    """A batch was not applied, or it is not known whether it was; *blame* tells which."""

    def __init__(self, error: Exception, blame: Blame) -> None:
        super().__init__(str(error))
        self.error = error
        self.blame = blame


def refused(error: Exception | None) -> SitqError:
    """Return what a caller is told whose ops were not stored; None: the backend is closed."""
    if error is None:
        return BackendClosedError("the backend was closed before this could be stored")
    if isinstance(error, SitqError):
        return error
    told = StoreError(f"the store refused this, and nothing was stored: {error!r}")
    told.__cause__ = error
    return told


def in_doubt(error: Exception) -> CommitUnknownError:
    """Return what a caller is told whose ops may have been stored."""
    told = CommitUnknownError(f"cut off inside COMMIT, so it may be stored or not: {error}")
    told.__cause__ = error
    return told


def answer_of(store: "Store", ops: Sequence[Op]) -> Answer:
    """Apply *ops*, and return whatever comes of it: a driver always has an answer."""
    try:
        return store.apply(ops)
    except BatchError as error:
        return error
    except Exception as error:  # noqa: BLE001  # a store of somebody's own may raise anything
        return BatchError(error, Blame.OP)


def tidy_up(store: "Store") -> None:
    """Have *store* do what can wait. What fails there is not said: nobody lost anything by it."""
    try:  # noqa: SIM105  # it takes several times as long
        store.tidy()
    except Exception:  # noqa: BLE001, S110
        pass


def apply_in_thread(
    store: "Store",
    ops: Sequence[Op],
    loop: "Loop",
    done: Callable[[Answer], None],
    told: Heard,
) -> None:
    """Apply *ops* in the thread that calls, and have *done* called in *loop*; see `Driver.begin`.

    The loop is answered first. It is woken on another core, while whoever hears a bell is often
    given this one, and would keep the caller waiting.
    """
    answer = answer_of(store, ops)
    loop.soon_from_thread(partial(done, answer))
    try:
        if not isinstance(answer, BatchError):
            told(ops, answer)
    except Exception:  # noqa: BLE001, S110  # a hint that fails costs a poll, and no answer
        pass
    tidy_up(store)


class Store(Protocol):
    """Applies batches in the thread that calls it."""

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        """Apply *ops* in one transaction, or raise `BatchError`."""
        ...

    def tidy(self) -> None:
        """Do what can wait until the answer is out; nothing that fails here matters."""

    def close(self) -> None: ...


class Driver(Protocol):
    """Applies batches for an event loop, one at a time, out of reach of cancellation.

    Nothing here is a coroutine, on purpose: what no caller awaits, no caller can cancel. Each
    calls *done* once, in the event loop.
    """

    quick: float
    """Seconds: of tasks that follow one another within that time it is told together; 0: of each."""

    def begin_open(self, done: Callable[[Exception | None], None]) -> None:
        """Start to open the store; *done* is given the error, None if there was none."""

    def begin(
        self, ops: Sequence[Op], done: Callable[[Answer], None], told: Heard = told_nobody
    ) -> None:
        """Start to apply *ops* in one transaction.

        *told* is called once they are committed, in whichever thread: for others, who wait outside
        of this loop. What it raises does not matter.
        """

    def begin_close(self, done: Callable[[], None]) -> None:
        """Start to close the store. Nothing is under way then."""

    def abandon(self) -> None:
        """Have the store closed in its own time: the event loop is over, and nobody waits."""


class TaskGroup(Protocol):
    def start_soon(
        self, function: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any, name: str
    ) -> object: ...


class Scope(Protocol):
    def __enter__(self) -> object: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...

    def cancel(self) -> object: ...


class Loop(Protocol):
    """What is needed of an event loop beyond anyio."""

    name: str
    """`asyncio` or `trio`."""

    def time(self) -> float:
        """Return seconds on the clock that this loop's deadlines are set by."""
        ...

    def soon(self, function: Callable[[], object]) -> None:
        """Call *function* in the next turn of this loop; from within it."""

    def soon_from_thread(self, function: Callable[[], object]) -> None:
        """Call *function* in this loop, from any thread; nothing happens if it is over."""

    def task_group(self) -> AbstractAsyncContextManager[TaskGroup]:
        """Return the loop's own task group. anyio's costs three times as much for each task."""
        ...

    def answer(self, ask: Callable[[Callable[[T], object]], object]) -> Awaitable[T]:
        """Call *ask* with a function; return what that is called with, once, in this loop.

        Whoever is cancelled gives up the wait, and the answer goes nowhere.
        """
        ...

    def scope(self) -> Scope:
        """Return a cancel scope that is shielded; in a task. On trio anyio's costs twice its own."""
        ...

    def watch(self, descriptor: int, readable: Callable[[], object]) -> Callable[[], object]:
        """Call *readable* in this loop whenever *descriptor* can be read.

        Return what ends that; it is called in the loop, before *descriptor* is closed.
        """
        ...

    def when_writable(self, descriptor: int, function: Callable[[], object]) -> None:
        """Call *function* in this loop once *descriptor* can be written; from within it."""

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call *function* in this loop after so many seconds; from within it."""

    def is_over(self) -> bool:
        """Say whether this loop has ended for good."""
        ...

    def is_current(self) -> bool:
        """Say whether the caller runs in this loop."""
        ...

    def cancelled_outside(self) -> Callable[[], bool]:
        """Return what says whether the task that calls this was cancelled outside of all scopes."""
        ...

    async def clear_own_cancellation(self) -> None:
        """Forget a cancellation that the current task has asked of itself outside of all scopes."""

    def guard(self, function: F) -> F:
        """Keep a Ctrl-C of the user away from *function*, whoever runs it."""
        ...
