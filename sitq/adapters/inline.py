"""A store that answers at once, in the loop itself: one in memory, or any in a virtual run."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial

from sitq.adapters.base import Answer, BatchError, Loop, Store, answer_of, tidy_up
from sitq.adapters.hints import Heard, told_nobody
from sitq.adapters.virtual import virtual
from sitq.protocol.ops import Moment, Op, Outcome
from sitq.storage.model import Model


class MemoryStore:
    """Applies batches to a model, whichever thread calls.

    *heard* is called with each of them in a virtual run, whoever asked for it.
    """

    def __init__(self, moment: Callable[[], Moment]) -> None:
        self.heard: Heard | None = None
        self._model = Model()
        self._moment = moment
        self._lock = threading.Lock()

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        with self._lock:
            outcomes = self._model.apply(ops, self._moment())
        if self.heard is not None and virtual() is not None:
            self.heard(ops, outcomes)
        return outcomes

    def tidy(self) -> None:
        """Nothing: memory is tidy."""

    def close(self) -> None:
        """Keep everything: it lives as long as the backend does."""


class InlineDriver:
    """Applies batches at once, and answers in the next turn of the loop."""

    quick = 0.0

    def __init__(self, loop: Loop, open_store: Callable[[], Store]) -> None:
        self._loop = loop
        self._open_store = open_store
        self._store: Store | None = None

    def begin_open(self, done: Callable[[Exception | None], None]) -> None:
        failure: Exception | None = None
        try:
            self._store = self._open_store()
        except Exception as error:  # noqa: BLE001  # passed on to whoever asked
            failure = error
        self._loop.soon(partial(done, failure))

    def begin(
        self, ops: Sequence[Op], done: Callable[[Answer], None], told: Heard = told_nobody
    ) -> None:
        assert self._store is not None, "a store is opened before it is used"
        answer = answer_of(self._store, ops)
        self._loop.soon(partial(done, answer))
        with contextlib.suppress(Exception):
            if not isinstance(answer, BatchError):
                told(ops, answer)
        tidy_up(self._store)

    def begin_close(self, done: Callable[[], None]) -> None:
        self.abandon()
        self._loop.soon(done)

    def abandon(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
