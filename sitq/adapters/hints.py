"""Who wants to hear of what was committed, here or by another process of this host.

Hints are lossy by design and always will be: what another process has committed is told by a
doorbell, which may go unheard. A worker's poll and a waiter's pause are the promise; a hint only
makes them early. Only in a virtual run, with a store in memory, is every batch told here: there
hints are the promise.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

from sitq.adapters.bells import Want
from sitq.protocol.lifecycle import FINAL, TaskState
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Enqueue,
    Failed,
    Op,
    Outcome,
    Parked,
    Released,
    Rescued,
    Reserved,
    Retired,
    RetryIn,
    Settle,
    TaskKey,
    Unparked,
)

Listener: TypeAlias = Callable[[], object]
Heard: TypeAlias = Callable[[Sequence[Op], Sequence[Outcome]], object]


class Rider(Protocol):
    """A worker that reserves in the transaction which enqueues."""

    def offered(self, queues: tuple[str, ...]) -> bool:
        """Submit a reserve for tasks that are about to come to *queues*; say whether it does."""
        ...

    def has_ridden(self, ops: Sequence[Op]) -> bool:
        """Say whether one of *ops* is this worker's own reserve."""
        ...


class Hints:
    """In-process news, for one event loop.

    *are_complete* says that nothing can happen to the store without a word here: nobody needs to
    look for what may have been missed.
    """

    def __init__(self) -> None:
        self.are_complete = False
        self.wanted: Callable[[Want], object] = _nothing
        """Called before somebody begins to listen."""
        self._workers: list[tuple[Listener, Rider | None]] = []
        self._waiters: dict[str, list[Listener]] = {}
        self._holders: dict[str, Callable[[tuple[TaskKey, ...]], object]] = {}

    @contextmanager
    def of_work(self, listener: Listener, rider: Rider | None = None) -> Generator[None]:
        """Call *listener* whenever tasks were enqueued, but not if *rider* has seen to them."""
        self.wanted(Want.WORK)
        self._workers.append((listener, rider))
        try:
            yield
        finally:
            self._workers.remove((listener, rider))

    def offer(self, ops: Sequence[Op]) -> None:
        """Offer the transaction of *ops* to the workers here, until one takes it.

        The others are told afterwards, as ever.
        """
        if not self._workers:
            return
        queues = {task.queue: None for op in ops if type(op) is Enqueue for task in op.tasks}
        if queues:
            for _, rider in self._workers:
                if rider is not None and rider.offered(tuple(queues)):
                    return

    @contextmanager
    def of_end(self, task_id: str, listener: Listener) -> Generator[None]:
        """Call *listener* once the task may have ended."""
        self.wanted(Want.ENDS)
        self._waiters.setdefault(task_id, []).append(listener)
        try:
            yield
        finally:
            self._waiters[task_id].remove(listener)
            if not self._waiters[task_id]:
                del self._waiters[task_id]

    def hold(self, worker_id: str, stop: Callable[[tuple[TaskKey, ...]], object]) -> None:
        """Call *stop* with tasks of this worker that a caller here wants cancelled."""
        self._holders[worker_id] = stop

    def let_go(self, worker_id: str | None) -> None:
        self._holders.pop(worker_id or "", None)

    def committed(self, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
        """Pass on what was just committed to those whom it concerns."""
        for task_id in ended_by(ops, outcomes):
            self._ended(task_id)
        kinds = set(map(type, ops))
        if Cancel in kinds:
            for outcome in outcomes:
                if isinstance(outcome, Cancelled) and outcome.key is not None:
                    stop = self._holders.get(outcome.holder or "")
                    if stop is not None:
                        stop((outcome.key,))
        if Enqueue in kinds:
            for listener, rider in self._workers:
                if rider is None or not rider.has_ridden(ops):
                    listener()

    def told(self, want: Want, ids: Sequence[str]) -> None:
        """Pass on what another process has told; without *ids*, that anything may have ended."""
        if want is Want.WORK:
            self._wake_workers()
        elif not ids:
            for waiters in self._waiters.values():
                self._wake(waiters)
        for task_id in ids:
            self._ended(task_id)

    def applied(self, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
        """Pass on all that a batch did: what comes back to the queues, too, and by whom ever."""
        self.committed(ops, outcomes)
        for op, outcome in zip(ops, outcomes, strict=True):
            match op, outcome:
                case Settle(task_id=task_id, verdict=Released() | RetryIn() | Parked()), _:
                    self._ended(task_id)  # it has, if it was to be cancelled
                    self._wake_workers()
                case _, Rescued() | Retired():  # some may have ended
                    self._wake_workers()
                    for waiters in self._waiters.values():
                        self._wake(waiters)
                case _, Unparked(tasks) if tasks:
                    self._wake_workers()
                case _:
                    pass

    def _wake_workers(self) -> None:
        for listener, _ in self._workers:
            listener()

    def _wake(self, listeners: Sequence[Listener]) -> None:
        for listener in listeners:
            listener()

    def _ended(self, task_id: str) -> None:
        self._wake(self._waiters.get(task_id, ()))


def gives_work(ops: Sequence[Op], outcomes: Sequence[Outcome]) -> bool:
    """Say whether a batch has left tasks in queues: new ones, or such as were handed back."""
    new = [op for op in ops if type(op) is Enqueue]
    if new:
        taken = [
            task.id for outcome in outcomes if type(outcome) is Reserved for task in outcome.tasks
        ]
        if not taken or not {task.id for op in new for task in op.tasks} <= set(taken):
            return True
    return any(type(op) is Settle and type(op.verdict) is Released for op in ops)


_MAY_END: Final = frozenset({Settle, Cancel})


def ended_by(ops: Sequence[Op], outcomes: Sequence[Outcome]) -> list[str]:
    """Return the tasks that a batch may have ended."""
    ended: list[str] = []
    if _MAY_END.isdisjoint(map(type, ops)):
        return ended
    for op, outcome in zip(ops, outcomes, strict=True):
        match op:
            case Settle(task_id=task_id, verdict=Completed() | Failed() | Aborted()):
                ended.append(task_id)
            case Cancel(task_id):
                assert isinstance(outcome, Cancelled)
                if outcome.was is not TaskState.RUNNING and outcome.was not in FINAL:
                    ended.append(task_id)
            case _:
                pass
    return ended


def told_nobody(ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
    """Tell nobody."""


def _nothing(want: Want) -> None:
    """Nobody outside needs to know."""
