"""Signals that stop a worker, from the program's first line to its last.

The promises:
- What hears them is installed once, before anything slow is imported, and never taken away: from
  there on no moment is left in which a signal has its default action. What they do changes with
  `hand_to`, by one assignment.
- While there is nothing to stop yet, the first one ends the program, with exit code 0.
- Each is counted where it arrives, before any event loop hears of it. The third kills, also where
  a task blocks the loop, and the exit code is 128 + its number.
- What a task forks is stopped by signals as anything is: it inherits none of this.
- A SIGHUP that was ignored from the start, as by `nohup`, stays ignored.

It imports nothing but the standard library: `main()` needs it first.
"""

import atexit
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
_MAY_BE_IGNORED: Final = STOP_SIGNALS[2:]
KILLED_BY: Final = 3
"""This many are more than a wish."""

heard: Final[list[int]] = []
"""The numbers of those that came, in their order."""


def install() -> None:
    """Hear the signals from here on until the process is gone; the first one ends it."""
    # The first to be registered is the last to be called. Then the interpreter takes its handlers
    # away, and a signal would kill what has ended well.
    atexit.register(_ignore_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_let_go)
    for number in STOP_SIGNALS:
        if number in _MAY_BE_IGNORED and signal.getsignal(number) is signal.SIG_IGN:
            continue
        signal.signal(number, _heard)


@contextmanager
def installed() -> Generator[None]:
    """Have the signals heard; afterwards as before, if they were not."""
    if signal.getsignal(signal.SIGTERM) is _heard:
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    install()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.clear()


def hand_to(policy: Callable[[int], object]) -> None:
    """Have *policy* called with the number of each signal that comes from here on."""
    global _policy  # noqa: PLW0603  # so are signals: one for the whole process
    _policy = policy


def count(number: int) -> None:
    """Remember the signal; if it is the third, end the process here and now."""
    heard.append(number)
    if len(heard) >= KILLED_BY:
        write(f"sitq: {name_of(number)} once more: killed\n")
        os._exit(128 + number)


def name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def write(text: str) -> None:
    """Write to the standard error, without buffers that whoever was interrupted may hold."""
    with suppress(OSError):  # nobody reads it; that keeps nobody alive
        os.write(2, text.encode())


def _heard(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    _policy(number)


def _leave(number: int) -> None:
    # Not by an exception: raised in the middle of an import, it would come out as another one, or
    # be caught there. Nothing of ours has begun, so nothing is lost.
    write(f"sitq: {name_of(number)}: ends before it has begun\n")
    os._exit(0)


def _ignore_all() -> None:
    for number in _ours():
        signal.signal(number, signal.SIG_IGN)


def _let_go() -> None:
    for number in _ours():
        is_ctrl_c = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)


def _ours() -> list[int]:
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is _heard]


_policy: Callable[[int], object] = _leave
