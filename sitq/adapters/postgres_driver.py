"""Postgres on an event loop, asyncio's or trio's, without a thread between them.

A batch is a coroutine of `Talk` that callbacks of the loop push on, each time that the connection's
descriptor is ready. There is no task of the loop, so no cancellation can reach it. Connecting alone
blocks, and is done in a thread.

What comes unasked is read at once: a server that has ended the connection is heard of before the
next batch is given to it.
"""

import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, assert_never

from sitq.adapters.base import Answer, BatchError, Loop
from sitq.adapters.hints import Heard, told_nobody
from sitq.adapters.postgres import Asked, Connect, Pause, Talk, block
from sitq.adapters.postgres_connection import (
    READABLE,
    WRITABLE,
    Connection,
    PostgresSettings,
    Ready,
    connect,
)
from sitq.adapters.postgres_errors import NoAnswerError
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Op


class PostgresDriver:
    """Applies batches on one connection, by callbacks of *loop*."""

    quick = 0.0

    def __init__(self, loop: Loop, settings: PostgresSettings) -> None:
        self._loop = loop
        self._settings = settings
        self._talk = Talk(settings, self._unwatch)
        self._watched: Connection | None = None
        self._end_watch: Callable[[], object] = _nothing
        self._work: Coroutine[Asked, Any, object] | None = None
        self._done: Callable[[Any], object] = _ignore
        self._begins = False
        self._rings = False  # others are being told of the last batch
        self._will_ring = False
        self._next: Callable[[], object] | None = None  # the batch that waits for that
        self._wants = 0  # what the work waits for, as the numbers above
        self._waits_since = 0.0
        self._will_be_writable = False  # it is asked for; on trio nobody may ask twice
        self._alarm_is_set = False
        self._closed = False

    # -- what a Driver does ------------------------------------------------------------------

    def begin_open(self, done: Callable[[Exception | None], None]) -> None:
        def opened(error: Exception | None) -> None:
            if self._closed:
                self._talk.drop()
            else:
                self._watch()
            done(error)

        def work() -> None:
            failure: Exception | None = None
            try:
                block(self._talk.open(), self._settings)
            except Exception as error:  # noqa: BLE001  # passed on to whoever asked
                failure = error
            self._loop.soon_from_thread(partial(opened, failure))

        threading.Thread(target=work, name="sitq connect", daemon=True).start()

    def begin(
        self, ops: Sequence[Op], done: Callable[[Answer], None], told: Heard = told_nobody
    ) -> None:
        def answered(answer: Answer) -> None:
            done(answer)
            if not isinstance(answer, BatchError):
                told(ops, answer)

        def begin() -> None:
            self._begin(self._talk.apply(ops), answered)

        if self._rings:
            self._next = begin
        else:
            begin()

    def _begin(self, work: Coroutine[Asked, Any, object], done: Callable[[Any], object]) -> None:
        assert self._work is None, "one batch at a time"
        self._work, self._done = work, done
        self._begins = True
        self._push()
        self._begins = False

    def begin_close(self, done: Callable[[], None]) -> None:
        self._stop()  # others may be being told: what was sent, the server still reads
        self._loop.soon(done)

    def abandon(self) -> None:
        self._end_watch = _nothing  # the loop has forgotten it by itself
        self._stop()

    def _stop(self) -> None:
        self._closed = True
        work, self._work = self._work, None
        self._wants = 0
        if work is not None:
            work.close()
        self._talk.drop()

    # -- pushing the work on -----------------------------------------------------------------

    def _push(self, answer: object = None, failure: Exception | None = None) -> None:
        work = self._work
        assert work is not None
        try:
            asked = work.send(answer) if failure is None else work.throw(failure)
        except StopIteration as stop:
            self._answer(stop.value)
        except BatchError as error:
            self._answer(error)
        except Exception as error:  # noqa: BLE001  # a bug of ours: a driver always has an answer
            self._answer(BatchError(error, Blame.OP))
        else:
            self._wait_for(asked)

    def _answer(self, answer: object) -> None:
        self._work = None
        if self._begins:  # whoever asked is not ready to hear it
            self._loop.soon(partial(self._done, answer))
        else:
            self._done(answer)
            self._ring_if_idle()

    def _ring_if_idle(self) -> None:
        if self._work is not None or self._closed:
            return
        due_in = self._talk.rings_in
        if due_in == 0:
            self._rings = True
            self._begin(self._talk.ring(), self._rung)
        elif due_in is not None and not self._will_ring:
            self._will_ring = True
            self._loop.later(due_in, self._ring_later)

    def _ring_later(self) -> None:
        self._will_ring = False
        self._ring_if_idle()

    def _rung(self, answer: object) -> None:  # noqa: ARG002
        self._rings = False
        begin, self._next = self._next, None
        if begin is not None:
            begin()

    def _wait_for(self, asked: Asked) -> None:
        match asked:
            case Ready(descriptor=descriptor, events=events):
                self._watch()
                self._wants = events
                self._waits_since = self._loop.time()
                if events & WRITABLE and not self._will_be_writable:
                    self._will_be_writable = True
                    self._loop.when_writable(descriptor, self._writable)
                if not self._alarm_is_set:
                    self._alarm_is_set = True
                    self._loop.later(self._settings.timeout, self._look_at_the_clock)
            case Pause(seconds=seconds):
                self._loop.later(seconds, partial(self._go_on, self._work))
            case Connect():
                self._connect(self._work)
            case _:
                assert_never(asked)

    def _go_on(self, work: object, answer: object = None, failure: Exception | None = None) -> None:
        if work is self._work is not None:
            self._push(answer, failure)
        elif isinstance(answer, Connection):
            answer.shut()  # whoever wanted it is gone

    def _connect(self, work: object) -> None:
        def run() -> None:
            connection: Connection | None = None
            failure: Exception | None = None
            try:
                connection = connect(self._settings)
            except Exception as error:  # noqa: BLE001  # passed on to whoever waits
                failure = error
            self._loop.soon_from_thread(partial(self._go_on, work, connection, failure))

        threading.Thread(target=run, name="sitq connect", daemon=True).start()

    # -- the descriptor ----------------------------------------------------------------------

    def _watch(self) -> None:
        connection = self._talk.connection
        if connection is not None and connection is not self._watched:
            self._watched = connection
            descriptor = connection.descriptor
            self._end_watch = self._loop.watch(descriptor, partial(self._ready, READABLE))

    def _unwatch(self) -> None:
        self._watched = None
        self._will_be_writable = False
        end, self._end_watch = self._end_watch, _nothing
        if self._loop.is_current():  # or it is over, and nothing is watched any more
            end()

    def _writable(self) -> None:
        self._will_be_writable = False
        self._ready(WRITABLE)

    def _ready(self, event: int) -> None:
        if self._wants & event:
            self._resume(event)
        # uvloop tells of a connection that has ended once, and never again, even where the last
        # words of the server were all that was read.
        while (connection := self._watched) is not None and connection.has_news():
            if self._wants & READABLE:
                self._resume(READABLE)
            elif not connection.look():
                self._talk.drop()

    def _resume(self, event: int) -> None:
        self._wants = 0
        self._push(event)

    def _look_at_the_clock(self) -> None:
        self._alarm_is_set = False
        if not self._wants:
            return
        left = self._waits_since + self._settings.timeout - self._loop.time()
        if left > 0:
            self._alarm_is_set = True
            self._loop.later(left, self._look_at_the_clock)
            return
        self._wants = 0
        self._push(failure=NoAnswerError(f"not a word for {self._settings.timeout:g} s"))


def _nothing() -> None:
    """Watch nothing."""


def _ignore(answer: object) -> None:
    """Tell nobody."""
