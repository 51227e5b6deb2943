"""What a supervisor of several workers decides.

    RUNNING --SIGTERM, SIGINT--> DRAINING --again--> HASTENING --once more--> killed
    RUNNING --no worker can be loaded, or each has drained--> DRAINING
    DRAINING, HASTENING --nobody is left--> ended

Each worker has a slot: EMPTY --Launch--> STARTING --BecameReady--> READY --Exited--> EMPTY. One that
is to be replaced is LEAVING before that. One that was to end when nothing is due, and did, is DONE.

The promises:
- What dies is started again, for ever, after a pause that grows while it keeps dying.
- While no worker is ready, one at a time is started. So a module that cannot be loaded is told of
  once, and ends the supervisor; but one that has been spoilt since does no harm to those that run.
- SIGHUP replaces the workers one after the other: each is drained, and the next one only once its
  successor is ready. Where that does not come up, the others are left alone.
- The second order to stop is another signal than the first: two that are pending at once and alike
  are one, and a worker counts them.

This file does no IO. Times are seconds on any clock that only goes forward.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, TypeAlias, assert_never

from sitq.cli.stop_signals import name_of
from sitq.protocol.message import message
from sitq.protocol.timers import growing_pause

FIRST_PAUSE: Final = 0.5
"""Seconds until a worker that died is started again; doubled each time. Short, for it is mostly one
that was killed; long enough that one that dies at once does not keep a core busy."""
LONGEST_PAUSE: Final = 30.0
"""What was broken and has been mended is seen to work within half a minute."""
STEADY_AFTER: Final = 60.0
"""Seconds after which a death is news, and no part of the trouble before."""
JITTER: Final = 0.5
"""Of a pause: workers that died together do not all come back together."""
USAGE: Final = 2
"""The exit code of a worker that cannot be loaded: that is not mended by trying again."""


class Stage(Enum):
    RUNNING = "running"
    DRAINING = "draining"
    HASTENING = "hastening"
    ENDED = "ended"


class SlotState(Enum):
    EMPTY = "empty"
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    DONE = "done"


@dataclass(slots=True)
class Slot:
    """The place of one worker, whoever has it."""

    number: int
    state: SlotState = SlotState.EMPTY
    pid: int | None = None
    began_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    to_be_replaced: bool = False


# -- events ----------------------------------------------------------------------------


@message
class Began(NamedTuple):
    pass


@message
class TimePassed(NamedTuple):
    pass


@message
class Launched(NamedTuple):
    slot: int
    pid: int


@message
class LaunchFailed(NamedTuple):
    slot: int
    why: str


@message
class BecameReady(NamedTuple):
    pid: int


@message
class Exited(NamedTuple):
    """*code* is negative if a signal of that number killed it."""

    pid: int
    code: int


@message
class Heard(NamedTuple):
    number: int


Event: TypeAlias = Began | TimePassed | Launched | LaunchFailed | BecameReady | Exited | Heard

# -- effects ---------------------------------------------------------------------------


@message
class Launch(NamedTuple):
    """Start a process; `Launched` or `LaunchFailed` is the answer, before anything else."""

    slot: int


@message
class Send(NamedTuple):
    pid: int
    number: int


@message
class Say(NamedTuple):
    text: str


@message
class End(NamedTuple):
    code: int


Effect: TypeAlias = Launch | Send | Say | End

# --------------------------------------------------------------------------------------


def how_it_ended(code: int) -> str:
    """Say what an exit code means, in the words that follow `worker 1234`."""
    return f"ended with exit code {code}" if code >= 0 else f"was killed by {name_of(-code)}"


class SupervisionMachine:
    """Keeps *processes* workers alive.

    *drain*: each ends by itself when nothing is due. *hangup_replaces*: SIGHUP is an order to
    replace the workers; otherwise it is one to stop.
    """

    def __init__(
        self, processes: int, chance: Callable[[], float], *, drain: bool, hangup_replaces: bool
    ) -> None:
        self.stage = Stage.RUNNING
        self._slots = [Slot(number) for number in range(processes)]
        self._chance = chance
        self._drain = drain
        self._hangup_replaces = hangup_replaces
        self._heard = 0
        self._code = 0

    def receive(self, event: Event, now: float) -> list[Effect]:
        if self.stage is Stage.ENDED:
            return []
        effects: list[Effect] = []
        match event:
            case Began() | TimePassed():
                pass
            case Launched(number, pid):
                self._slots[number].pid = pid
            case LaunchFailed(number, why):
                pause = self._empty(self._slots[number], now)
                effects.append(
                    Say(f"no worker can be started: {why}; tried again in {pause:.1f} s")
                )
            case BecameReady(pid):
                slot = self._slot_of(pid)
                if slot is not None and slot.state is SlotState.STARTING:
                    slot.state = SlotState.READY
            case Exited(pid, code):
                slot = self._slot_of(pid)
                if slot is not None:
                    self._exited(slot, pid, code, now, effects)
            case Heard(number):
                self._signalled(number, effects)
            case _:
                assert_never(event)
        if self.stage is Stage.RUNNING:
            self._start_what_is_due(now, effects)
            self._replace_next(effects)
        self._end_if_over(effects)
        return effects

    def next_deadline(self) -> float | None:
        """Return when something is to be done if nothing happens until then."""
        if self.stage is not Stage.RUNNING or not self._may_start():
            return None
        empty = (slot.start_at for slot in self._slots if slot.state is SlotState.EMPTY)
        return min(empty, default=None)

    # -- starting ------------------------------------------------------------------------

    def _may_start(self) -> bool:
        is_starting = any(slot.state is SlotState.STARTING for slot in self._slots)
        return not is_starting or self._is_anyone_ready()

    def _start_what_is_due(self, now: float, effects: list[Effect]) -> None:
        for slot in self._slots:
            if slot.state is SlotState.EMPTY and slot.start_at <= now and self._may_start():
                slot.state, slot.began_at = SlotState.STARTING, now
                effects.append(Launch(slot.number))

    def _empty(self, slot: Slot, now: float) -> float:
        """Have the slot filled again after a pause, and return that."""
        if slot.state in _ARE_READY and now - slot.began_at >= STEADY_AFTER:
            slot.failures = 0
        pause = growing_pause(slot.failures, FIRST_PAUSE, LONGEST_PAUSE)
        pause *= 1 - JITTER * self._chance()
        slot.failures += 1
        slot.state, slot.pid, slot.start_at = SlotState.EMPTY, None, now + pause
        return pause

    # -- ending --------------------------------------------------------------------------

    def _exited(self, slot: Slot, pid: int, code: int, now: float, effects: list[Effect]) -> None:
        was_ready, was_leaving = slot.state in _ARE_READY, slot.state is SlotState.LEAVING
        slot.to_be_replaced = False
        how = f"worker {pid} {how_it_ended(code)}"
        if self.stage is not Stage.RUNNING:
            slot.state, slot.pid = SlotState.DONE, None
            # One that was told to stop before it listened has nothing to hand back.
            if code != 0 and (was_ready or code not in (-signal.SIGTERM, -signal.SIGINT)):
                self._code = self._code or 1
                effects.append(Say(how))
        elif code == 0 and was_leaving:
            slot.state, slot.pid, slot.start_at, slot.failures = SlotState.EMPTY, None, now, 0
        elif code == 0 and self._drain:
            slot.state, slot.pid = SlotState.DONE, None
        elif code == USAGE and not was_ready and not self._is_anyone_ready():
            slot.state, slot.pid = SlotState.DONE, None
            self._code = USAGE
            effects.append(Say(f"{how}, and would again; see what it says above"))
            self._stop(Stage.DRAINING, signal.SIGTERM, effects)
        else:
            pause = self._empty(slot, now)
            effects.append(Say(f"{how}; another one is started in {pause:.1f} s"))
            if not was_ready and any(other.to_be_replaced for other in self._slots):
                for other in self._slots:
                    other.to_be_replaced = False
                effects.append(Say("the other workers are not replaced, since that one failed"))

    def _is_anyone_ready(self) -> bool:
        return any(slot.state in _ARE_READY for slot in self._slots)

    def _end_if_over(self, effects: list[Effect]) -> None:
        if self.stage is Stage.ENDED or any(slot.state in _LIVING for slot in self._slots):
            return
        if self.stage is Stage.RUNNING and any(
            slot.state is not SlotState.DONE for slot in self._slots
        ):
            return
        self.stage = Stage.ENDED
        effects.append(End(self._code))

    # -- signals -------------------------------------------------------------------------

    def _signalled(self, number: int, effects: list[Effect]) -> None:
        name = name_of(number)
        if self._hangup_replaces and number == _HANGUP:
            if self.stage is Stage.RUNNING:
                effects.append(Say(f"{name}: the workers are replaced, one after the other"))
                for slot in self._slots:
                    slot.to_be_replaced = slot.state in _LIVING
            return
        self._heard += 1
        if self._heard == 1:
            effects.append(Say(f"{name}: the workers stop, each within its grace"))
            self._stop(Stage.DRAINING, signal.SIGTERM, effects)
        elif self._heard == 2:
            effects.append(Say(f"{name} again: running tasks are interrupted and handed back"))
            self._stop(Stage.HASTENING, signal.SIGINT, effects)
        else:
            effects.append(Say(f"{name} once more: the workers are killed"))
            self._stop(Stage.ENDED, _KILL, effects)
            effects.append(End(128 + number))

    def _stop(self, stage: Stage, number: int, effects: list[Effect]) -> None:
        self.stage = stage
        for slot in self._slots:
            if slot.pid is None:
                slot.state = SlotState.DONE
            elif stage is not Stage.DRAINING or slot.state is not SlotState.LEAVING:
                effects.append(Send(slot.pid, number))  # who leaves drains already

    def _replace_next(self, effects: list[Effect]) -> None:
        """Drain the next one that is to be replaced, if all are well."""
        settled = (SlotState.READY, SlotState.DONE)
        if all(slot.state in settled for slot in self._slots):
            chosen = next((slot for slot in self._slots if slot.to_be_replaced), None)
            if chosen is not None and chosen.pid is not None:
                chosen.state = SlotState.LEAVING
                effects.append(Send(chosen.pid, signal.SIGTERM))

    def _slot_of(self, pid: int) -> Slot | None:
        return next((slot for slot in self._slots if slot.pid == pid), None)


_ARE_READY: Final = frozenset({SlotState.READY, SlotState.LEAVING})
_LIVING: Final = _ARE_READY | {SlotState.STARTING}
_HANGUP: Final = getattr(signal, "SIGHUP", None)
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
