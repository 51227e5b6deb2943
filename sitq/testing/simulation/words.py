"""One event of a history in plain words, as a person would tell it.

Each event becomes a few sentences without their subject, which is the process that it happened to.
Each says whom it is about, and how much it matters, so that a story can leave out the rest.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple, assert_never

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Completed,
    Conflict,
    Enqueue,
    Failed,
    Op,
    Outcome,
    Parked,
    Register,
    Released,
    Renew,
    Rescue,
    Rescued,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    Settle,
    Settled,
    Unregistered,
    Verdict,
)
from sitq.testing.simulation.history import Batch, Change, Event, History, Kind


class Weight(IntEnum):
    ROUTINE = 0
    """Goes on all the time: a renewal, a look that finds nothing."""
    PROCESS = 1
    """Matters to whoever has to do with this process."""
    TASK = 2
    """Matters to whoever has to do with this task."""
    WORLD = 3
    """Matters to all."""


class Sentence(NamedTuple):
    text: str
    weight: Weight
    about: tuple[str, ...] = ()
    """Tasks and worker ids, besides those of the event."""


NAMES: Final = re.compile(r"[a-z]+\d+(?:\.\d+)*")
"""What tasks, processes and worker ids look like, wherever they are named in a text."""

_ROUTINE, _PROCESS, _TASK, _WORLD = Weight


def sentences(history: History) -> Iterator[tuple[Event, tuple[Sentence, ...]]]:
    """Tell each event; what a row did is told by the transaction that it belongs to."""
    batch: Batch | None = None
    for event in history:
        match event.kind:
            case Kind.BATCH:
                batch = event.value
                yield event, tuple(_batch(event.value))
            case Kind.ROW:
                yield event, (_row(event, event.value, batch),)
            case _:
                yield event, (_simple(event),)


def many(count: int, what: str) -> str:
    """Return so many of *what*."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"


def _simple(event: Event) -> Sentence:
    task, value = event.task, event.value
    which = f"{task} (token {event.token})"
    match event.kind:
        case Kind.UP:
            return Sentence("comes up", _PROCESS)
        case Kind.KILLED:
            return Sentence("dies", _PROCESS)
        case Kind.PAUSED:
            return Sentence(f"is paused for {value:.3f} s", _PROCESS)
        case Kind.BLOCKED:
            return Sentence(f"has its event loop blocked by a task for {value:.3f} s", _PROCESS)
        case Kind.STOP_ASKED:
            grace = "all the time it needs" if value is None else f"{value:g} s for its tasks"
            return Sentence(f"is asked to stop, with {grace}", _PROCESS)
        case Kind.STOPPED:
            left = f", and still keeps {value}" if value else ""
            return Sentence(f"has stopped{left}", _PROCESS)
        case Kind.ENQUEUE:
            return Sentence(f"asks to enqueue {_all(value)}", _TASK, value)
        case Kind.ENQUEUED:
            return Sentence(f"is told that {_are(value)} stored", _TASK, value)
        case Kind.REFUSED:
            return Sentence(f"is told that {_are(value)} refused", _TASK, value)
        case Kind.UNKNOWN:
            return Sentence(f"is told that nobody knows about {_all(value)}", _TASK, value)
        case Kind.CONFLICT:
            return Sentence(f"is told that {_are(value)} taken by another task", _TASK, value)
        case Kind.HELD:
            return Sentence(f"hears that it holds the lease {value}", _PROCESS)
        case Kind.LET_GO:
            return Sentence(f"lets go of the lease {value}", _PROCESS)
        case Kind.START:
            return Sentence(f"starts {which}, as {value[0]}", _TASK)
        case Kind.INTERRUPT:
            return Sentence(f"tells {which} to stop", _TASK)
        case Kind.END:
            return Sentence(f"sees {which} end: {value}", _TASK)
        case Kind.TOLD:
            counts = "counts" if value else "does not count"
            return Sentence(f"is told that its verdict on {which} {counts}", _TASK)
        case Kind.DENIED:
            return Sentence(f"is failed by the store, which its {value} had asked", _PROCESS)
        case Kind.CANCEL:
            return Sentence(f"asks to cancel {task}", _TASK)
        case Kind.CANCELLED:
            was = f"it was {value}" if value else "there is no such task"
            return Sentence(f"is told of its cancelling {task}: {was}", _TASK)
        case Kind.WAIT:
            how_long = "" if value is None else f", for {value:g} s at most"
            return Sentence(f"waits for {task}{how_long}", _TASK)
        case Kind.GAVE_UP:
            return Sentence(f"gives up waiting for {task}", _TASK)
        case Kind.READ:
            result = "" if value[1] is None else f", with {value[1]!r}"
            return Sentence(f"is told that {task} has ended: {value[0]}{result}", _TASK)
        case Kind.STANDS:
            found = value or "not there"
            return Sentence(f"is over, and {task} is {found}", _TASK)
        case Kind.SOUND:
            return Sentence("the store is whole" if value else "the store is damaged", _WORLD)
        case Kind.FAULT:
            return Sentence(str(value), _PROCESS if event.who else _WORLD)
        case Kind.HEALED:
            return Sentence("from here on nothing goes wrong any more", _WORLD)
        case Kind.QUIET:
            return Sentence("all is done", _WORLD)
        case Kind.STUCK:
            return Sentence(f"nothing moves any more; left are {'; '.join(value)}", _WORLD)
        case Kind.BATCH | Kind.ROW:
            raise AssertionError("these have words of their own")
        case _:
            assert_never(event.kind)


def _all(ids: tuple[str, ...]) -> str:
    return " and ".join(ids)


def _are(ids: tuple[str, ...]) -> str:
    return f"{_all(ids)} {'is' if len(ids) == 1 else 'are'}"


# -- transactions --------------------------------------------------------------------------


def _batch(batch: Batch) -> Iterator[Sentence]:
    for op, outcome in zip(batch.ops, batch.outcomes, strict=True):
        yield _op(op, outcome)


def _op(op: Op, outcome: Outcome) -> Sentence:
    match op, outcome:
        case Register(), _:
            text = f"takes a lease as {op.worker_id}, for {op.lease_for:g} s"
            return Sentence(text, _PROCESS, (op.worker_id,))
        case Renew(), Unregistered():
            text = f"would renew the lease of {op.worker_id}, which has ended"
            return Sentence(text, _PROCESS, (op.worker_id,))
        case Reserve(), Unregistered():
            text = f"asks for tasks as {op.worker_id}, whose lease has ended"
            return Sentence(text, _PROCESS, (op.worker_id,))
        case Rescue(), Rescued(workers, _) if workers:
            return Sentence(f"finds {_all(workers)} dead", _PROCESS, workers)
        case Retire(), _:
            return Sentence(f"gives back the lease {op.worker_id}", _PROCESS, (op.worker_id,))
        case Settle(), Settled(applied):
            which = f"{op.task_id} (token {op.key.token})"
            if applied:
                text = f"stores its verdict on {which}: {_verdict(op.verdict)}"
                return Sentence(text, _ROUTINE, (op.task_id,))
            text = f"comes too late with its verdict on {which}: {_verdict(op.verdict)}"
            return Sentence(text, _TASK, (op.task_id,))
        case Enqueue(), Conflict(task_id, _):
            return Sentence(f"is refused {task_id}: another task has this id", _TASK, (task_id,))
        case Reserve(), Reserved(tasks):
            names = tuple(task.id for task in tasks)
            return Sentence(f"asks for {op.limit} tasks: {_all(names) or 'none'}", _ROUTINE, names)
        case Cancel(), _:
            return Sentence(f"cancels {op.task_id}", _ROUTINE, (op.task_id,))
        case Enqueue(), _:
            names = tuple(task.id for task in op.tasks)
            return Sentence(f"enqueues {_all(names)}", _ROUTINE, names)
        case Renew(), _:
            return Sentence(f"renews the lease {op.worker_id}", _ROUTINE, (op.worker_id,))
        case _:
            return Sentence(f"asks the store: {type(op).__name__.lower()}", _ROUTINE)


def _verdict(verdict: Verdict) -> str:
    match verdict:
        case Completed():
            return "completed"
        case Failed():
            return "failed"
        case RetryIn(delay, _):
            return f"failed, once more in {delay:.3f} s"
        case Released():
            return "handed back"
        case Parked():
            return "cannot be read"
        case Aborted():
            return "stopped, as was asked"
        case _:
            assert_never(verdict)


def _row(event: Event, change: Change, batch: Batch | None) -> Sentence:
    workers = tuple(worker for worker in (change.old_worker, change.worker) if worker)
    weight = _ROUTINE if change.old is change.new and not change.cancel_asked else _TASK
    return Sentence(_moves(event.task, change, batch), weight, workers)


def _moves(task: str, change: Change, batch: Batch | None) -> str:
    match change.old, change.new:
        case None, state:
            return f"stores {task}: {state}"
        case _, None:
            return f"forgets {task}"
        case (S.QUEUED, S.RUNNING):
            given = f"token {change.token}, attempt {change.attempt}"
            return f"is given {task}, as {change.worker} ({given})"
        case (S.RUNNING, S.RUNNING) if change.cancel_asked:
            return f"asks for {task} to be stopped"
        case (old, new) if old is new:
            return f"changes {task}, which stays {new}: token {change.token}"
        case (S.RUNNING, new):
            moves = f"running -> {new}, token {change.token}"
            return f"{_leaves(task, change, batch)}: {moves}"
        case (old, new):
            why = {S.SCHEDULED: "is due", S.PARKED: "can be read now"}.get(old, "moves")
            why = "is cancelled" if new is S.CANCELLED else why
            return f"finds that {task} {why}: {old} -> {new}"


def _leaves(task: str, change: Change, batch: Batch | None) -> str:
    """Tell by which op of *batch* a task stopped being that of its holder."""
    worker = change.old_worker
    for op in batch.ops if batch else ():
        match op:
            case Settle() if op.task_id == task and op.worker_id == worker:
                return f"settles {task} ({_verdict(op.verdict)})"
            case Settle() if op.key.seq == change.seq:
                return f"settles {task} of {worker}, as {op.worker_id} ({_verdict(op.verdict)})"
            case Retire() if op.worker_id == worker:
                return f"hands back {task}, which {worker} held"
            case Rescue():
                return f"rescues {task} from {worker}"
            case _:
                pass
    return f"takes {task} from {worker}"
