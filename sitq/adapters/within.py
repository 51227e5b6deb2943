"""A transaction that the caller has begun on a connection of its own, and will end itself.

What is stored within it is there if the caller commits, and was never there if it does not. Nothing
is asked again here, and nothing of the connection is changed: it is not ours.
"""

from typing import Protocol

from sitq.protocol.ops import Enqueue, Outcome, Settle


class OwnConnection(Protocol):
    """A connection of the caller's, such as `psycopg.Connection`."""

    def commit(self) -> None: ...


class OwnAsyncConnection(Protocol):
    """A connection of the caller's for an event loop, such as `psycopg.AsyncConnection`."""

    async def commit(self) -> None: ...


class Within(Protocol):
    """Applies ops within the caller's transaction. Each raises `SitqError`."""

    is_async: bool
    """Whether the connection is one that is awaited; it says which of the two is to be called."""

    def apply(self, op: Enqueue | Settle) -> Outcome:
        """Apply *op*; a `Settle` is refused even if the attempt was settled by another transaction.

        A transaction that was refused one can only be rolled back.
        """
        ...

    async def apply_async(self, op: Enqueue | Settle) -> Outcome: ...
