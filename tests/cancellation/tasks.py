"""Tasks that stay in a worker's hands until their gate is opened, on any loop and in any time."""

import itertools
import threading
import weakref

import anyio

LONGEST = 30.0
_numbers = itertools.count(1)
_gates: "weakref.WeakValueDictionary[int, Gate]" = weakref.WeakValueDictionary()


class Gate:
    """Closed at first. Pickled by its number: a task is given the very gate of the test."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.opened = threading.Event()
        self.starts = 0
        _gates[self.number] = self

    def __reduce__(self):
        return _gate, (self.number,)


def _gate(number: int) -> Gate:
    return _gates[number]


async def hold(gate: Gate) -> str:
    gate.starts += 1
    while not gate.opened.is_set():  # noqa: ASYNC110  # a thread may open it, or none
        await anyio.sleep(0.005)
    return "held"


def hold_thread(gate: Gate) -> str:
    gate.starts += 1
    assert gate.opened.wait(LONGEST), "the test has not opened the gate"
    return "held"


async def pass_by() -> str:
    return "passed"


async def until(condition) -> None:
    """Return once *condition* holds."""
    with anyio.fail_after(LONGEST):
        while not condition():  # noqa: ASYNC110  # any condition, without an event of its own
            await anyio.sleep(0.005)
