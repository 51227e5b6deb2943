"""Drives LeaseMachine, in a thread of its own with a store of its own.

However long a task blocks the event loop, this thread renews the lease. What it has to tell
the worker is handed to the loop, which hears it when it can.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, assert_never

from sitq.adapters import clocks
from sitq.adapters.base import BatchError, Store
from sitq.adapters.ids import new_id
from sitq.adapters.presence import Presence
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


class LeaseThread:
    """*tell* is called in this thread, with what the worker should know.

    *ended* is called at the end of the thread, with the bug that ended it, if it was one.
    """

    def __init__(
        self,
        machine: LeaseMachine,
        open_store: Callable[[], Store],
        presence: Presence,
        tell: Callable[[Hold | LetGo | AskToStop | Wake], object],
        ended: Callable[[BaseException | None], object],
    ) -> None:
        self._machine = machine
        self._open_store = open_store
        self._presence = presence
        self._tell = tell
        self._ended = ended
        self._store: Store | None = None
        self._stopped = False
        self._mail: SimpleQueue[LeaseEvent] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sitq lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def disown(self, worker_id: str) -> None:
        """Have this life ended, and another begun; from any thread."""
        self._mail.put(Disowned(worker_id))

    def leave(self) -> None:
        """Ask the thread to retire the worker and end; from any thread."""
        self._mail.put(LeaveRequested())

    def _run(self) -> None:
        bug: BaseException | None = None
        try:
            self._receive(Started())
            while not self._stopped:
                self._receive(self._next_event())
        except BaseException as error:  # noqa: BLE001  # it must end the worker, not just a thread
            bug = error
        finally:
            if self._store is not None:
                self._store.close()
            self._ended(bug)

    def _next_event(self) -> LeaseEvent:
        deadline = self._machine.next_deadline()
        pause = None if deadline is None else max(0.0, deadline - clocks.lease_seconds())
        try:
            return self._mail.get(timeout=pause)
        except Empty:
            return Tick()

    def _receive(self, event: LeaseEvent) -> None:
        """Tell the machine, do what it says, and tell it what came of that."""
        events = deque([event])
        while events:
            for effect in self._machine.receive(events.popleft(), clocks.lease_seconds()):
                answer = self._do(effect)
                if answer is not None:
                    events.append(answer)

    def _do(self, effect: LeaseEffect) -> LeaseEvent | None:
        match effect:
            case Enter():
                worker_id = new_id()
                self._presence.enter(worker_id)
                return Entered(worker_id)
            case Apply(ops):
                try:
                    if self._store is None:
                        self._store = self._open_store()
                    outcomes = self._store.apply(ops)
                    self._store.tidy()
                    return Applied(outcomes)
                except BatchError as error:
                    return ApplyFailed(error.error)
                except Exception as error:  # noqa: BLE001  # a store that cannot be opened now
                    return ApplyFailed(error)
            case Probe(worker_ids):
                return Probed(self._presence.dead(worker_ids))
            case Hold() | LetGo() | AskToStop() | Wake():
                self._tell(effect)
            case Complain(error):
                log.warning("the lease could not be looked after, trying again: %s", error)
            case Leave(worker_id):
                self._presence.leave(worker_id)
            case Sweep(worker_ids):
                log.warning("rescued the tasks of dead workers: %s", ", ".join(worker_ids))
                self._presence.sweep(worker_ids)
            case Stop():
                self._stopped = True
            case _:
                assert_never(effect)
        return None
