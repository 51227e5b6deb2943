"""The storage programs of production on a store in memory, watched from outside.

What changes in a row is seen by the store itself, not by what a program says of it: by triggers
in SQLite, and by the one method in the model through which all moves go.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from sitq.protocol.lifecycle import Move, TaskState
from sitq.protocol.ops import (
    Count,
    Fetch,
    Moment,
    Op,
    Outcome,
    Prune,
    Register,
    Renew,
    Reserve,
    Unpark,
    Watch,
)
from sitq.storage.model import Model, _Task
from sitq.storage.program import Change as ChangeStep, Commit, Program, Query
from sitq.storage.sqlite import apply_batch
from sitq.storage.sqlite_schema import open_database
from sitq.testing.simulation.history import Change, made
from sitq.testing.simulation.row_triggers import Saw, watch_rows


def _nobody(_task_id: str, _change: Change) -> None:
    """Is told of nothing."""


class SqliteSimStore:
    """One connection to a database in memory: transactions of all processes follow each other.

    It is emptied, and used again for the next run: to make the tables takes as long as a short run.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        self._cursor = self._db.cursor()
        self._run(open_database("the simulator's"), None)
        self._saw: Saw = _nobody
        watch_rows(self._db, self._changed)

    def begin(self, saw: Saw) -> None:
        """Empty it for another run, in which *saw* is told of each change of a row."""
        self.end()
        self._db.execute("DELETE FROM sitq_tasks")
        self._db.execute("DELETE FROM sitq_workers")
        self._saw = saw

    def end(self) -> None:
        """Tell nobody of what comes."""
        self._saw = _nobody

    def apply(self, ops: Sequence[Op], now: Moment) -> tuple[Outcome, ...]:
        outcomes: tuple[Outcome, ...] = self._run(apply_batch(ops, now), None)
        return outcomes

    def die_within(self, ops: Sequence[Op], now: Moment, statements: int) -> None:
        self._run(apply_batch(ops, now), statements)

    def _changed(self, task_id: str, change: Change) -> None:
        self._saw(task_id, change)

    def is_sound(self) -> bool:
        """Say whether SQLite finds the database whole."""
        return self._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def _run(self, program: Program[Any], statements: int | None) -> Any:
        db, cursor = self._db, self._cursor
        execute, executemany, send = cursor.execute, cursor.executemany, program.send
        rows: Any = None
        try:
            while True:
                step = send(rows)
                if statements is not None:
                    if statements == 0 or type(step) is Commit:
                        return None
                    statements -= 1
                if type(step) is Query:
                    sql, params = step
                    rows = execute(sql, params).fetchall()
                elif type(step) is ChangeStep:
                    sql, changes = step
                    if len(changes) == 1:
                        rows = ((execute(sql, changes[0]).rowcount,),)
                    else:
                        rows = ((executemany(sql, changes).rowcount,),)
                else:
                    if db.in_transaction:
                        execute("COMMIT")
                    rows = ()
        except StopIteration as end:
            return end.value
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


class ModelSimStore(Model):
    """The model, which MemoryBackend is made of."""

    def __init__(self, saw: Saw) -> None:
        super().__init__()
        self._saw = saw
        self._known: dict[int, tuple[TaskState, int, str | None, int, bool]] = {}

    def end(self) -> None:
        """Tell nobody of what comes."""
        self._saw = _nobody

    def die_within(self, ops: Sequence[Op], now: Moment, statements: int) -> None:
        """Nothing: a batch of the model has no inside."""

    def apply(self, ops: Sequence[Op], now: Moment) -> tuple[Outcome, ...]:
        outcomes = super().apply(ops, now)
        if not _ONLY_MOVES.issuperset(map(type, ops)):
            self._look_round()
        return outcomes

    def _move(self, task: _Task, move: Move) -> None:
        if task.seq not in self._known:  # it was enqueued by this very batch
            self._tell_new(task)
        super()._move(task, move)
        self._look_at(task)

    def _prune(self, op: Prune, now: Moment) -> Outcome:
        there = dict(self._tasks)
        outcome = super()._prune(op, now)
        for seq in there.keys() - self._tasks.keys():
            self._tell(there[seq], self._known.pop(seq), gone=True)
        return outcome

    def _look_round(self) -> None:
        known = self._known
        for seq, task in self._tasks.items():
            stands = (task.state, task.token, task.worker_id, task.attempt, task.cancel_asked)
            if known.get(seq) != stands:
                self._look_at(task)

    def _tell_new(self, task: _Task) -> None:
        token, worker, attempt = task.token, task.worker_id, task.attempt
        task.token, task.worker_id, task.attempt = 0, None, 0
        self._look_at(task)
        task.token, task.worker_id, task.attempt = token, worker, attempt

    def _look_at(self, task: _Task) -> None:
        known = self._known.get(task.seq)
        stands = (task.state, task.token, task.worker_id, task.attempt, task.cancel_asked)
        if known != stands:
            self._known[task.seq] = stands
            self._tell(task, known, gone=False)

    def _tell(
        self, task: _Task, known: tuple[TaskState, int, str | None, int, bool] | None, *, gone: bool
    ) -> None:
        state, token, worker, attempt, _ = known or (None, 0, None, 0, False)
        new = task.new
        change = (
            task.seq,
            state,
            None if gone else task.state,
            token,
            task.token,
            worker,
            task.worker_id,
            attempt,
            task.attempt,
            task.crashes,
            task.run_at_ms,
            task.finished_ms,
            task.cancel_asked,
            new.queue,
            new.priority,
        )
        self._saw(new.id, made(Change, change))


_ONLY_MOVES: Final = frozenset({Register, Renew, Watch, Fetch, Count, Reserve, Unpark, Prune})
"""The ops that leave rows alone but for the last thing they do to one: to move it, or delete it."""
