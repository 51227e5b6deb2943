"""Between the hints of one event loop and the bells of the host: what is rung, and what is heard."""

from collections.abc import Callable, Sequence
from functools import partial

from sitq.adapters.base import Loop
from sitq.adapters.bells import Bell, Bells, Want
from sitq.adapters.hints import Hints, ended_by, gives_work
from sitq.protocol.ops import Op, Outcome


def ring(bells: Bells, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
    """Tell others what *ops* have done, if it concerns anybody."""
    if gives_work(ops, outcomes):
        bells.ring(Want.WORK)
    ended = ended_by(ops, outcomes)
    if ended:
        bells.ring(Want.ENDS, ended)


class Doorbell:
    """Hangs a bell when somebody first wants to hear, and keeps it until `close`."""

    def __init__(self, loop: Loop, bells: Bells, hints: Hints) -> None:
        self._loop = loop
        self._bells = bells
        self._hints = hints
        self._hung: dict[Want, Bell | None] = {}
        self._stops: list[Callable[[], object]] = []
        hints.wanted = self._hang

    def ring(self, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
        """Tell others of what was committed here; from any thread, and the sooner the better."""
        ring(self._bells, ops, outcomes)

    def close(self) -> None:
        """Take all bells down; in the event loop."""
        for stop in self._stops:
            stop()
        self.abandon()

    def abandon(self) -> None:
        """Take them down where the loop is over."""
        self._hints.wanted = _nothing
        self._stops.clear()
        for bell in self._hung.values():
            if bell is not None:
                bell.take_down()
        self._hung.clear()

    def _hang(self, want: Want) -> None:
        if want not in self._hung:
            bell = self._hung[want] = self._bells.hang(want)
            if bell is not None:
                self._stops.append(
                    self._loop.watch(bell.descriptor, partial(self._heard, want, bell))
                )

    def _heard(self, want: Want, bell: Bell) -> None:
        self._hints.told(want, bell.heard())


def _nothing(want: Want) -> None:
    """Hang nothing any more."""
