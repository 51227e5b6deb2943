"""A store and a driver that do as a test tells them, and remember what was asked."""

import threading

from sitq.adapters.base import BatchError
from sitq.protocol.ops import Count, Counted


class FakeStore:
    """Answers each batch with what *answer* returns or raises; all other is remembered."""

    def __init__(self, answer=None) -> None:
        self.answer = answer or (lambda ops: tuple(Counted(()) for _ in ops))
        self.batches = []
        self.events = []  # in order: open, apply, tidy, close
        self.threads = set()

    def apply(self, ops):
        self._note("apply")
        self.batches.append(tuple(ops))
        return self.answer(ops)

    def tidy(self) -> None:
        self._note("tidy")

    def close(self) -> None:
        self._note("close")

    def open(self) -> "FakeStore":
        """What a backend's `open_store` is."""
        self._note("open")
        return self

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread())


class FakeDriver:
    """Answers a batch when the test says so: *begun* holds what waits."""

    quick = 0.0

    def __init__(self) -> None:
        self.begun = []
        self.batches = []
        self.closed = False

    def begin_open(self, done) -> None:
        done(None)

    def begin(self, ops, done, told=None) -> None:
        self.batches.append(tuple(ops))
        self.begun.append((tuple(ops), done))

    def begin_close(self, done) -> None:
        self.closed = True
        done()

    def commit(self) -> None:
        """Answer the batch that is under way."""
        ops, done = self.begun.pop(0)
        done(tuple(Counted(((type(op).__name__, "queued", n),)) for n, op in enumerate(ops)))

    def fail(self, error: Exception, blame) -> None:
        _, done = self.begun.pop(0)
        done(BatchError(error, blame))


LOOK = Count()
