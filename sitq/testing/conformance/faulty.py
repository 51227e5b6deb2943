"""A backend whose store refuses, leaves in doubt and dawdles, and otherwise is that of another."""

import threading
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from random import Random
from typing import Final

from sitq.adapters import clocks
from sitq.adapters.base import BatchError, Store
from sitq.adapters.presence import Presence
from sitq.backends.base import Backend
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Op, Outcome

SLOW: Final = 0.05
"""Seconds by which a slow store is late."""


class Fault(Enum):
    REFUSED = "refused"
    """Nothing is stored, and that is said."""
    IN_DOUBT = "in doubt, and not stored"
    LOST_ANSWER = "in doubt, and stored"
    SLOW = "slow"


def now_and_then(seed: int) -> Iterator[Fault | None]:
    """Yield a fault for a third of all batches."""
    dice = Random(seed)  # noqa: S311  # it is no secret
    while True:
        yield dice.choice((*Fault, *([None] * 8)))


class FaultyStore:
    def __init__(self, store: Store, next_fault: Callable[[], Fault | None]) -> None:
        self._store = store
        self._next_fault = next_fault

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        match self._next_fault():
            case None:
                return self._store.apply(ops)
            case Fault.SLOW:
                clocks.sleep(SLOW)
                return self._store.apply(ops)
            case Fault.REFUSED:
                raise BatchError(OSError("refused, for the test"), Blame.STORE)
            case Fault.IN_DOUBT:
                raise BatchError(OSError("in doubt, for the test"), Blame.UNKNOWN)
            case Fault.LOST_ANSWER:
                self._store.apply(ops)
                raise BatchError(OSError("in doubt, for the test"), Blame.UNKNOWN)

    def tidy(self) -> None:
        self._store.tidy()

    def close(self) -> None:
        self._store.close()


class Faulty(Backend):
    """*faults* has one for each batch, whichever connection it comes by; after them, none."""

    def __init__(self, inner: Backend, faults: Iterator[Fault | None]) -> None:
        super().__init__(retention=inner.retention, max_payload=inner.max_payload)
        self._inner = inner
        self._faults = faults
        self._lock = threading.Lock()

    def open_store(self) -> Store:
        return FaultyStore(self._inner.open_store(), self._next)

    def presence(self) -> Presence:
        return self._inner.presence()

    def _next(self) -> Fault | None:
        with self._lock:
            return next(self._faults, None)
