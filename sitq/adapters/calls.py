"""Runs one call, and turns all that can happen into an `Ending`.

The promise: nothing that a task does gets past here, whatever it raises or returns. Its
payload may be garbage, its exception may fail to print, its result may not pickle: that task
ends with words that a person can read, and the worker goes on.

Coroutine functions run on the loop, in whatever shape they come: plain, in a partial, as an
async `__call__`. All else runs in a thread, or in a virtual run at once, as if it took no time;
what it returns is awaited on the loop if it can be.
"""

import functools
import inspect
import os
import threading
import traceback
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Final, NamedTuple

import anyio
import anyio.lowlevel
import anyio.to_thread

from sitq.adapters.base import Loop, Scope
from sitq.adapters.virtual import virtual
from sitq.adapters.within import Within
from sitq.protocol.ops import Failure, Reservation
from sitq.protocol.retry import Ending, Interrupted, Raised, Returned, Unreadable
from sitq.serialization import Call, Serializer, UnreadableError, seal, unseal

MAX_ERROR: Final = 8 * 1024
"""Characters of an error's text that are kept."""
MAX_TRACEBACK: Final = 64 * 1024

_FORKED: Final = (
    "sitq: {name} has forked, and came back in the child too; the child was ended, since the worker"
    " is its parent's. End it with os._exit() inside of the task\n"
)


@dataclass(frozen=True, slots=True)
class Workbench:
    """What all calls of one worker share.

    *thread_returned* is called in the loop once a thread that was abandoned has ended;
    *is_torn_down* says whether the worker itself is being cancelled; *within* is what stores in a
    transaction of the task's own.
    """

    loop: Loop
    serializer: Serializer
    max_payload: int
    limiter: anyio.CapacityLimiter
    thread_returned: Callable[[], object]
    is_torn_down: Callable[[], bool]
    within: Callable[[object], Within]
    pid: int = field(default_factory=os.getpid)

    def end_a_forked_child(self, name: str) -> None:
        """End this process if it is one that a task has forked, and came back from.

        It has copies of all that the worker has, and would do the worker's work a second time.
        """
        if os.getpid() != self.pid:
            os.write(2, _FORKED.format(name=name).encode("utf-8", "replace"))
            os._exit(1)


class Execution:
    """One attempt, made anywhere in the loop and run by a task of its own.

    Once it *has_finished* within a transaction of its own, only that can have made it a success.
    """

    def __init__(self, bench: Workbench, task: Reservation) -> None:
        self.task = task
        self.bench = bench
        self.has_finished = False
        self._scope: Scope | None = None  # made in its task
        self._interrupted = False
        self._thread: _Thread | None = None

    def interrupt(self) -> None:
        """Stop it; before it has begun, it will not begin."""
        self._interrupted = True
        if self._scope is not None:
            self._scope.cancel()

    @property
    def lingers(self) -> bool:
        """Whether a thread was left behind that still runs."""
        return self._thread is not None and self._thread.abandon()

    def within(self, connection: object) -> Within:
        """Return what stores within the transaction on *connection*."""
        return self.bench.within(connection)

    async def run(self) -> Ending:
        """Return how the attempt ended, `Interrupted` if it was stopped.

        Only a cancellation that comes from outside of the scope is raised: the event loop is
        being torn down.
        """
        running.set(self)
        scope = self._scope = self.bench.loop.scope()
        with scope:
            if self._interrupted:
                scope.cancel()
            try:
                ending = await self._run()
            finally:
                self.bench.end_a_forked_child(self.task.name)
            await self.bench.loop.clear_own_cancellation()
            return ending
        return Interrupted()

    async def _run(self) -> Ending:
        try:
            call = Call(*unseal(self.bench.serializer, self.task.payload))
        except UnreadableError as error:
            return Unreadable(clean(error.stamp, 100), clean(str(error), MAX_ERROR))
        except BaseException as error:  # noqa: BLE001  # unpickling runs code: anything can happen
            about = f"the payload of {self.task.name} could not be read: "
            return Raised(describe(error, about), retryable=False)
        self.bench.end_a_forked_child(self.task.name)  # reading it ran code, too
        try:
            if is_async(call.function):
                return self._returned(await call.function(*call.args, **call.kwargs))
            return await self._run_plain(call)
        except BaseException as error:
            ending = self._ending_of(error)
            if ending is None:
                raise
            return ending

    async def _run_plain(self, call: Call) -> Ending:
        def work() -> Any:
            try:
                value = call.function(*call.args, **call.kwargs)
                return _Later(value) if inspect.isawaitable(value) else self._returned(value)
            except BaseException as error:  # noqa: BLE001  # even SystemExit ends only the task
                return Raised(describe(error))
            finally:
                self.bench.end_a_forked_child(self.task.name)

        ending: Any
        if virtual() is None:
            self._thread = _Thread(work, self.bench)
            ending = await anyio.to_thread.run_sync(
                self._thread.run, abandon_on_cancel=True, limiter=self.bench.limiter
            )
        else:
            await anyio.lowlevel.checkpoint()
            ending = copy_context().run(work)
        if isinstance(ending, _Later):
            return self._returned(await ending.value)
        assert isinstance(ending, Returned | Raised | Interrupted)
        return ending

    def _returned(self, value: object) -> Ending:
        if self.has_finished:  # if that was committed, whatever is said here is refused
            return Raised(_not_committed(self.task.name))
        return self.sealed(value)

    def sealed(self, value: object) -> Returned | Raised:
        """Return what the store is told of a task that has the result *value*."""
        name, most = self.task.name, self.bench.max_payload
        try:
            data = seal(self.bench.serializer, value)
        except BaseException as error:  # noqa: BLE001  # pickling runs code, too
            about = f"{name} returned a {_qualified_name(type(value))} that cannot be serialised: "
            return Raised(describe(error, about), retryable=False)
        if len(data) > most:
            text = (
                f"{name} returned {len(data):,} bytes once serialised, more than the backend's"
                f" max_payload of {most:,}: return a path or a key instead"
            )
            return Raised(Failure(clean(text, MAX_ERROR), "ResultTooLarge"), retryable=False)
        return Returned(data)

    def _ending_of(self, error: BaseException) -> Raised | None:
        """Return what of *error* the task is to answer for; None if it was merely stopped.

        The error is not kept: it would keep the frames that it came through.
        """
        if self._interrupted or self.bench.is_torn_down():
            cancelled = anyio.get_cancelled_exc_class()
            kind = type(error)  # and not isinstance, which asks the error itself
            if issubclass(kind, cancelled):
                return None
            if issubclass(kind, BaseExceptionGroup):
                return _raised_beside(error, cancelled)
        return Raised(describe(error))


running: Final[ContextVar[Execution]] = ContextVar("sitq_running")
"""The attempt that the caller belongs to."""


def _not_committed(name: str) -> Failure:
    text = (
        f"{name} has called finish() within a transaction, and that was not committed: it was rolled"
        " back, or is open still"
    )
    return Failure(clean(text, MAX_ERROR), "TransactionNotCommitted")


class _Later(NamedTuple):
    """What a plain function returned, to be awaited on the loop.

    Wrapped, because trio takes a thread that returns a bare coroutine for a mistake.
    """

    value: Any


class _Thread:
    """A plain function in a thread, which may be abandoned but not stopped."""

    def __init__(self, work: Callable[[], Any], bench: Workbench) -> None:
        self._work: Callable[[], Any] | None = work  # until it begins
        self._bench = bench
        self._lock = threading.Lock()
        self._started = self._ended = self._abandoned = False

    def run(self) -> Any:
        """Return the ending of the call, or what is left to await."""
        with self._lock:
            work, self._work = self._work, None  # it leads back here: a circle would keep its task
            if work is None:
                return Interrupted()  # it was abandoned before it began
            self._started = True
        try:
            return work()
        finally:
            with self._lock:
                self._ended = True
                if self._abandoned:
                    self._bench.loop.soon_from_thread(self._bench.thread_returned)

    def abandon(self) -> bool:
        """Stop waiting for it; say whether it still runs, and will say when it has ended."""
        with self._lock:
            self._abandoned = True
            self._work = None
            return self._started and not self._ended


def _raised_beside(error: Any, cancelled: type[BaseException]) -> Raised | None:
    """Return what a group holds beside cancellations, None if nothing."""
    try:
        rest = error.split(cancelled)[1]
    except BaseException:  # noqa: BLE001  # a class of its own, or too many groups in groups
        rest = error
    return None if rest is None else Raised(describe(rest))


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether a call of *function* gives a coroutine, as far as can be seen."""
    if type(function) is FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:
        return True  # as most are
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__sitq_function__", function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # the method, not whether it has one
    )


def describe(error: BaseException, about: str = "") -> Failure:
    """Return *error* as text, whatever its class does when it is asked for one."""
    try:
        text = str.__str__(str(error))  # a plain one: what it gave may be a string of its own kind
    except BaseException as second:  # noqa: BLE001
        text = f"(its text could not be made: {_class_name(type(second))})"
    try:
        behind = error.__traceback__
        while behind is not None and behind.tb_frame.f_code.co_filename == __file__:
            behind = behind.tb_next  # the first frames are ours, where the task was called
        lines = traceback.format_exception(type(error), error, behind)
        trace = "".join(lines)
    except BaseException:  # noqa: BLE001
        trace = ""
    name = _class_name(type(error))
    return Failure(
        error=clean(about + (text or name), MAX_ERROR),
        error_type=clean(name, 100),
        traceback=clean(trace, MAX_TRACEBACK, keep_end=True) or None,
    )


def _class_name(kind: type) -> str:
    try:
        return str.__str__(str(kind.__name__))
    except BaseException:  # noqa: BLE001  # a metaclass may do anything
        return str.__str__(type.__dict__["__name__"].__get__(kind))


def _qualified_name(kind: type) -> str:
    return str.__str__(type.__dict__["__qualname__"].__get__(kind))


def clean(text: str, most: int, *, keep_end: bool = False) -> str:
    """Return *text* as what any store and any terminal can take, cut to *most* characters."""
    if len(text) > most:
        text = f"(cut) ...{text[-most:]}" if keep_end else f"{text[:most]}... (cut)"
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
