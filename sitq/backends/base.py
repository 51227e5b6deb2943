"""`Backend`: where tasks are kept, and the life of its connections.

A backend connects on first use. It may be shared by any number of queues and workers of one
event loop; when that loop has ended, the next one simply connects anew. Closing is polite and
not required: a program that never closes can still end.

A backend of your own implements `open_store`, and is held to `sitq.testing.conformance`, the suite
that those of sitq are held to.
"""

from abc import ABC, abstractmethod
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self

from anyio.lowlevel import checkpoint_if_cancelled

from sitq import validation
from sitq.adapters.base import Driver, Loop, Store
from sitq.adapters.bells import Bells, NoBells
from sitq.adapters.current import current_loop
from sitq.adapters.hints import Heard
from sitq.adapters.presence import NoPresence, Presence
from sitq.adapters.session import Session
from sitq.adapters.thread import ThreadDriver
from sitq.adapters.virtual import Virtual, virtual
from sitq.adapters.within import Within
from sitq.exceptions import (
    BackendClosedError,
    BackendError,
    BackendInUseError,
    ValidationError,
)

WEEK: Final = timedelta(days=7)
MAX_PAYLOAD: Final = 16 * 2**20


class Backend(ABC):
    """*retention*: how long finished tasks are kept, None for ever (default: 7 days).

    *max_payload*: bytes that a serialised call or result may have (default: 16 MiB).
    """

    def __init__(
        self, *, retention: timedelta | float | None = WEEK, max_payload: int = MAX_PAYLOAD
    ) -> None:
        self.retention = None if retention is None else validation.seconds("retention", retention)
        self.max_payload = validation.whole("max_payload", max_payload, 1, 2**30)
        self._session: Session | None = None
        self._closed = False

    @abstractmethod
    def open_store(self) -> Store:
        """Return a store for the calling thread; it is called once for each connection."""

    def make_driver(self, loop: Loop) -> Driver:
        """Return what applies batches for *loop*: by default, a store in a thread."""
        return ThreadDriver(loop, self.open_store)

    def listen(self, heard: Heard) -> bool:  # noqa: ARG002
        """Have *heard* called with every batch that is applied to the store from here on.

        Return False, as here, if somebody could apply one that goes unheard.
        """
        return False

    def within(self, connection: object) -> Within:
        """Return what stores within the transaction on the caller's own *connection*."""
        del connection
        raise BackendError(
            f"{self!r} cannot store within a transaction of yours: only PostgresBackend can, on a"
            " psycopg connection to its database"
        )

    def presence(self) -> Presence:
        """Return the liveness locks of the workers on this backend."""
        return NoPresence()

    def bells(self) -> Bells:
        """Return what tells other processes of this host that something was committed."""
        return NoBells()

    @property
    def is_usable_here(self) -> bool:
        """Whether the running event loop, if there is one, can use this backend."""
        return self._session is None or self._session.is_over or self._session.loop.is_current()

    async def connect(self) -> None:
        """Open the store, also after `close`. Raises `FileRefusedError` if it cannot be used."""
        self._closed = False
        await self.session()

    async def close(self) -> None:
        """Store what has been asked, then close. What comes later raises `BackendClosedError`."""
        self._closed = True
        session, self._session = self._session, None
        if session is None:
            return
        if session.is_over:
            session.abandon()
        elif session.loop.is_current():
            await session.close()

    async def session(self) -> Session:
        """Return the open session of the running event loop."""
        session = self._session
        if session is not None and session.is_open and session.loop.is_current():
            await checkpoint_if_cancelled()
            return session
        if self._closed:
            raise BackendClosedError(f"{self!r} was closed; await its connect() to use it again")
        if session is None or session.failed or not session.loop.is_current():
            session = self._begin_session()
        try:
            await session.opened()
        finally:
            if session.failed and self._session is session:
                self._session = None  # the next one may find the path mended
        return session

    def _begin_session(self) -> Session:
        loop = current_loop()
        if self._session is not None and not self._session.failed:
            if not self._session.is_over:
                raise BackendInUseError(
                    f"{self!r} is at work in another event loop that still runs; make a backend of"
                    " its own for this one (several may share a file)"
                )
            self._session.abandon()
        run = virtual()
        self._session = Session(
            loop,
            make_driver=self.make_driver if run is None else partial(self._inline_driver, run),
            open_store=self.open_store,
            presence=self.presence(),
            max_payload=self.max_payload,
            listen=self.listen,
            bells=self.bells() if run is None else NoBells(),
            within=self.within,
        )
        return self._session

    def _inline_driver(self, run: Virtual, loop: Loop) -> Driver:
        from sitq.adapters.inline import InlineDriver  # the model behind it takes time to import

        driver = InlineDriver(loop, self.open_store)
        run.at_end.callback(driver.abandon)
        return driver

    async def __aenter__(self) -> Self:
        found = self._session
        try:
            await self.connect()
        except BaseException:
            session = self._session
            if session is not None and session is not found:
                # Who was cancelled on the way in will not come out again, to close it.
                self._session = None
                session.begin_close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def checked_backend(backend: object) -> Backend:
    """Return *backend*, if it is one."""
    if not isinstance(backend, Backend):
        raise ValidationError(
            f"backend must be a Backend, such as SQLiteBackend('tasks.db'), not {backend!r}"
        )
    return backend
