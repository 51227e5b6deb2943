"""`MemoryBackend`: a queue that lives as long as its object, for tests and trials."""

import itertools
import os
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sitq.adapters import clocks
from sitq.adapters.base import Driver, Loop, Store
from sitq.adapters.hints import Heard
from sitq.adapters.inline import InlineDriver, MemoryStore
from sitq.adapters.virtual import virtual
from sitq.backends.base import MAX_PAYLOAD, WEEK, Backend
from sitq.exceptions import BackendError
from sitq.protocol.ops import Moment


class MemoryBackend(Backend):
    """A queue in this process. Nothing survives it; all else is as with a file.

    Args:
        retention: how long finished tasks are kept (default: 7 days; None: for ever).
        max_payload: bytes that a serialised call or result may have (default: 16 MiB).
        moment: the store's clocks (default: those of the machine).
    """

    def __init__(
        self,
        *,
        retention: timedelta | float | None = WEEK,
        max_payload: int = MAX_PAYLOAD,
        moment: Callable[[], Moment] = clocks.moment,
    ) -> None:
        super().__init__(retention=retention, max_payload=max_payload)
        self._moves_by_itself = moment is clocks.moment
        self._store = MemoryStore(moment)
        self._number = next(_numbers)
        _live[self._number] = self

    def open_store(self) -> Store:
        return self._store

    def make_driver(self, loop: Loop) -> Driver:
        return InlineDriver(loop, self.open_store)

    def listen(self, heard: Heard) -> bool:
        """In a virtual run, all that happens to this store happens in its one thread.

        Time that a test moves by hand would go unheard, though.
        """
        hears_all = virtual() is not None and self._moves_by_itself
        self._store.heard = heard if hears_all else None
        return hears_all

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (os.getpid(), self._number)

    def __repr__(self) -> str:
        return f"<MemoryBackend at {id(self):#x}>"


_numbers = itertools.count(1)
_live: "weakref.WeakValueDictionary[int, MemoryBackend]" = weakref.WeakValueDictionary()


def _again(pid: int, number: int) -> MemoryBackend:
    """Return the very backend that was pickled: it exists in its own process only."""
    backend = _live.get(number) if pid == os.getpid() else None
    if backend is None:
        raise BackendError(
            "a MemoryBackend lives in one process, and cannot be carried into another; use"
            " SQLiteBackend('tasks.db') to share a queue between processes"
        )
    return backend
