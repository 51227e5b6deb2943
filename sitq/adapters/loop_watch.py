"""Names the task that keeps the event loop from its work, and shows where it stands.

It lives in the lease's thread, which goes on while the loop does not. Some code of C keeps every
thread waiting (a long regular expression, say): then nobody can tell until it is over.
"""

import logging
import sys
import threading
import traceback
from dataclasses import dataclass, field
from types import FrameType
from typing import Final, assert_never

from sitq.adapters import clocks
from sitq.adapters.base import Loop
from sitq.adapters.calls import Execution, clean
from sitq.protocol.heartbeat import Ask, Blocked, Freed, HeartbeatMachine, Looked
from sitq.protocol.ops import Reservation

log: Final = logging.getLogger("sitq.worker")

MAX_FRAMES: Final = 20
"""Calls that are shown, the innermost of them."""


@dataclass(eq=False)
class LoopWatch:
    """Made in the thread of *loop*, and used from another."""

    machine: HeartbeatMachine
    loop: Loop
    _ident: int = field(init=False, default_factory=threading.get_ident)
    _answered_at: float | None = field(init=False, default=None)

    def next_deadline(self) -> float | None:
        return self.machine.next_deadline()

    def look(self) -> None:
        """If it is time, see whether the loop has answered; say so in the log if it has not."""
        now, due_at = clocks.lease_seconds(), self.machine.next_deadline()
        if due_at is not None and now < due_at:
            return
        for effect in self.machine.receive(Looked(self._answered_at), now):
            match effect:
                case Ask():
                    self._answered_at = None
                    self.loop.soon_from_thread(self._answer)
                case Blocked(seconds):
                    self._report(seconds)
                case Freed(seconds):
                    log.warning("the event loop answers again, after %.1f s", seconds)
                case _:
                    assert_never(effect)

    def _answer(self) -> None:
        self._answered_at = clocks.lease_seconds()

    def _report(self, seconds: float) -> None:
        top = sys._current_frames().get(self._ident)  # noqa: SLF001  # documented; to look only
        task, stack = _where(top)
        who = "something that is no task of this worker"
        if task is not None:
            who = f"task {task.id} ({task.name})"
        log.warning(
            "%s has kept the event loop busy for %.1f s: everything else in it waits, and the tasks"
            " of this worker cannot be cancelled. Make it a plain function, which runs in a thread,"
            " or let it await in between. It stands here:\n%s",
            who,
            seconds,
            stack,
        )


def _where(top: FrameType | None) -> tuple[Reservation | None, str]:
    """Return the task in which a thread stands, if it is in one, and its stack from there on."""
    frames: list[tuple[FrameType, int]] = []
    task: Reservation | None = None
    for frame, line in traceback.walk_stack(top):
        if frame.f_code is Execution._run.__code__:  # noqa: SLF001  # the edge of what is ours
            task = frame.f_locals["self"].task
            break
        frames.append((frame, line))
    shown = reversed(frames[:MAX_FRAMES])
    return task, clean("".join(traceback.StackSummary.extract(shown).format()), 64 * 1024)
