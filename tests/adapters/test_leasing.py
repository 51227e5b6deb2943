"""The lease's thread: it renews whatever the event loop does, and tells what it learns."""

import threading
import time
from queue import SimpleQueue

import anyio
import pytest

from sitq.adapters import clocks
from sitq.adapters.base import BatchError
from sitq.adapters.leasing import LeaseThread
from sitq.exceptions import StoreBusyError
from sitq.protocol import lease as machine
from sitq.protocol.commit import Blame
from sitq.protocol.lease import AskToStop, Hold, LeaseConfig, LeaseMachine, LetGo, Wake
from sitq.protocol.ops import (
    Prune,
    Pruned,
    Register,
    Registered,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Retire,
    Retired,
    TaskKey,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
    Watched,
)
from tests.adapters.fakes import FakeStore


class Ledger(FakeStore):
    """A store that knows nothing but one worker's lease; a test may change each answer."""

    def __init__(self, presence) -> None:
        super().__init__(self._answer)
        self._presence = presence
        self.fails = []  # what the next batches raise
        self.answers = {
            Register: Registered(),
            Renew: Renewed(),
            Rescue: Rescued((), 0),
            Retire: Retired(0),
            Unpark: Unparked(0),
            Prune: Pruned(0),
            Watch: Watched((), False, ()),
        }

    def _answer(self, ops):
        if self.fails:
            raise self.fails.pop(0)
        for op in ops:
            if isinstance(op, Register):
                assert op.worker_id in self._presence.held, (
                    "the lock is held before the row is there"
                )
        return tuple(self.answers[type(op)] for op in ops)

    def asked(self, kind) -> list:
        return [op for batch in self.batches for op in batch if isinstance(op, kind)]


class Locks:
    """Liveness locks that are only told of."""

    def __init__(self) -> None:
        self.held, self.swept = [], []
        self.free = set()

    def enter(self, worker_id) -> None:
        self.held.append(worker_id)

    def leave(self, worker_id) -> None:
        self.held.remove(worker_id)

    def dead(self, worker_ids):
        return tuple(id_ for id_ in worker_ids if id_ in self.free)

    def sweep(self, worker_ids) -> None:
        self.swept += worker_ids
        self.free -= set(worker_ids)


class Lease:
    """A lease thread, and what it has told."""

    def __init__(self, lease_for: float, open_store=None) -> None:
        self.presence = Locks()
        self.store = Ledger(self.presence)
        self.news = SimpleQueue()
        self.ended = SimpleQueue()
        self.thread = LeaseThread(
            machine=LeaseMachine(
                LeaseConfig(
                    host="host",
                    pid=7,
                    queues=("default",),
                    max_concurrency=1,
                    lease_for=lease_for,
                    retention=60.0,
                    stamps=("x",),
                )
            ),
            open_store=open_store or self.store.open,
            presence=self.presence,
            tell=self.news.put,
            ended=self.ended.put,
        )

    def hear(self, kind):
        """Wait for the next news of this kind; what comes before it is passed over."""
        deadline = time.monotonic() + 5
        while True:
            news = self.news.get(timeout=max(0.0, deadline - time.monotonic()))
            if isinstance(news, kind):
                return news

    def heard_since(self) -> list:
        """What was told and not heard yet."""
        return [self.news.get_nowait() for _ in range(self.news.qsize())]

    def end(self) -> BaseException | None:
        """Have the worker leave; return the bug that ended the thread, if it was one."""
        self.thread.leave()
        return self.ended.get(timeout=5)


@pytest.fixture
def begin(monkeypatch):
    monkeypatch.setattr(machine, "FIRST_PAUSE", 0.01)  # until what failed is asked again
    leases = []

    def begin(lease_for=30.0, **options) -> Lease:
        lease = Lease(lease_for, **options)
        leases.append(lease)
        return lease

    yield begin
    for lease in leases:
        lease.thread.leave()
        if lease.thread._thread.ident is not None:
            lease.thread._thread.join(5)
            assert not lease.thread._thread.is_alive()


def test_it_registers_looks_around_and_leaves(begin) -> None:
    lease = begin()
    lease.thread.start()
    hold = lease.hear(Hold)

    assert hold.until == pytest.approx(clocks.lease_seconds() + 27, abs=2)
    assert lease.presence.held == [hold.worker_id]
    assert lease.end() is None
    (registered,) = lease.store.asked(Register)
    assert (registered.worker_id, registered.lease_for) == (hold.worker_id, 30.0)
    assert lease.store.asked(Watch)[0] == Watch(hold.worker_id)
    assert lease.store.asked(Unpark) == [Unpark(("x",))]
    assert lease.store.asked(Prune)[0].older_than == 60.0
    assert lease.store.asked(Retire) == [Retire(hold.worker_id)]
    assert lease.presence.held == []


def test_one_thread_of_its_own_opens_uses_and_closes_the_store(begin) -> None:
    lease = begin()
    lease.thread.start()
    lease.hear(Hold)
    lease.end()

    (thread,) = lease.store.threads
    assert (thread.name, thread.daemon) == ("sitq lease", True)
    assert thread is not threading.current_thread()
    assert (lease.store.events[0], lease.store.events[-1]) == ("open", "close")
    assert lease.store.events.count("apply") == lease.store.events.count("tidy")


@pytest.mark.anyio
async def test_renewal_goes_on_while_the_event_loop_is_blocked(begin) -> None:
    lease = begin(lease_for=0.3)
    lease.thread.start()
    hold = await anyio.to_thread.run_sync(lease.hear, Hold)
    before = len(lease.store.asked(Renew))

    for _ in range(4):
        time.sleep(0.1)  # noqa: ASYNC251  # so blocked is a loop in which a task computes
    renewals = lease.store.asked(Renew)[before:]
    assert len(renewals) >= 2
    assert {renew.worker_id for renew in renewals} == {hold.worker_id}
    assert lease.end() is None
    assert not any(isinstance(news, LetGo) for news in lease.heard_since())


def test_a_lease_that_was_refused_is_let_go_and_another_life_begins(begin) -> None:
    lease = begin(lease_for=0.15)
    lease.thread.start()
    first = lease.hear(Hold)
    lease.store.answers[Renew] = Unregistered()

    assert lease.hear(LetGo).worker_id == first.worker_id
    lease.store.answers[Renew] = Renewed()
    second = lease.hear(Hold)
    assert second.worker_id != first.worker_id
    assert lease.end() is None
    # What the first life left behind is taken back when the second registers.
    assert lease.store.asked(Rescue)[0].worker_ids == (first.worker_id,)
    assert lease.presence.held == []


def test_a_life_that_its_worker_has_disowned_is_not_renewed(begin) -> None:
    lease = begin(lease_for=0.15)
    lease.thread.start()
    first = lease.hear(Hold)
    lease.thread.disown(first.worker_id)
    assert lease.hear(LetGo).worker_id == first.worker_id

    while (second := lease.hear(Hold)).worker_id == first.worker_id:
        pass
    seen = len(lease.store.batches)
    lease.hear(Hold)
    later = [op for batch in lease.store.batches[seen:] for op in batch if isinstance(op, Renew)]
    assert {renew.worker_id for renew in later} == {second.worker_id}


def test_the_dead_are_found_rescued_and_swept(begin) -> None:
    lease = begin()
    lease.presence.free = {"dead"}
    lease.store.answers[Watch] = Watched(("alive", "dead"), False, ())
    lease.store.answers[Rescue] = Rescued(("dead",), 3)
    lease.thread.start()

    lease.hear(Wake)  # three tasks have come back
    assert lease.store.asked(Rescue)[0] == Rescue(("dead",))
    assert lease.end() is None
    assert lease.presence.swept[0] == "dead"


def test_what_callers_want_cancelled_is_told(begin) -> None:
    lease = begin()
    lease.store.answers[Watch] = Watched((), False, (TaskKey(1, 1), TaskKey(2, 1)))
    lease.thread.start()

    assert lease.hear(AskToStop).keys == (TaskKey(1, 1), TaskKey(2, 1))


@pytest.mark.parametrize(
    "error",
    [BatchError(StoreBusyError("locked"), Blame.STORE), OSError("a store of somebody's own")],
    ids=["BatchError", "OSError"],
)
def test_a_store_that_fails_is_complained_of_and_asked_again(begin, caplog, error) -> None:
    lease = begin()
    lease.store.fails = [error]
    lease.thread.start()

    lease.hear(Hold)
    assert "the lease could not be looked after, trying again" in caplog.text
    assert str(error) in caplog.text
    assert lease.end() is None


def test_a_store_that_cannot_be_opened_yet_is_opened_later(begin, caplog) -> None:
    tries = []

    def open_store():
        tries.append(1)
        if len(tries) == 1:
            raise StoreBusyError("locked for now")
        return lease.store.open()

    lease = begin(open_store=open_store)
    lease.thread.start()
    lease.hear(Hold)

    assert len(tries) == 2
    assert "locked for now" in caplog.text


def test_a_bug_ends_the_thread_and_is_handed_on(begin) -> None:
    lease = begin()
    bug = ZeroDivisionError("nobody has thought of this")

    def fail(worker_ids):
        raise bug

    lease.presence.dead = fail
    lease.store.answers[Watch] = Watched(("peer",), False, ())
    lease.thread.start()

    assert lease.ended.get(timeout=5) is bug
    assert lease.store.events[-1] == "close"


def test_leaving_before_there_was_a_lease_ends_the_thread(begin) -> None:
    lease = begin()
    lease.thread.leave()
    lease.thread.start()

    assert lease.ended.get(timeout=5) is None
    assert lease.presence.held == []
