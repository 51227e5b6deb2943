"""Random batches, held against the model: the same questions, the same answers.

The model is the dicts of `sitq.storage.model`. Tasks and workers are few, so that ids clash, tokens
go stale and leases run out. A store numbers its tasks as it likes, and reads a clock of its own:
keys are compared by which attempt they name, and times by whether they are there.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from sitq.adapters import clocks
from sitq.backends.base import Backend
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Count,
    Enqueue,
    Failed,
    Failure,
    Fetch,
    Fetched,
    NewTask,
    Op,
    Outcome,
    Parked,
    Prune,
    Register,
    Released,
    Renew,
    Rescue,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    RetryPolicy,
    Settle,
    TaskKey,
    TaskPolicy,
    TaskRow,
    Unpark,
    Verdict,
    Watch,
    Watched,
)
from sitq.storage.model import Model
from sitq.testing.conformance.dice import random_cases

HOUR: Final = 3_600_000
IDS: Final = tuple(f"t{n}" for n in range(12))
WORKERS: Final = ("w1", "w2", "w3")
QUEUES: Final = (("a",), ("b",), ("a", "b"), ("b", "a"))
BATCHES: Final = 25
FAILURES: Final = (Failure("e", "E"), Failure("f", "F", "trace", "timeout"))
VERDICTS: Final[tuple[Verdict, ...]] = (
    Completed(b"v"),
    Failed(FAILURES[1]),
    RetryIn(0.0, FAILURES[0]),
    RetryIn(3600.0, FAILURES[1]),
    Released(),
    Parked("x", "cannot be read"),
    Aborted(),
)
POLICIES: Final = (
    TaskPolicy(),
    TaskPolicy(timeout=3.0, retry=RetryPolicy(attempts=2), max_crashes=1),
    TaskPolicy(max_crashes=2),
)


class Side:
    """One of the two, and which attempts it has given to whom, in its own numbers."""

    def __init__(self, apply: Callable[[Sequence[Op]], tuple[Outcome, ...]]) -> None:
        self._apply = apply
        self._labels: dict[TaskKey, str] = {}
        self.given: list[tuple[TaskKey, str, str]] = []

    def ask(self, ops: Sequence[Op]) -> list[Any]:
        """Ask, and return the answers as both sides would say them."""
        outcomes = self._apply(ops)
        assert len(outcomes) == len(ops), "every op has one outcome"
        return [self._plain(op, outcome) for op, outcome in zip(ops, outcomes, strict=True)]

    def _plain(self, op: Op, outcome: Outcome) -> Any:
        match outcome:
            case Reserved(tasks, next_due_in):
                assert isinstance(op, Reserve)
                for task in tasks:
                    if task.key not in self._labels:
                        before = sum(task_id == task.id for _, task_id, _ in self.given)
                        self._labels[task.key] = f"{task.id}, attempt {before}"
                        self.given.append((task.key, task.id, op.worker_id))
                given = [(self._labels[task.key], *task[1:]) for task in tasks]
                return "reserved", given, None if next_due_in is None else round(next_due_in, -2)
            case Cancelled(was, holder, key):
                return "cancelled", was, holder, None if key is None else self._labels[key]
            case Watched(peers, expired, cancelled):
                return "watched", peers, expired, [self._labels[key] for key in cancelled]
            case Fetched(rows):
                return "fetched", {task_id: _timeless(row) for task_id, row in rows.items()}
            case _:
                return outcome


def _timeless(row: TaskRow) -> TaskRow:
    return row._replace(
        enqueued_ms=0,
        started_ms=None if row.started_ms is None else 0,
        finished_ms=None if row.finished_ms is None else 0,
    )


class AgainstTheModel:
    @random_cases
    def test_random_batches_are_answered_as_the_model_answers_them(
        self, make_backend: Callable[[], Backend], dice: Random
    ) -> None:
        model = Model()
        store = make_backend().open_store()
        told = Side(lambda ops: model.apply(ops, clocks.moment()))
        asked = Side(store.apply)
        try:
            for _ in range(BATCHES):
                for batch in _batch(dice):
                    ops, same_ops = [op(asked) for op in batch], [op(told) for op in batch]
                    assert asked.ask(ops) == told.ask(same_ops), f"when asked {ops}"
                look: list[Op] = [Fetch(IDS), Count(), *map(Watch, WORKERS)]
                assert asked.ask(look) == told.ask(look)
        finally:
            store.close()


def _batch(dice: Random) -> list[list[Callable[[Side], Op]]]:
    """Return one batch or two; each op is made for the side that is asked."""
    match dice.randrange(4):
        case 0:  # a worker comes for tasks
            worker, limit = dice.choice(WORKERS), dice.randint(1, 4)
            register = Register(worker, "h", 1, ("a", "b"), 4, 60.0)
            return [[lambda _: register], [lambda _: Reserve(worker, ("a", "b"), limit)]]
        case 1:  # attempts are settled, of now and of long ago, by their holder or another
            picks = {dice.random(): dice.choice(VERDICTS) for _ in range(dice.randint(1, 3))}
            thief = dice.random() < 0.2
            return [[_settle(picks, n, thief=thief) for n in range(len(picks))]]
        case _:
            return [[_other(dice) for _ in range(dice.randint(1, 4))]]


def _settle(picks: dict[float, Verdict], n: int, *, thief: bool) -> Callable[[Side], Op]:
    def make(side: Side) -> Op:
        # An attempt ends once in a batch: those that were picked twice are only looked at.
        chosen = [int(pick * len(side.given)) for pick in picks]
        if not side.given or chosen[n] in chosen[:n]:
            return Count()
        key, task_id, holder = side.given[chosen[n]]
        return Settle(key, task_id, "w1" if thief else holder, list(picks.values())[n])

    return make


def _other(dice: Random) -> Callable[[Side], Op]:
    worker = dice.choice(WORKERS)
    kind = dice.randrange(12)
    if kind == 0:
        queues, limit = dice.choice(QUEUES), dice.randint(1, 4)
        return lambda side: Reserve(worker, queues, limit, _known(side, worker))
    op = _same_for_both(dice, kind, worker)
    return lambda _: op


def _known(side: Side, worker: str) -> tuple[int, ...]:
    """Return half of what *worker* was given: the rest it has not heard of."""
    seqs = [key.seq for key, _, holder in side.given if holder == worker]
    return tuple(dict.fromkeys(seqs[::2]))


def _same_for_both(dice: Random, kind: int, worker: str) -> Op:
    match kind:
        case 1 | 2 | 3:
            return Enqueue(tuple(_new_task(dice) for _ in range(dice.randint(1, 3))), True)
        case 4:
            return Cancel(dice.choice(IDS))
        case 5:
            return Register(worker, "h", 1, ("a",), 1, dice.choice((0.0, 60.0)))
        case 6:
            return Renew(worker, dice.choice((0.0, 60.0)))
        case 7:
            return Retire(worker)
        case 8:
            return Rescue(tuple(dict.fromkeys(dice.choices(WORKERS, k=dice.randrange(3)))))
        case 9:
            return Unpark(dice.choice((("x",), ("y", "x"), ())))
        case 10:
            return Prune(dice.choice((0.0, 3600.0)), 100)
        case _:
            return Reserve(worker, dice.choice(QUEUES), dice.randint(1, 4))


def _new_task(dice: Random) -> NewTask:
    now = clocks.wall_ms()
    return NewTask(
        id=dice.choice(IDS),
        payload=dice.choice((b"p", b"p", b"q")),
        name="f",
        queue=dice.choice(("a", "b")),
        priority=dice.randint(-1, 1),
        run_at_ms=dice.choice((None, None, now - HOUR, now + HOUR)),
        delay_ms=dice.choice((0, 0, HOUR)),
        policy=dice.choice(POLICIES),
    )
