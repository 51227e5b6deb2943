"""Tasks that stay in a worker's hands until the test opens their gate, and are counted there."""

import itertools
import threading
import time
import weakref

import anyio

LONGEST = 20.0
"""Seconds after which a test that waits has failed."""

_numbers = itertools.count(1)
_gates: "weakref.WeakValueDictionary[int, Gate]" = weakref.WeakValueDictionary()


class Gate:
    """Closed at first. Pickled by its number, so a task is given the very gate of the test."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        _gates[self.number] = self
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self.running = self.peak = self.starts = self.ends = self.interrupts = 0
        self.order = []
        self.worker = None  # for tasks that stop theirs

    def __reduce__(self):
        return _find, (self.number,)

    def open(self) -> None:
        self._opened.set()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    def wait(self) -> None:
        assert self._opened.wait(LONGEST), "the test has not opened the gate"

    def enter(self, label=None) -> None:
        with self._lock:
            self.starts += 1
            self.running += 1
            self.peak = max(self.peak, self.running)
            self.order.append(label)

    def leave(self, *, interrupted=False) -> None:
        with self._lock:
            self.running -= 1
            if interrupted:
                self.interrupts += 1
            else:
                self.ends += 1


def _find(number: int) -> Gate:
    return _gates[number]


async def hold(gate: Gate, value=None):
    """Stay until the gate is open; return *value*."""
    gate.enter(value)
    try:
        while not gate.is_open:  # noqa: ASYNC110  # a thread may open it, or none
            await anyio.sleep(0.005)
    except BaseException:
        gate.leave(interrupted=True)
        raise
    gate.leave()
    return value


def hold_thread(gate: Gate, value=None):
    """Do the same in a thread."""
    gate.enter(value)
    gate.wait()
    gate.leave()
    return value


async def visit(gate: Gate, label=None):
    """Pass without a stop."""
    gate.enter(label)
    gate.leave()
    return label


async def until(condition, seconds: float = LONGEST) -> None:
    """Return once *condition* holds."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # any condition, without an event of its own
            await anyio.sleep(0.005)


async def stays(condition, seconds: float = 0.05) -> None:
    """Return if *condition* holds all the while."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        assert condition()
        await anyio.sleep(0.005)
