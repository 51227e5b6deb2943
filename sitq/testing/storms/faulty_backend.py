"""A store in memory, as several programs see it that share it, and to which things go wrong.

Each program has a `FaultyBackend` of its own on the one store. Faults strike what they write, never
what they read: a transaction is refused, or its answer is lost or late; and the news of it, which
would wake the others, is lost.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sitq.adapters.base import Answer, BatchError, Driver, Loop, Store, answer_of
from sitq.adapters.hints import Heard, told_nobody
from sitq.adapters.inline import InlineDriver
from sitq.adapters.virtual import Virtual
from sitq.backends.base import Backend
from sitq.exceptions import StoreError
from sitq.protocol.commit import Blame
from sitq.protocol.ops import (
    Cancel,
    Count,
    Enqueue,
    Fetch,
    Op,
    Outcome,
    Reserved,
    Settle,
    TaskKey,
    Watch,
)
from sitq.testing.storms.faults import Storm
from sitq.testing.storms.promises import Promises

READS: Final = (Fetch, Watch, Count)

Later = Callable[[float, Callable[[], object]], object]


class Sea:
    """What the programs share: the store, the storm, and the news.

    *later* calls a function after so many seconds.
    """

    def __init__(self, store: Promises, storm: Storm, later: Later) -> None:
        self.store = store
        self.storm = storm
        self.later = later
        self.listeners: list[tuple[str, Heard]] = []
        self._running: dict[str, dict[TaskKey, str]] = {}

    def spread(self, who: str, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
        """Tell all programs what *who* has committed; others may not hear of it."""
        news = any(isinstance(op, Enqueue) for op in ops)
        for listener, heard in self.listeners:
            if news and listener != who and self.storm.strikes("hints"):
                self.storm.tell("hints", f"{listener} did not hear of {_names(ops)} by {who}")
            else:
                heard(ops, outcomes)

    def note(self, who: str, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
        """Note what *who* was given to run, for the story."""
        running = self._running.setdefault(who, {})
        for op, outcome in zip(ops, outcomes, strict=True):
            if isinstance(outcome, Reserved):
                running.update((task.key, task.id) for task in outcome.tasks)
            elif isinstance(op, Settle):
                running.pop(op.key, None)

    def work_of(self, who: str) -> str:
        """Say what *who* is running, to follow its name."""
        running = self._running.get(who, {})
        return f", running {', '.join(running.values())}," if running else ""


class FaultyBackend(Backend):
    """One program's way to the store; *who* it is, for the story."""

    def __init__(self, sea: Sea, who: str) -> None:
        super().__init__(retention=None)
        self._sea = sea
        self._who = who

    def open_store(self) -> Store:
        return _FaultyStore(self._sea, self._who)

    def listen(self, heard: Heard) -> bool:
        """Have news that may get lost."""
        self._sea.listeners.append((self._who, heard))
        return False

    def _inline_driver(self, run: Virtual, loop: Loop) -> Driver:  # noqa: ARG002
        return _SlowDriver(loop, self.open_store, self._sea, self._who)

    def __repr__(self) -> str:
        return f"<FaultyBackend of {self._who}>"


class _FaultyStore:
    def __init__(self, sea: Sea, who: str) -> None:
        self._sea = sea
        self._who = who

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        store, storm = self._sea.store, self._sea.storm
        if all(isinstance(op, READS) for op in ops):
            return store.apply(ops)
        if storm.strikes("refuse"):
            storm.tell("refuse", f"{self._who} was refused {_names(ops)}")
            raise BatchError(StoreError("refused, as the simulation wanted"), Blame.STORE)
        if storm.strikes("unknown"):
            is_stored = storm.dice.random() < 0.5
            if is_stored:
                self._sea.spread(self._who, ops, store.apply(ops))
            how = "is stored" if is_stored else "is not stored"
            storm.tell(
                "unknown", f"{self._who} was not told whether {_names(ops)} is stored: {how}"
            )
            raise BatchError(StoreError("cut off, as the simulation wanted"), Blame.UNKNOWN)
        outcomes = store.apply(ops)
        store.acknowledge(ops, outcomes)
        self._sea.note(self._who, ops, outcomes)
        self._sea.spread(self._who, ops, outcomes)
        return outcomes

    def tidy(self) -> None:
        """Nothing: memory is tidy."""

    def close(self) -> None:
        """Keep everything: others use it."""


class _SlowDriver(InlineDriver):
    def __init__(self, loop: Loop, open_store: Callable[[], Store], sea: Sea, who: str) -> None:
        super().__init__(loop, open_store)
        self._sea = sea
        self._who = who

    def begin(
        self, ops: Sequence[Op], done: Callable[[Answer], None], told: Heard = told_nobody
    ) -> None:
        storm = self._sea.storm
        if all(isinstance(op, READS) for op in ops) or not storm.strikes("slow"):
            super().begin(ops, done, told)
            return
        assert self._store is not None, "a store is opened before it is used"
        seconds = storm.dice.uniform(0.1, 5.0)
        storm.tell("slow", f"{self._who} waited {seconds:.1f} s for the answer to {_names(ops)}")
        self._sea.later(seconds, partial(done, answer_of(self._store, ops)))


def _names(ops: Sequence[Op]) -> str:
    return " and ".join(dict.fromkeys(map(_name, ops)))


def _name(op: Op) -> str:
    match op:
        case Enqueue(tasks):
            return f"Enqueue of {', '.join(task.id for task in tasks)}"
        case Settle(task_id=task_id) | Cancel(task_id):
            return f"{type(op).__name__} of {task_id}"
        case _:
            return type(op).__name__
