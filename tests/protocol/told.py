"""A worker machine that is told of turns, and what it says in each."""

from sitq.protocol.ops import (
    Reservation,
    Reserve,
    Reserved,
    RetryPolicy,
    Settle,
    TaskKey,
    TaskPolicy,
)
from sitq.protocol.retry import Returned
from sitq.protocol.worker import (
    Execute,
    LeaseHeld,
    Started,
    Store,
    Stored,
    TurnEnded,
    WorkerConfig,
    WorkerMachine,
)

DONE = Returned(b"ok")


def task(n, *, timeout=None, attempts=1) -> Reservation:
    policy = TaskPolicy(timeout=timeout, retry=RetryPolicy(attempts=attempts, jitter=0.0))
    return Reservation(TaskKey(n, 1), f"t{n}", "f", b"", 1, policy)


class Told:
    """A worker machine, and a turn of the loop in one call."""

    def __init__(self, **config) -> None:
        config = {"horizon": 0.0} | config  # but where it says so, nothing is held ahead
        self.machine = WorkerMachine(WorkerConfig(**config), lambda: 0.0)
        self.ticket = 0

    def turn(self, *events, now=0.0):
        """Tell it *events*, end the turn, and return what it says; tickets are left out."""
        said = self.only(*events, TurnEnded(), now=now)
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > now, "a deadline left behind would spin the driver"
        return said

    def only(self, *events, now=0.0):
        """Tell it *events* in the midst of a turn."""
        said = []
        for event in events:
            for effect in self.machine.receive(event, now):
                if isinstance(effect, Store):
                    self.ticket = effect.ticket
                    said.append(list(effect.ops))
                else:
                    said.append(effect)
        return said

    def stored(self, *outcomes, now=0.0, then=()):
        return self.turn(Stored(self.ticket, outcomes), *then, now=now)


def reserve(limit, worker_id="w", queues=("default",), known=None) -> Reserve:
    return Reserve(worker_id, queues, limit, known)


def settle(n, verdict, worker_id="w") -> Settle:
    return Settle(TaskKey(n, 1), f"t{n}", worker_id, verdict)


def started(**config) -> Told:
    """A worker that holds its lease and has asked for tasks."""
    told = Told(**config)
    assert told.turn(Started()) == []
    wanted = reserve(told.machine.config.max_concurrency, queues=told.machine.config.queues)
    assert told.turn(LeaseHeld("w", 27.0)) == [[wanted]]
    return told


def holding(*numbers, now=0.0, **config) -> Told:
    """A worker with these tasks in its hands, and no question under way."""
    told = started(**{"max_concurrency": len(numbers), **config})
    tasks = tuple(task(n) if isinstance(n, int) else n for n in numbers)
    assert told.stored(Reserved(tasks), now=now) == [Execute(t) for t in tasks]
    return told
