"""Drives LeaseMachine, with a store of its own: in a thread, or in a virtual run by the worker.

However long a task blocks the event loop, the thread renews the lease. What it has to tell the
worker is handed to the loop, which hears it when it can. In a virtual run no loop is ever
blocked, so there the worker itself calls when it is time.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final, assert_never

from sitq.adapters import clocks
from sitq.adapters.base import FOR_GOOD, BatchError, Store, tidy_up
from sitq.adapters.ids import new_id
from sitq.adapters.loop_watch import LoopWatch
from sitq.adapters.presence import Presence
from sitq.protocol.commit import Blame
from sitq.protocol.lease import (
    Applied,
    Apply,
    ApplyFailed,
    AskToStop,
    Complain,
    Disowned,
    Enter,
    Entered,
    Hold,
    LeaseEffect,
    LeaseEvent,
    LeaseMachine,
    Leave,
    LeaveRequested,
    LetGo,
    Probe,
    Probed,
    Started,
    Stop,
    Sweep,
    Tick,
    Wake,
)

log: Final = logging.getLogger("sitq.lease")


@dataclass(eq=False, kw_only=True)
class Lease:
    """What both ways share.

    *tell* is called with what the worker should know; *ended* at the end, with the bug that was
    the reason, if it was one. *watch* looks after the event loop, from a thread that has one.
    """

    machine: LeaseMachine
    open_store: Callable[[], Store]
    presence: Presence
    tell: Callable[[Hold | LetGo | AskToStop | Wake], object]
    ended: Callable[[BaseException | None], object]
    watch: LoopWatch | None = None
    _store: Store | None = field(init=False, default=None)
    _stopped: bool = field(init=False, default=False)

    def _receive(self, event: LeaseEvent) -> None:
        """Tell the machine, do what it says, and tell it what came of that."""
        events = deque([event])
        while events:
            for effect in self.machine.receive(events.popleft(), clocks.lease_seconds()):
                answer = self._do(effect)
                if answer is not None:
                    events.append(answer)

    def _do(self, effect: LeaseEffect) -> LeaseEvent | None:
        match effect:
            case Enter():
                worker_id = new_id()
                self.presence.enter(worker_id)
                return Entered(worker_id)
            case Apply(ops):
                try:
                    if self._store is None:
                        self._store = self.open_store()
                    outcomes = self._store.apply(ops)
                    tidy_up(self._store)
                    return Applied(outcomes)
                except BatchError as error:
                    if isinstance(error.error, FOR_GOOD) and error.blame is not Blame.UNKNOWN:
                        raise error.error from error  # the worker ends with it
                    return ApplyFailed(error.error)
                except Exception as error:  # noqa: BLE001  # a store that cannot be opened now
                    return ApplyFailed(error)
            case Probe(worker_ids):
                return Probed(self.presence.dead(worker_ids))
            case Hold() | LetGo() | AskToStop() | Wake():
                self.tell(effect)
            case Complain(error):
                log.warning("the lease could not be looked after, trying again: %s", error)
            case Leave(worker_id):
                self.presence.leave(worker_id)
            case Sweep(worker_ids):
                log.warning("rescued the tasks of dead workers: %s", ", ".join(worker_ids))
                self.presence.sweep(worker_ids)
            case Stop():
                self._stopped = True
            case _:
                assert_never(effect)
        return None

    def _end(self, bug: BaseException | None) -> None:
        try:
            if self._store is not None:
                self._store.close()
        finally:
            self.ended(bug)


@dataclass(eq=False, kw_only=True)
class LeaseThread(Lease):
    """Keeps the time of the lease in a thread, in which *tell* and *ended* are called."""

    _mail: SimpleQueue[LeaseEvent] = field(init=False, default_factory=SimpleQueue)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sitq lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def disown(self, worker_id: str) -> None:
        """Have this life ended, and another begun; from any thread."""
        self._mail.put(Disowned(worker_id))

    def leave(self) -> None:
        """Ask the thread to retire the worker and end; from any thread."""
        self._mail.put(LeaveRequested())

    def next_deadline(self) -> None:
        """Return None: nobody needs to call `tick`."""

    def tick(self) -> None:
        """Do nothing: the thread does."""

    def _run(self) -> None:
        bug: BaseException | None = None
        try:
            self._receive(Started())
            while not self._stopped:
                self._receive(self._next_event())
        except BaseException as error:  # noqa: BLE001  # it must end the worker, not just a thread
            bug = error
        finally:
            self._end(bug)

    def _next_event(self) -> LeaseEvent:
        watch = self.watch
        ahead = (self.machine.next_deadline(), None if watch is None else watch.next_deadline())
        deadline = min((at for at in ahead if at is not None), default=None)
        pause = None if deadline is None else max(0.0, deadline - clocks.lease_seconds())
        try:
            return self._mail.get(timeout=pause)
        except Empty:
            if watch is not None:
                watch.look()
            return Tick()


@dataclass(eq=False, kw_only=True)
class LeaseByTheWorker(Lease):
    """Has the worker keep the time of the lease: it calls `tick` when `next_deadline` has come.

    For virtual runs, where the clock of leases and that of the loop are the same.
    """

    _is_over: bool = field(init=False, default=False)

    def start(self) -> None:
        self._hear(Started())

    def disown(self, worker_id: str) -> None:
        self._hear(Disowned(worker_id))

    def leave(self) -> None:
        self._hear(LeaveRequested())

    def next_deadline(self) -> float | None:
        return self.machine.next_deadline()

    def tick(self) -> None:
        deadline = self.machine.next_deadline()
        if deadline is not None and deadline <= clocks.lease_seconds():
            self._hear(Tick())

    def _hear(self, event: LeaseEvent) -> None:
        if self._is_over:
            return
        bug: BaseException | None = None
        try:
            self._receive(event)
        except Exception as error:  # noqa: BLE001  # it must end the worker, and say why
            bug = error
        if bug is not None or self._stopped:
            self._is_over = True
            self._end(bug)
