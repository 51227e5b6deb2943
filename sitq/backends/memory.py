"""`MemoryBackend`: a queue that lives as long as its object, for tests and trials."""

from collections.abc import Callable
from datetime import timedelta

from sitq.adapters import clocks
from sitq.adapters.base import Driver, Loop, Store
from sitq.adapters.inline import InlineDriver, MemoryStore
from sitq.backends.base import MAX_PAYLOAD, WEEK, Backend
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
        self._store = MemoryStore(moment)

    def open_store(self) -> Store:
        return self._store

    def make_driver(self, loop: Loop) -> Driver:
        return InlineDriver(loop, self._store)

    def __repr__(self) -> str:
        return f"<MemoryBackend at {id(self):#x}>"
