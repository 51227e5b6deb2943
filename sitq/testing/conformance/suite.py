"""`BackendSuite`: all that a backend must do, as tests to inherit.

The class that derives from it says how its backend is made, and nothing else. Each case is a test
of its own, named as a sentence, and runs on every event loop that is installed.
"""

import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sitq.adapters.session import Session
from sitq.backends.base import Backend
from sitq.protocol.ops import Op
from sitq.testing.conformance.against_the_model import AgainstTheModel
from sitq.testing.conformance.asked import Ask
from sitq.testing.conformance.handing_over import HandingOver
from sitq.testing.conformance.killed import Killed
from sitq.testing.conformance.loops import EVERY_LOOP
from sitq.testing.conformance.lost_answers import LostAnswers
from sitq.testing.conformance.native_timeouts import NativeTimeouts
from sitq.testing.conformance.never_closed import NeverClosed
from sitq.testing.conformance.one_loop_after_another import OneLoopAfterAnother
from sitq.testing.conformance.sessions import Sessions
from sitq.testing.conformance.settling import Settling
from sitq.testing.conformance.under_faults import UnderFaults
from sitq.testing.conformance.workers_and_upkeep import WorkersAndUpkeep


class BackendSuite(
    HandingOver,
    Settling,
    WorkersAndUpkeep,
    Sessions,
    OneLoopAfterAnother,
    NativeTimeouts,
    NeverClosed,
    LostAnswers,
    AgainstTheModel,
    UnderFaults,
    Killed,
):
    """Derive from it in a test module, under a name that begins with `Test`."""

    making: ClassVar[str | None] = None
    """Lines of Python that make the `backend` of a program, from the path of a `folder`. Some
    cases are programs of their own: they are skipped where this is None."""

    outlives_its_process: ClassVar[bool] = True
    """Whether tasks are still there when their process is gone."""

    @abstractmethod
    def new_backend(self, folder: Path) -> Backend:
        """Return a backend on a new and empty store; *folder* is there for it alone."""
        raise NotImplementedError("a suite says in `new_backend` how its backend is made")

    @pytest.fixture(params=EVERY_LOOP)
    def anyio_backend(self, request: Any) -> Any:
        return request.param

    @pytest.fixture(name="making")
    def _making(self) -> str:
        if self.making is None:
            pytest.skip("this suite does not say how a program makes its backend: see `making`")
        return self.making

    @pytest.fixture
    def make_backend(self, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Backend]:
        """Make a backend whenever it is called, each on a store of its own."""
        return lambda: self.new_backend(tmp_path_factory.mktemp("store"))

    @pytest.fixture
    async def backend(self, make_backend: Callable[[], Backend]) -> AsyncIterator[Backend]:
        """A fresh backend, closed at the end; no thread of ours is left behind then."""
        before = set(threading.enumerate())
        backend = make_backend()
        yield backend
        await backend.close()
        ours = [thread for thread in threading.enumerate() if _is_ours(thread, before)]
        for thread in ours:
            thread.join(5)
        assert not [thread for thread in ours if thread.is_alive()]

    @pytest.fixture
    async def session(self, backend: Backend) -> Session:
        return await backend.session()

    @pytest.fixture
    async def ask(self, session: Session) -> Ask:
        """Have one op committed; return its outcome."""

        async def ask(op: Op) -> Any:
            (outcome,) = await session.writer.submit(op)
            return outcome

        return ask


def _is_ours(thread: threading.Thread, before: set[threading.Thread]) -> bool:
    """Say whether it is a store's, a lease's, or aiosqlite's, and new."""
    ours = thread.name.startswith("sitq") or "_connection_worker_thread" in thread.name
    return ours and thread not in before
