"""The storage programs of production on a store in memory, watched from outside.

What changes in a row is seen by the store itself, not by what a program says of it: by triggers
in SQLite, and by the one method in the model through which all moves go.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from sitq.protocol.lifecycle import Move, TaskState
from sitq.protocol.ops import Count, Fetch, Moment, Op, Outcome, Prune, Register, Renew, Watch
from sitq.storage.model import Model, _Task
from sitq.storage.program import Change as ChangeStep, Commit, Done, Program, Query, resume
from sitq.storage.sqlite import apply_batch
from sitq.storage.sqlite_schema import open_database
from sitq.testing.simulation.history import Change

Saw = Callable[[str, Change], None]


_COLUMNS: Final = (
    "seq", "state", "token", "worker_id", "attempt", "crashes", "run_at_ms", "finished_ms",
    "cancel_asked", "queue", "priority",
)  # fmt: skip


class SqliteSimStore:
    """One connection to a database in memory: transactions of all processes follow each other.

    It is emptied, and used again for the next run: to make the tables takes as long as a short run.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        self._cursor = self._db.cursor()
        self._run(open_database("the simulator's"), None)
        self._saw: Saw = lambda *_: None
        self._db.create_function("sitq_saw", 2 + 2 * len(_COLUMNS), self._changed)
        nothing = ", ".join(["NULL"] * len(_COLUMNS))
        old = ", ".join(f"OLD.{column}" for column in _COLUMNS)
        new = ", ".join(f"NEW.{column}" for column in _COLUMNS)
        for when, of, id_, values in (
            ("INSERT", "new", "NEW.id", f"{nothing}, {new}"),
            ("UPDATE", "both", "NEW.id", f"{old}, {new}"),
            ("DELETE", "old", "OLD.id", f"{old}, {nothing}"),
        ):
            self._db.execute(
                f"CREATE TEMP TRIGGER saw_{of} AFTER {when} ON main.sitq_tasks"
                f" BEGIN SELECT sitq_saw('{of}', {id_}, {values}); END"
            )

    def begin(self, saw: Saw) -> None:
        """Empty it for another run, in which *saw* is told of each change of a row."""
        self._saw = lambda *_: None
        self._db.execute("DELETE FROM sitq_tasks")
        self._db.execute("DELETE FROM sitq_workers")
        self._saw = saw

    def apply(self, ops: Sequence[Op], now: Moment) -> tuple[Outcome, ...]:
        outcomes: tuple[Outcome, ...] = self._run(apply_batch(ops, now), None)
        return outcomes

    def die_within(self, ops: Sequence[Op], now: Moment, statements: int) -> None:
        self._run(apply_batch(ops, now), statements)

    def is_sound(self) -> bool:
        """Say whether SQLite finds the database whole."""
        return self._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def _run(self, program: Program[Any], statements: int | None) -> Any:
        db, cursor = self._db, self._cursor
        try:
            step = resume(program, None)
            while type(step) is not Done:
                if statements is not None:
                    if statements == 0 or type(step) is Commit:
                        return None
                    statements -= 1
                if type(step) is Query:
                    step = resume(program, cursor.execute(step.sql, step.params).fetchall())
                elif type(step) is ChangeStep:
                    count = cursor.executemany(step.sql, step.rows).rowcount
                    step = resume(program, ((count,),))
                else:
                    if db.in_transaction:
                        cursor.execute("COMMIT")
                    step = resume(program, ())
            return step.value
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _changed(self, of: str, id_: str, *values: Any) -> None:
        old, new = values[: len(_COLUMNS)], values[len(_COLUMNS) :]
        latest = old if of == "old" else new
        self._saw(
            id_,
            Change(
                seq=latest[0],
                old=None if of == "new" else TaskState(old[1]),
                new=None if of == "old" else TaskState(new[1]),
                old_token=old[2] or 0,
                token=latest[2],
                old_worker=old[3],
                worker=latest[3],
                old_attempt=old[4] or 0,
                attempt=latest[4],
                crashes=latest[5],
                run_at_ms=latest[6],
                finished_ms=latest[7],
                cancel_asked=bool(latest[8]),
                queue=latest[9],
                priority=latest[10],
            ),
        )


class ModelSimStore(Model):
    """The model, which MemoryBackend is made of."""

    def __init__(self, saw: Saw) -> None:
        super().__init__()
        self._saw = saw
        self._known: dict[int, tuple[TaskState, int, str | None, int, bool]] = {}

    def die_within(self, ops: Sequence[Op], now: Moment, statements: int) -> None:
        """Nothing: a batch of the model has no inside."""

    def apply(self, ops: Sequence[Op], now: Moment) -> tuple[Outcome, ...]:
        outcomes = super().apply(ops, now)
        for op in ops:
            if type(op) not in _LEAVES_TASKS_ALONE:
                self._look_round()
                break
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
        for task in self._tasks.values():
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
        self._saw(
            task.new.id,
            Change(
                seq=task.seq,
                old=state,
                new=None if gone else task.state,
                old_token=token,
                token=task.token,
                old_worker=worker,
                worker=task.worker_id,
                old_attempt=attempt,
                attempt=task.attempt,
                crashes=task.crashes,
                run_at_ms=task.run_at_ms,
                finished_ms=task.finished_ms,
                cancel_asked=task.cancel_asked,
                queue=task.new.queue,
                priority=task.new.priority,
            ),
        )


_LEAVES_TASKS_ALONE: Final = frozenset({Register, Renew, Watch, Fetch, Count})
