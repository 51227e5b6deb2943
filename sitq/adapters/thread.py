"""A store in a thread of its own, for any event loop."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from sitq.adapters.base import Answer, Loop, Store, apply_in_thread
from sitq.adapters.hints import Heard, told_nobody
from sitq.protocol.ops import Op


class ThreadDriver:
    """Applies batches on a store that one thread opens, uses and closes.

    The thread is a daemon: a program that never closes its backends can still end.
    """

    quick = 0.0

    def __init__(self, loop: Loop, open_store: Callable[[], Store]) -> None:
        self._loop = loop
        self._open_store = open_store
        self._work: SimpleQueue[Callable[[Store], None] | None] = SimpleQueue()
        self._when_closed: Callable[[], None] = _nothing

    def begin_open(self, done: Callable[[Exception | None], None]) -> None:
        threading.Thread(target=self._run, args=(done,), name="sitq store", daemon=True).start()

    def begin(
        self, ops: Sequence[Op], done: Callable[[Answer], None], told: Heard = told_nobody
    ) -> None:
        self._work.put(partial(apply_in_thread, ops=ops, loop=self._loop, done=done, told=told))

    def begin_close(self, done: Callable[[], None]) -> None:
        self._when_closed = done
        self.abandon()

    def abandon(self) -> None:
        self._work.put(None)

    def _run(self, done: Callable[[Exception | None], None]) -> None:
        try:
            store = self._open_store()
        except Exception as error:  # noqa: BLE001  # passed on to whoever asked
            self._loop.soon_from_thread(partial(done, error))
            return
        self._loop.soon_from_thread(partial(done, None))
        while (function := self._work.get()) is not None:
            function(store)
        try:
            store.close()
        finally:
            self._loop.soon_from_thread(self._when_closed)


def _nothing() -> None:
    """Tell nobody."""
