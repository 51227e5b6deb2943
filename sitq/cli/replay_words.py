"""One step of a replay in plain words, and which tasks it is about.

A recording names an attempt by its key; whoever saw the task being given knows its id.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, assert_never

from sitq.protocol import lease, worker
from sitq.protocol.ops import (
    Aborted,
    Completed,
    Failed,
    Op,
    Outcome,
    Parked,
    Prune,
    Pruned,
    Register,
    Released,
    Renew,
    Rescue,
    Rescued,
    Reservation,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    Settle,
    Settled,
    TaskKey,
    Unpark,
    Unparked,
    Unregistered,
    Verdict,
    Watch,
    Watched,
)
from sitq.protocol.retry import Ending, Interrupted, Raised, Returned, Unreadable
from sitq.testing.replaying import Step


class Words:
    """*ids* names the tasks that are known already."""

    def __init__(self, ids: Mapping[TaskKey, str]) -> None:
        self._ids = dict(ids)

    def learn(self, step: Step) -> None:
        """Take in which tasks *step* names; before it is told."""
        for part in _parts((step.event, step.effects)):
            if isinstance(part, Reservation):
                self._ids[part.key] = part.id
            elif isinstance(part, Settle):
                self._ids[part.key] = part.task_id

    def tasks(self, step: Step) -> set[str]:
        """Return the ids of the tasks that *step* is about."""
        about: set[str] = set()
        for part in _parts((step.event, step.effects)):
            match part:
                case TaskKey() if part in self._ids:
                    about.add(self._ids[part])
                case worker.Late(task_id):
                    about.add(task_id)
                case _:
                    pass
        return about

    def event(self, event: worker.WorkerEvent | lease.LeaseEvent) -> str:
        match event:
            case worker.Started() | lease.Started():
                return "starts"
            case worker.LeaseHeld(worker_id, remaining):
                return f"holds the lease {worker_id} for {remaining:.3f} s"
            case worker.LeaseLost(worker_id):
                return f"has lost the lease {worker_id}"
            case worker.StopAsked(keys):
                return f"hears that callers want to stop {self._keys(keys)}"
            case worker.Woken():
                return "hears that there may be work"
            case worker.Coming(queues):
                return f"hears that tasks for {_list(queues)} are being stored"
            case worker.TaskEnded(key, ending, lingers):
                left = "; its thread still runs" if lingers else ""
                return f"{self._key(key)} has ended: {_ending(ending)}{left}"
            case worker.ThreadReturned():
                return "a thread that was left behind has ended"
            case worker.Stored(ticket, outcomes):
                return f"the store has answered {ticket}: {self._outcomes(outcomes)}"
            case worker.StoreFailed(ticket, error):
                return f"the store has failed at {ticket}: {_error(error)}"
            case worker.StopRequested(grace):
                return (
                    f"is to stop, {'in its own time' if grace is None else f'within {grace:g} s'}"
                )
            case worker.TurnPassed():
                return "what could run has run"
            case worker.TurnEnded():
                return "the turn ends"
            case lease.Entered(worker_id):
                return f"begins a life as {worker_id}"
            case lease.Applied(outcomes):
                return f"the store has answered: {self._outcomes(outcomes)}"
            case lease.ApplyFailed(error):
                return f"the store has failed: {_error(error)}"
            case lease.Probed(dead):
                return f"has found dead: {_list(dead)}"
            case lease.Disowned(worker_id):
                return f"hears that the worker has let go of {worker_id}"
            case lease.LeaveRequested():
                return "is to leave"
            case lease.Tick():
                return "it is time"
            case _:
                assert_never(event)

    def effect(self, effect: worker.WorkerEffect | lease.LeaseEffect) -> str:
        match effect:
            case worker.Store(ticket, ops):
                return f"asks the store ({ticket}): {self._ops(ops)}"
            case worker.Execute(task):
                return f"starts {self._key(task.key)}: {task.name}, attempt {task.attempt}"
            case worker.Interrupt(key, why):
                return f"tells {self._key(key)} to stop: {why.value.replace('_', ' ')}"
            case worker.Disown(worker_id):
                return f"lets go of the lease {worker_id}"
            case worker.Late(task_id):
                return f"comes too late to settle {task_id}"
            case worker.WaitATurn():
                return "waits for what may be over at once"
            case worker.Stop() | lease.Stop():
                return "stops"
            case lease.Enter():
                return "takes a new id and its liveness lock"
            case lease.Apply(ops):
                return f"asks the store: {self._ops(ops)}"
            case lease.Probe(worker_ids):
                return f"looks whether these are dead: {_list(worker_ids)}"
            case lease.Hold(worker_id, until):
                return f"tells the worker that it holds {worker_id} until {until:.3f}"
            case lease.LetGo(worker_id):
                return f"tells the worker that {worker_id} is lost"
            case lease.AskToStop(keys):
                return f"tells the worker to stop {self._keys(keys)}"
            case lease.Wake():
                return "tells the worker that tasks have come back"
            case lease.Complain(error):
                return f"complains of the store: {_error(error)}"
            case lease.Leave(worker_id):
                return f"gives up the liveness lock of {worker_id}"
            case lease.Sweep(worker_ids):
                return f"removes the locks of {_list(worker_ids)}"
            case _:
                assert_never(effect)

    def _key(self, key: TaskKey) -> str:
        return f"{self._ids.get(key, f'task no. {key.seq}')} (token {key.token})"

    def _keys(self, keys: Iterable[TaskKey]) -> str:
        return _list(map(self._key, keys))

    def _ops(self, ops: Iterable[Op]) -> str:
        return "; ".join(map(self._op, ops))

    def _op(self, op: Op) -> str:
        match op:
            case Settle():
                return f"settle {self._key(op.key)}: {_verdict(op.verdict)}"
            case Reserve():
                lost = "" if op.known is None else f", knowing {len(op.known)}"
                return f"give me {op.limit} at most from {_list(op.queues)}{lost}"
            case Register():
                return f"register {op.worker_id} for {op.lease_for:g} s"
            case Renew():
                return f"renew for {op.lease_for:g} s"
            case Retire():
                return f"retire {op.worker_id}"
            case Rescue():
                return f"rescue what the dead have left, {_list(op.worker_ids)} among them"
            case Unpark():
                return "unpark what can be read here"
            case Prune():
                return f"forget {op.limit} at most"
            case Watch():
                return "watch"
            case _:
                return type(op).__name__.lower()

    def _outcomes(self, outcomes: Iterable[Outcome]) -> str:
        return "; ".join(map(self._outcome, outcomes))

    def _outcome(self, outcome: Outcome) -> str:
        match outcome:
            case Reserved(tasks, next_due_in):
                later = "" if next_due_in is None else f", the next is due in {next_due_in:g} s"
                return f"gave {self._keys(task.key for task in tasks)}{later}"
            case Settled(applied):
                return "settled" if applied else "refused, too late"
            case Unregistered():
                return "refused, the lease has ended"
            case Rescued(workers, tasks):
                return f"rescued {tasks} tasks of {_list(workers)}"
            case Unparked(tasks):
                return f"unparked {tasks}"
            case Pruned(tasks):
                return f"forgot {tasks}"
            case Watched(peers, expired, cancelled):
                overdue = ", one overdue" if expired else ""
                unwanted = f", to be stopped: {self._keys(cancelled)}" if cancelled else ""
                return f"peers: {len(peers)}{overdue}{unwanted}"
            case _:
                return type(outcome).__name__.lower()


def _ending(ending: Ending) -> str:
    match ending:
        case Returned(value):
            return f"returned {len(value):,} bytes"
        case Raised(failure, retryable):
            return f"raised {failure.error_type}{'' if retryable else ', for good'}"
        case Interrupted():
            return "interrupted"
        case Unreadable():
            return "it cannot be read here"
        case _:
            assert_never(ending)


def _verdict(verdict: Verdict) -> str:
    match verdict:
        case Completed(value):
            return f"completed, {len(value):,} bytes"
        case Failed(failure):
            return f"failed, {failure.error_type}"
        case RetryIn(delay, failure):
            return f"failed, {failure.error_type}; once more in {delay:.3f} s"
        case Released():
            return "handed back"
        case Parked():
            return "parked"
        case Aborted():
            return "stopped, as was asked"
        case _:
            assert_never(verdict)


def _error(error: Exception) -> str:
    return str(error) or type(error).__name__


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _parts(value: Any) -> Iterator[Any]:
    """Yield *value* and all that it holds."""
    yield value
    if isinstance(value, tuple):
        for item in value:
            yield from _parts(item)
