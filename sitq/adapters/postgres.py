"""Batches on a connection to Postgres that may be lost at any moment, and its store for threads.

The promises:
- Whoever is told that nothing was stored can rely on it; where the connection is lost while a
  COMMIT is under way, that is said (`Blame.UNKNOWN`), and what is asked again waits for the fate of
  the first: the server keeps its locks until that is decided.
- A lost connection is made anew, and a batch that failed for its neighbours is asked again, after
  pauses with jitter, for `timeout` seconds. A server that says nothing for that long is left.
- A connection that was carried across a fork is not used.

`Talk` says what is to be done, in coroutines that no event loop runs: see `Ready`.
"""

import contextlib
import os
import selectors
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, assert_never

from sitq.adapters import chance, clocks
from sitq.adapters.base import BatchError
from sitq.adapters.bells import Want
from sitq.adapters.postgres_announced import ARRIVES_WITHIN, new_key
from sitq.adapters.postgres_connection import (
    Connection,
    PgError,
    PostgresSettings,
    Ready,
    connect,
    shown,
)
from sitq.adapters.postgres_errors import Judgement, NoAnswerError, cannot_connect, judge
from sitq.adapters.postgres_news import News
from sitq.exceptions import BackendInUseError, StoreUnreachableError
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Enqueue, Op, Outcome, Reserve
from sitq.storage.postgres import apply_batch
from sitq.storage.postgres_arrays import Ints
from sitq.storage.postgres_front import Front
from sitq.storage.postgres_schema import open_schema
from sitq.storage.postgres_statements import ARRIVED, AWAIT
from sitq.storage.program import (
    Change,
    Commit,
    Done,
    Program,
    Query,
    Row,
    Together,
    resume,
)

T = TypeVar("T")

FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0


class Pause:
    """Awaited for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator["Pause", None, None]:
        yield self


class Connect:
    """Awaited for a new connection."""

    def __await__(self) -> Generator["Connect", Connection, Connection]:
        return (yield self)


Asked: TypeAlias = Ready | Pause | Connect
"""What a coroutine of `Talk` may wait for."""


class Talk:
    """Applies batches on one connection after another.

    *before_drop* is called before a connection is closed.
    """

    def __init__(
        self, settings: PostgresSettings, before_drop: Callable[[], object] | None = None
    ) -> None:
        self.settings = settings
        self._before_drop = before_drop
        self.connection: Connection | None = None
        self._where = f"{shown(settings.dsn)} schema={settings.schema}"
        self._pid = os.getpid()
        self._committing = False
        self._has_committed = False
        self._looked_at = 0.0
        self._awaits: Sequence[int] = ()  # what was announced, and is waited for by the next batch
        self._bell: Query | None = None  # which the next COMMIT takes along
        self._rang = False
        self._front = Front()
        self.news = News(settings)

    async def open(self) -> None:
        """Connect, and make sure that our tables are there; wait for a server that is away."""
        try:
            await self.run(lambda: open_schema(self.settings.schema))
        except BatchError as failed:
            self.drop()
            error, cause = failed.error, failed.__cause__
            raise error from error.__cause__ if error is cause else cause

    async def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        """Apply *ops* in one transaction, or raise `BatchError`."""
        if self.news.due_in == 0:
            await self.ring()
        self._bell, self._rang = self.news.bell_of(ops), False
        if any(type(op) is Reserve for op in ops):
            self._looked_at, self._awaits = self.settings.announced.since(self._looked_at)
        try:
            outcomes = await self.run(*_ways(ops, self.settings.schema, self._front))
        finally:
            self._bell = None
        self.news.add(ops, outcomes, rang=self._rang)
        return outcomes

    async def run(
        self, make: Callable[[], Program[T]], in_doubt: Callable[[], Program[T]] | None = None
    ) -> T:
        """Run what *make* returns, which is one transaction, or raise `BatchError`.

        Once it is not known whether that was stored, *in_doubt* is run in its place: it changes
        nothing if it was. Without it, that is all that can be said.
        """
        give_up_at = clocks.monotonic() + self.settings.timeout
        pause = FIRST_PAUSE
        doubt: _Failed | None = None
        while True:
            try:
                return await self._attempt(make)
            except _Failed as failed:
                again = failed.judgement.again
                if in_doubt is not None and failed.judgement.blame is Blame.UNKNOWN:
                    make, again = in_doubt, True
                    doubt = doubt or failed
                if not again or clocks.monotonic() + pause >= give_up_at:
                    last = doubt or failed  # what fails now says nothing of what was asked before
                    found = last.judgement
                    raise BatchError(found.error, found.blame) from last.__cause__
            await Pause(pause * (0.5 + chance.unit()))
            pause = min(pause * 2, LONGEST_PAUSE)

    @property
    def rings_in(self) -> float | None:
        """Seconds until others are to be told of something; None if there is nothing to tell."""
        if self.connection is not None and self.connection.rings:
            return 0.0
        return self.news.due_in

    async def ring(self, *, now: bool = False) -> None:
        """Tell other processes of what was committed; nothing that fails here matters.

        What is not due yet is told *now* where nobody will come by later.
        """
        connection = self.connection
        if connection is None:
            self.news.clear()
            return
        try:
            if connection.rings:
                await connection.rung()
            due_in = self.news.due_in
            if due_in == 0 or (now and due_in is not None):
                await self.news.tell(connection)
        except Exception:  # noqa: BLE001  # the next batch finds out what it is
            self.drop()
        except BaseException:
            self.drop()  # nobody runs this to its end
            raise

    async def _attempt(self, make: Callable[[], Program[T]]) -> T:
        self._refuse_after_fork()
        connection = self.connection
        if connection is None:
            try:
                connection = await self._connect()
            except Exception as error:
                again = isinstance(error, StoreUnreachableError)
                raise _Failed(Judgement(error, Blame.STORE, again)) from error
        try:
            return await self._run(connection, make())
        except Exception as error:
            # What fails once it is committed leaves that answer unsaid, as a lost connection does.
            lost = connection.is_lost or self._has_committed
            found = judge(error, self._where, committing=self._committing, lost=lost)
            if lost or found.afresh:
                self.drop()
            else:
                await self._roll_back(connection)
            raise _Failed(found) from error
        except BaseException:
            self.drop()  # nobody runs this to its end
            raise

    async def _run(self, connection: Connection, program: Program[T]) -> T:
        self._committing = self._has_committed = False
        awaits, self._awaits = self._awaits, ()
        wait = Query(AWAIT, (Ints(awaits),)) if awaits else None
        step = resume(program, None)
        if wait is not None and not isinstance(step, Together):
            with contextlib.suppress(PgError):
                await connection.ask(*wait)
        while not isinstance(step, Done):
            match step:
                case Query(sql, params):
                    step = resume(program, await connection.ask(sql, params))
                case Together(queries, commits):
                    tells = commits and self._bell is not None and await connection.is_direct()
                    self._committing = commits
                    if tells:
                        answers = await self._announced(connection, queries)
                    elif wait is not None:
                        begin, *rest = queries
                        answers = await self._together(connection, (begin, wait, *rest))
                        answers = (*answers[:1], *answers[2:])
                    else:
                        answers = await self._together(connection, queries)
                    self._committing = self._has_committed = commits and bool(answers)
                    step = resume(program, answers)
                case Commit():
                    self._committing = True
                    if self._bell is None:
                        await connection.ask("COMMIT")
                    else:
                        await connection.ask_together((_COMMIT,), self._bell)
                        self._rang = True
                    self._committing = False
                    step = resume(program, ())
                case Change():
                    raise AssertionError("programs for Postgres change rows by queries")
        return step.value

    async def _announced(self, connection: Connection, queries: Sequence[Query]) -> Sequence[Row]:
        """Send all of them, and have others told ahead of it; see `Announced`."""
        key, began_at = new_key(), clocks.monotonic()
        ahead, arrived = self.news.announcement(key), Query(ARRIVED, (key,))
        answers = await self._together(connection, (*ahead, *queries, arrived))
        if not answers:  # the lock may be there, and what comes in their place tells of itself
            await connection.ask(*arrived)
            return ()
        self._rang = clocks.monotonic() < began_at + ARRIVES_WITHIN
        return answers[len(ahead) : -1]

    async def _together(self, connection: Connection, queries: Sequence[Query]) -> Sequence[Row]:
        """Send all of them; return nothing if one has failed, and none has changed anything."""
        try:
            return await connection.ask_together(queries)
        except PgError:
            if connection.is_lost:
                raise
            await connection.ask("ROLLBACK")
            return ()

    async def _roll_back(self, connection: Connection) -> None:
        self._front.forget_all()  # what was given is not
        try:
            await connection.ask("ROLLBACK")
        except Exception:  # noqa: BLE001  # what had failed before says more
            self.drop()

    async def _connect(self) -> Connection:
        try:
            self.connection = await Connect()
        except PgError as error:
            raise cannot_connect(error, self._where) from error
        return self.connection

    def _refuse_after_fork(self) -> None:
        if self._pid != os.getpid():
            raise BatchError(
                BackendInUseError(
                    f"this connection to {self._where} was opened by process {self._pid} and"
                    f" carried across a fork into {os.getpid()}, where it must not be used; make a"
                    " new backend in the child"
                ),
                Blame.STORE,
            )

    def drop(self) -> None:
        """Let go of the connection."""
        self._front.forget_all()
        connection, self.connection = self.connection, None
        if connection is not None and self._pid == os.getpid():
            if self._before_drop is not None:
                self._before_drop()
            connection.shut()


_Way: TypeAlias = Callable[[], Program[tuple[Outcome, ...]]]


def _ways(ops: Sequence[Op], schema: str, front: Front) -> list[_Way]:
    """Return how *ops* are applied, and if they only enqueue, how that is done once it is in doubt.

    Whoever asks under the same ids waits for the fate of the first, and changes nothing if it was
    stored. Verdicts and reserves are asked again by the worker, who knows what it has.
    """
    again = [op._replace(may_exist=True) for op in ops if type(op) is Enqueue]
    asked = (ops, again) if len(again) == len(ops) else (ops,)
    return [partial(apply_batch, each, schema, front) for each in asked]


_COMMIT: Final = Query("COMMIT")


class _Failed(Exception):
    def __init__(self, judgement: Judgement) -> None:
        super().__init__(str(judgement.error))
        self.judgement = judgement


class PostgresStore:
    """Applies batches in whichever thread calls it, one at a time."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._talk = Talk(settings)

    def open(self) -> None:
        """Connect, and make sure that our tables are there."""
        block(self._talk.open(), self._talk.settings)

    def apply(self, ops: Sequence[Op]) -> tuple[Outcome, ...]:
        """Apply *ops* in one transaction, or raise `BatchError`."""
        return block(self._talk.apply(ops), self._talk.settings)

    def run(self, make: Callable[[], Program[T]]) -> T:
        """Run what *make* returns, which is one transaction, or raise `BatchError`."""
        return block(self._talk.run(make), self._talk.settings)

    def ring(self, want: Want, ids: Sequence[str] = ()) -> None:
        """Tell other processes of what `run` has committed."""
        self._talk.news.note(want, ids)
        self.tidy()

    def tidy(self) -> None:
        """Tell other processes of what was committed."""
        if self._talk.rings_in is not None:
            block(self._talk.ring(now=True), self._talk.settings)

    def close(self) -> None:
        self._talk.drop()


def block(work: Coroutine[Asked, Any, T], settings: PostgresSettings) -> T:
    """Run *work* to its end, and block this thread while it waits."""
    answer: object = None
    failure: Exception | None = None
    try:
        while True:
            asked = work.send(answer) if failure is None else work.throw(failure)
            answer = failure = None
            try:
                answer = _wait_for(asked, settings)
            except Exception as error:  # noqa: BLE001  # passed on to whoever waits
                failure = error
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        work.close()


def _wait_for(asked: Asked, settings: PostgresSettings) -> object:
    match asked:
        case Ready():
            return _wait_until_ready(asked, settings.timeout)
        case Pause(seconds=seconds):
            clocks.sleep(seconds)
            return None
        case Connect():
            return connect(settings)
        case _:
            assert_never(asked)


# Of these two, the first has no limit on the numbers of descriptors; Windows has the second only.
_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)


def _wait_until_ready(asked: Ready, seconds: float) -> int:
    with _Selector() as selector:
        selector.register(asked.descriptor, asked.events)
        ready = selector.select(seconds)
    if not ready:
        raise NoAnswerError(f"not a word for {seconds:g} s")
    ((_, events),) = ready
    return int(events)
