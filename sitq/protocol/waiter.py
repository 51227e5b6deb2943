"""One awaited result.

    ASKING --Answered, not ended--> RESTING --Hinted or Tick--> ASKING
    ASKING --Answered, ended-->     OVER
    RESTING --the limit passes-->   ASKING (one last look) --Answered--> OVER

The promise: it gives up only after the answer to a question that was asked when the time had
run out, so a result that was there by then is delivered. It asks at once, after every hint,
and without hints after pauses that grow from `QUICKEST` to `SLOWEST`: a lost hint costs a
pause, not the result.
"""

from enum import Enum
from typing import Final, NamedTuple, TypeAlias, assert_never

from sitq.protocol.lifecycle import FINAL
from sitq.protocol.message import message
from sitq.protocol.ops import TaskRow

QUICKEST: Final = 0.005
SLOWEST: Final = 0.25
GROWTH: Final = 1.5


class WaiterState(Enum):
    NEW = "new"
    ASKING = "asking"
    RESTING = "resting"
    OVER = "over"


# A member is looked up in its enum by a slow path of Python 3.11; these are quick, and shorter.
NEW, ASKING, RESTING, OVER = WaiterState


@message
class WaitStarted(NamedTuple):
    pass


@message
class Hinted(NamedTuple):
    """The task may have ended."""


@message
class Answered(NamedTuple):
    """The store's answer to `Ask`: the row, None if it has none under this id."""

    row: TaskRow | None


@message
class Tick(NamedTuple):
    pass


WaiterEvent: TypeAlias = WaitStarted | Hinted | Answered | Tick


@message
class Ask(NamedTuple):
    """Look at the task in the store; answered by `Answered`."""


@message
class Deliver(NamedTuple):
    """It has ended."""

    row: TaskRow


@message
class GiveUp(NamedTuple):
    """It has not ended in time."""


@message
class Miss(NamedTuple):
    """There is no such task, and no time limit to wait for it to appear; or it *was_there* before.

    Then it has ended, and was forgotten after its retention: it will not come back.
    """

    was_there: bool = False


WaiterEffect: TypeAlias = Ask | Deliver | GiveUp | Miss


class WaiterMachine:
    """*timeout* is in seconds: 0 looks once, None waits for as long as the task exists."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._limit: float | None = None
        self._state = NEW
        self._asked_at = 0.0
        self._pause = QUICKEST
        self._look_at: float | None = None
        self._hinted = False
        self._was_there = False

    def next_deadline(self) -> float | None:
        return self._look_at if self._state is RESTING else None

    def receive(self, event: WaiterEvent, now: float) -> list[WaiterEffect]:
        """Take in *event*; return what to do."""
        match event:
            case WaitStarted():
                assert self._state is NEW
                if self._timeout is not None:
                    self._limit = now + self._timeout
                return self._ask(now)
            case Hinted():
                if self._state is RESTING:
                    self._pause = QUICKEST
                    return self._ask(now)
                # The answer under way may have been read before the task ended.
                self._hinted = True
                return []
            case Tick():
                if self._look_at is None or now < self._look_at:
                    return []
                return self._ask(now)
            case Answered(row):
                assert self._state is ASKING, "an answer that was not asked for"
                return self._answered(row, now)
            case _:
                assert_never(event)

    def _ask(self, now: float) -> list[WaiterEffect]:
        self._state = ASKING
        self._asked_at = now
        self._look_at = None
        self._hinted = False
        return [Ask()]

    def _answered(self, row: TaskRow | None, now: float) -> list[WaiterEffect]:
        if row is not None and row.state in FINAL:
            self._state = OVER
            return [Deliver(row)]
        if row is None and (self._limit is None or self._was_there):
            self._state = OVER
            return [Miss(self._was_there)]
        self._was_there = row is not None
        if self._limit is not None and self._asked_at >= self._limit:
            self._state = OVER
            return [GiveUp()]
        if self._hinted or (self._limit is not None and now >= self._limit):
            return self._ask(now)
        self._state = RESTING
        self._look_at = now + self._pause
        if self._limit is not None:
            self._look_at = min(self._look_at, self._limit)
        self._pause = min(self._pause * GROWTH, SLOWEST)
        return []
