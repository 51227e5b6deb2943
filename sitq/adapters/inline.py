"""A store in memory: the model of `sitq.storage`, shared by threads and event loops."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

from sitq.adapters.base import Answer, Loop, answer_of
from sitq.protocol.ops import Moment, Op, Outcome
from sitq.storage.model import Model


class MemoryStore:
    """Applies batches to a model, whichever thread calls."""

    def __init__(self, moment: Callable[[], Moment]) -> None:
        self._model = Model()
        self._moment = moment
        self._lock = threading.Lock()

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        with self._lock:
            return self._model.apply(ops, self._moment())

    def tidy(self) -> None:
        """Nothing: memory is tidy."""

    def close(self) -> None:
        """Keep everything: it lives as long as the backend does."""


class InlineDriver:
    """Applies batches at once, and answers in the next turn of the loop."""

    def __init__(self, loop: Loop, store: MemoryStore) -> None:
        self._loop = loop
        self._store = store

    def begin_open(self, done: Callable[[Exception | None], None]) -> None:
        self._loop.soon(partial(done, None))

    def begin(self, ops: Sequence[Op], done: Callable[[Answer], None]) -> None:
        self._loop.soon(partial(done, answer_of(self._store, ops)))

    async def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass
