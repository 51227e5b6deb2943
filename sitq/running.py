"""`current_task`: the task that is being run, and its end within a transaction of its own."""

from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, overload

from sitq.adapters.calls import Execution, running
from sitq.adapters.within import OwnAsyncConnection, OwnConnection, Within
from sitq.exceptions import SerializationError, TaskLostError, ValidationError, WorkerError
from sitq.protocol.ops import Completed, Outcome, Settle, Settled
from sitq.protocol.retry import Raised


class RunningTask:
    """One attempt of a task, as its own function sees it."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    @property
    def id(self) -> str:
        """The task's id."""
        return self._execution.task.id

    @property
    def name(self) -> str:
        """The name of its function."""
        return self._execution.task.name

    @property
    def attempt(self) -> int:
        """Which attempt this is: 1 for the first."""
        return self._execution.task.attempt

    @overload
    def finish(
        self, result: object = None, *, within: OwnAsyncConnection
    ) -> Coroutine[Any, Any, None]: ...
    @overload
    def finish(self, result: object = None, *, within: OwnConnection) -> None: ...
    def finish(self, result: object = None, *, within: object) -> Coroutine[Any, Any, None] | None:
        """Store within your transaction that the task has succeeded; await it for an AsyncConnection.

        It has if you commit, and what you have written in this transaction is there then; it has
        not if you do not. Do it last, and commit before the function returns: what it returns, or
        raises after the commit, is not kept.

        Args:
            result: what the task's result is to be.
            within: your psycopg connection, with the transaction open.

        Raises:
            TaskLostError: this attempt is over already; your transaction can only be rolled back.
            SerializationError: *result* cannot be turned into bytes, or has too many.
            ValidationError: no transaction can be open on this connection.
            StoreError: it could not be stored; the transaction has failed.
            BackendError: the worker's backend cannot do this.
        """
        execution = self._execution
        sealed = execution.sealed(result)
        if isinstance(sealed, Raised):
            raise SerializationError(sealed.failure.error)
        transaction = execution.within(within)
        # The worker is not named: a token alone names one attempt.
        op = Settle(execution.task.key, self.id, "", Completed(sealed.value))
        before, execution.has_finished = execution.has_finished, True
        if transaction.is_async:
            return self._finish_async(transaction, op, before)
        with self._unless_refused(before):
            self._check(transaction.apply(op))
        return None

    async def _finish_async(self, transaction: Within, op: Settle, before: bool) -> None:
        with self._unless_refused(before):
            self._check(await transaction.apply_async(op))

    @contextmanager
    def _unless_refused(self, before: bool) -> Generator[None]:
        """Leave the task as it was *before*, where no transaction was there to finish it within."""
        try:
            yield
        except ValidationError:
            self._execution.has_finished = before
            raise

    def _check(self, outcome: Outcome) -> None:
        if outcome != Settled(True):
            raise TaskLostError(
                f"this attempt of task {self.id} is over already: its worker had lost the lease, or"
                " an earlier transaction has finished it. This transaction can only be rolled back",
                self.id,
            )

    def __repr__(self) -> str:
        return f"<running task {self.id} {self.name}, attempt {self.attempt}>"


def current_task() -> RunningTask:
    """Return the task that the caller is part of. Raises `WorkerError` outside of all tasks."""
    execution = running.get(None)
    if execution is None:
        raise WorkerError(
            "current_task() is for functions that a worker runs, and what they call; here is none"
        )
    return RunningTask(execution)
