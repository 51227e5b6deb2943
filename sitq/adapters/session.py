"""A backend at work in one event loop: opened on first use, and of no use to any other loop."""

import os
from collections.abc import Callable

import anyio
import anyio.lowlevel

from sitq.adapters.base import Driver, Loop, Store
from sitq.adapters.bells import Bells
from sitq.adapters.committer import Committer
from sitq.adapters.doorbell import Doorbell
from sitq.adapters.hints import Heard, Hints, told_nobody
from sitq.adapters.presence import Presence
from sitq.adapters.within import Within
from sitq.protocol.ops import Fetch, Fetched, TaskRow


class Session:
    """*writer* commits; *reader* looks, on a connection of its own: nobody waits for a sync.

    *listen* has every batch of the store told, whoever applies it, and returns True; or it cannot
    promise that, and then what is committed here is told.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        make_driver: Callable[[Loop], Driver],
        open_store: Callable[[], Store],
        presence: Presence,
        max_payload: int,
        listen: Callable[[Heard], bool],
        bells: Bells,
        within: Callable[[object], Within],
    ) -> None:
        self.loop = loop
        self.open_store = open_store
        self.presence = presence
        self.max_payload = max_payload
        self.within = within
        self.hints = Hints()
        self.hints.are_complete = listen(self.hints.applied)
        self._doorbell = Doorbell(loop, bells, self.hints)
        self._drivers = make_driver(loop), make_driver(loop)
        hears_all = self.hints.are_complete
        self.writer = Committer(
            loop,
            self._drivers[0],
            told_nobody if hears_all else self.hints.committed,
            told=self._doorbell.ring,
            offer=self.hints.offer,
        )
        self.reader = Committer(loop, self._drivers[1], told_nobody)
        self._opened = anyio.Event()
        self.is_open = False
        """Whether it can be used at once. A fork or the end of its loop changes nothing of that."""
        self._closing = False
        self._closed = anyio.Event()
        self._error: Exception | None = None
        self._pid = os.getpid()
        # One after the other: the first makes the file, or refuses it for both.
        self._drivers[0].begin_open(self._writer_opened)

    def _writer_opened(self, error: Exception | None) -> None:
        if error is None:
            self._drivers[1].begin_open(self._reader_opened)
        else:
            self._both_opened(error)

    def _reader_opened(self, error: Exception | None) -> None:
        if error is not None:
            self._drivers[0].abandon()  # it may be open, and nobody will use it
        self._both_opened(error)

    def _both_opened(self, error: Exception | None) -> None:
        self._error = error
        self.is_open = error is None
        self._opened.set()
        if self._closing:
            self._close()

    @property
    def quick(self) -> float:
        """Within what time tasks must follow one another to be told of together, in seconds."""
        return self._drivers[0].quick

    @property
    def failed(self) -> bool:
        """Whether the store could not be opened."""
        return self._error is not None

    @property
    def is_over(self) -> bool:
        """Whether it can be replaced: its loop has ended, or belongs to the parent of a fork."""
        return self._pid != os.getpid() or self.loop.is_over()

    def abandon(self) -> None:
        """Let go of the connections of a loop that has ended; a fork has left them behind."""
        if self._pid == os.getpid():
            self._doorbell.abandon()
            for driver in self._drivers:
                driver.abandon()

    async def opened(self) -> None:
        """Return once both connections are open; raise what kept them from it."""
        if self._opened.is_set():  # not to be waited for, which would cost a turn of the loop
            await anyio.lowlevel.checkpoint_if_cancelled()
        else:
            await self._opened.wait()
        if self._error is not None:
            raise self._error

    async def fetch(self, task_id: str) -> TaskRow | None:
        (outcome,) = await self.reader.submit(Fetch((task_id,)))
        assert isinstance(outcome, Fetched)
        return outcome.rows.get(task_id)

    def begin_close(self) -> None:
        """Have what was asked stored, then close. Nobody needs to wait for that."""
        self._closing = True
        if self._opened.is_set():
            self._close()

    def _close(self) -> None:
        self._doorbell.close()
        if self._error is None:
            self.writer.begin_close(lambda: self.reader.begin_close(self._closed.set))
        else:
            self._closed.set()

    async def close(self) -> None:
        """Return once it is closed, also if that is cancelled meanwhile."""
        self.begin_close()
        await self._is_closed()

    async def _is_closed(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._closed.wait()
        except anyio.get_cancelled_exc_class():
            await self._is_closed()  # asyncio's own cancel() goes through a shield
            raise
