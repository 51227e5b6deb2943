"""Drives CommitMachine: group commit for all callers of one store in one event loop.

What is submitted in one turn of the loop leaves in one transaction: the machine is told at the
beginning of the next turn, so that a hundred callers pay for one commit between them. A lone
caller does not wait for that: while batches hold what one has asked, it is told at once.

What comes while a batch is under way waits here. If that is little beside the batch, it waits one
turn more once that has landed: those who are answered then mostly ask again, and all leave together.
Else a few would leave by themselves each time, and the many would wait for two commits.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias, assert_never

from sitq.adapters.base import Answer, BatchError, Driver, Loop, in_doubt, refused
from sitq.adapters.hints import Heard, told_nobody
from sitq.exceptions import SitqError
from sitq.protocol.commit import (
    Close,
    CloseRequested,
    Commit,
    CommitEffect,
    CommitEvent,
    CommitFailed,
    CommitMachine,
    Committed,
    Doubt,
    Group,
    Reject,
    Resolve,
    Submitted,
)
from sitq.protocol.ops import Op, Outcome

NO_TIME: Final = 0.0
"""The machine has no timers, so no clock is read for it."""
Reply: TypeAlias = Callable[[tuple[Outcome, ...] | SitqError], object]


class Committer:
    """*heard* is called with every batch that was committed, before its callers are answered.

    So is *told*, in whichever thread has committed it. *offer* is called with what is about
    to be submitted: what it submits itself goes along, in one transaction.
    """

    def __init__(
        self,
        loop: Loop,
        driver: Driver,
        heard: Heard,
        *,
        told: Heard = told_nobody,
        offer: Callable[[Sequence[Op]], object] | None = None,
    ) -> None:
        self._loop = loop
        self._driver = driver
        self._heard = heard
        self._told = told
        self._offer = offer
        self._along: list[Group] | None = None  # while it is offered
        self._machine = CommitMachine()
        self._replies: dict[int, Reply] = {}
        self._ticket = 0
        self._groups: list[Group] = []  # of this turn, or of those since a batch has left
        self._under_way = 0  # ops
        self._bug: Exception | None = None  # after which nothing more is taken
        self._when_closed: Callable[[], None] | None = None  # until the driver is told to close

    async def submit(self, *ops: Op) -> tuple[Outcome, ...]:
        """Return the outcomes once *ops* are committed, in one transaction.

        Cancelling gives up the wait, not the ops. Raises `StoreError` if nothing was stored,
        `CommitUnknownError` if that is not known, `BackendClosedError` after `close`.
        """
        ask: Callable[[Reply], None] = partial(self.submit_nowait, ops)
        answer = await self._loop.answer(ask)
        if isinstance(answer, SitqError):
            raise answer
        return answer

    def submit_nowait(self, ops: tuple[Op, ...], reply: Reply) -> None:
        """Have *ops* committed in one transaction; *reply* is called in the event loop."""
        if self._bug is not None:
            self._loop.soon(partial(reply, refused(self._bug)))
            return
        self._ticket += 1
        self._replies[self._ticket] = reply
        if self._along is not None:
            self._along.append(Group(self._ticket, ops, along=True))
            return
        group = Group(self._ticket, ops)
        if not self._groups:
            if self._machine.is_at_leisure:
                try:
                    self._submit([group])
                except Exception as bug:  # noqa: BLE001  # callers are told by their replies
                    self._loop.soon(partial(_raise, bug))
                return
            self._loop.soon(self._end_turn)
        self._groups.append(group)

    def begin_close(self, done: Callable[[], None]) -> None:
        """Commit what has been submitted, then close the driver; then call *done*."""
        self._when_closed = done
        if self._bug is None:
            self._hand_over()
            self._receive(CloseRequested())
        else:
            self._close_driver()

    def _close_driver(self) -> None:
        done, self._when_closed = self._when_closed, None
        if done is not None:
            self._driver.begin_close(done)

    def _end_turn(self) -> None:
        if not self._under_way or self._when_closed is not None:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._groups:
            groups, self._groups = self._groups, []
            self._submit(groups)

    def _submit(self, groups: list[Group]) -> None:
        if self._offer is not None:
            self._along = []
            try:
                self._offer([op for group in groups for op in group.ops])
            finally:
                groups, self._along = groups + self._along, None
        self._receive(Submitted(tuple(groups)))

    def _receive(self, event: CommitEvent) -> None:
        try:
            for effect in self._machine.receive(event, NO_TIME):
                self._do(effect)
        except Exception as bug:
            # In a callback it would be a line in a log, and callers who wait for ever.
            self._bug = bug
            self._groups.clear()
            self._close_driver()
            replies, self._replies = self._replies, {}
            for reply in replies.values():
                reply(refused(bug))
            raise

    def _do(self, effect: CommitEffect) -> None:
        match effect:
            case Resolve():  # first, and by name: a hundred of them follow each batch
                self._replies.pop(effect.ticket)(effect.outcomes)
            case Commit(batch_id, ops):
                self._under_way = len(ops)
                self._driver.begin(ops, partial(self._landed, batch_id, ops), self._told)
            case Reject(ticket, error):
                self._replies.pop(ticket)(refused(error))
            case Doubt(ticket, error):
                self._replies.pop(ticket)(in_doubt(error))
            case Close():
                self._close_driver()
            case _:
                assert_never(effect)

    def _landed(self, batch_id: int, ops: tuple[Op, ...], answer: Answer) -> None:
        if 2 * len(self._groups) > self._under_way:
            self._hand_over()
        self._under_way = 0
        if isinstance(answer, BatchError):
            self._receive(CommitFailed(batch_id, answer.error, answer.blame))
        else:
            self._heard(ops, answer)
            self._receive(Committed(batch_id, answer))
        if self._groups and not self._under_way:
            self._loop.soon(self._end_turn)


def _raise(error: Exception) -> None:
    raise error
