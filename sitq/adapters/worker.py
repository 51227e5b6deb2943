"""Drives WorkerMachine: tasks in a task group, verdicts and reserves through the committer.

All that becomes ready in one turn of the event loop waits in the inbox; the host task takes it
out at once, so what the machine has to say to storage leaves in one breath. Where nothing else can
become ready, since no task runs, the machine is told at once, and the host only looks at its clock.

Each task has a shielded scope of its own. A cancellation from outside therefore does not kill
tasks behind the machine's back: the host hears it, the machine orders the interrupts and
remembers why, and the endings become hand-backs that cost no attempt.
"""

import logging
import math
import sys
from collections.abc import Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

import anyio

from sitq.adapters import chance, clocks
from sitq.adapters.base import FOR_GOOD, TaskGroup
from sitq.adapters.calls import Execution, Workbench, running
from sitq.adapters.leasing import LeaseByTheWorker, LeaseThread
from sitq.adapters.loop_watch import LoopWatch
from sitq.adapters.session import Session
from sitq.adapters.virtual import virtual
from sitq.exceptions import SitqError
from sitq.protocol.heartbeat import HeartbeatMachine
from sitq.protocol.lease import AskToStop, Hold, LeaseConfig, LeaseMachine, LetGo, Wake
from sitq.protocol.ops import Op, Outcome, Reservation, Reserve, TaskKey
from sitq.protocol.retry import Ending, Interrupted, Raised, Returned, Unreadable, Why
from sitq.protocol.worker import (
    Coming,
    Disown,
    Execute,
    Interrupt,
    Late,
    LeaseHeld,
    LeaseLost,
    Started,
    Stop,
    StopAsked,
    StopRequested,
    Store as StoreOps,
    Stored,
    StoreFailed,
    TaskEnded,
    ThreadReturned,
    TurnEnded,
    TurnPassed,
    WaitATurn,
    Woken,
    WorkerConfig,
    WorkerEffect,
    WorkerEvent,
    WorkerMachine,
)
from sitq.serialization import Serializer

if TYPE_CHECKING:
    from sitq.adapters.recorder import Recorder

log: Final = logging.getLogger("sitq.worker")

CANCELLED_GRACE: Final = 5.0
"""Seconds that a cancelled worker may take to hand its tasks back."""
LEASE_GRACE: Final = 6.0
"""Seconds that the lease thread may take to end; it gives up by itself after 5."""


class WorkerDriver:
    """One run of a worker, from its start to its stop."""

    def __init__(
        self,
        *,
        config: WorkerConfig,
        lease: LeaseConfig,
        session: Session,
        serializer: Serializer,
        blocked_after: float | None = None,
        record: str | None = None,
    ) -> None:
        self._session = session
        self._recorder: Recorder | None = None
        if record is None:
            self._machine = WorkerMachine(config, chance.unit)
            lease_machine = LeaseMachine(lease)
        else:
            from sitq.adapters import recorder  # few workers are recorded

            self._recorder = recorder.Recorder(record, worker_now=anyio.current_time())
            self._machine = self._recorder.worker(config, chance.unit)
            lease_machine = self._recorder.lease(lease)
        self._bench = Workbench(
            loop=session.loop,
            serializer=serializer,
            max_payload=session.max_payload,
            limiter=anyio.CapacityLimiter(config.max_concurrency),
            thread_returned=partial(self.post, ThreadReturned()),
            is_torn_down=session.loop.cancelled_outside(),
            within=session.within,
        )
        watch: LoopWatch | None = None
        if blocked_after is not None:
            watch = LoopWatch(HeartbeatMachine(blocked_after), session.loop)
        kind = LeaseThread if virtual() is None else LeaseByTheWorker
        self._lease = kind(
            machine=lease_machine,
            open_store=session.open_store,
            presence=session.presence,
            tell=self._tell,
            ended=lambda bug: session.loop.soon_from_thread(partial(self._lease_ended, bug)),
            watch=watch,
        )
        self._lease_is_over = anyio.Event()
        self._tasks: TaskGroup
        self._executions: dict[TaskKey, Execution] = {}
        self._inbox: list[WorkerEvent] = []
        self._is_in_turn = False
        self._waits_until = -math.inf  # the host; it looks by itself before it first waits
        self._context: Context | None = None  # that of `run`, which tasks inherit
        self._mail = anyio.Event()
        self._stopped = anyio.Event()
        self._ended = anyio.Event()
        self._run_execution = session.loop.guard(Execution.run)
        # Whoever runs when one of these is called, a Ctrl-C must not leave the machine half told.
        self._guarded_turn = session.loop.guard(WorkerDriver._turn)
        self._guarded_join = session.loop.guard(WorkerDriver._join)
        self._worker_id: str | None = None
        self._latest_hold: Hold | None = None  # written by the lease's thread
        self._told_hold: Hold | None = None
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Run until stopped; if cancelled, stop at once and hand back what was running."""
        hints = self._session.hints
        error: BaseException | None = None
        self._context = copy_context()
        try:
            with hints.of_work(partial(self._at_once, Woken()), self):
                async with self._session.loop.task_group() as self._tasks:
                    self._lease.start()
                    self.post(Started())
                    try:
                        await self._pump()
                    except anyio.get_cancelled_exc_class():
                        await self._hand_back()
                        raise
                    except BaseException as raised:  # noqa: BLE001  # raised again, below
                        error = raised  # outside, where no task group wraps it
                        await self._hand_back()
            if error is not None:
                raise error
        finally:
            self._lease.leave()
            try:
                with anyio.move_on_after(LEASE_GRACE, shield=True):
                    await self._wait_for_lease()
            finally:
                hints.let_go(self._worker_id)
                if self._recorder is not None:
                    self._recorder.close(sys.exception())
                self._ended.set()

    def stop(self, grace: float | None) -> None:
        self.post(StopRequested(grace))

    async def wait_ended(self) -> None:
        """Return once the run is over; at once if the caller is a task of this run."""
        caller = running.get(None)
        if caller is None or caller.bench is not self._bench:
            await self._ended.wait()

    def post(self, event: WorkerEvent) -> None:
        """Have the machine told of *event*; from within the loop."""
        if not self._inbox:
            self._mail.set()
        self._inbox.append(event)

    def _at_once(self, event: WorkerEvent) -> None:
        """Have a turn for *event* now, if there is nothing to wait for; else post it.

        Whoever calls must be done with what it does: this starts tasks, and speaks to storage.
        """
        alone = not self._executions or type(event) is TurnPassed
        alone = alone and not self._inbox and not self._is_in_turn
        if not alone or self._context is None or self._stopped.is_set():
            self.post(event)
            return
        self._inbox.append(event)
        try:
            self._context.run(self._guarded_turn, self)
        except Exception as bug:  # noqa: BLE001  # the host raises it
            self._fail(bug)
            return
        if self._stopped.is_set() or self._next_deadline() < self._waits_until:
            self._mail.set()

    # -- what the transactions of others offer ---------------------------------------------

    def offered(self, queues: tuple[str, ...]) -> bool:
        """Reserve in the transaction that is about to store tasks for *queues*, if it is wanted."""
        if self._inbox or self._is_in_turn or self._stopped.is_set():
            return False
        try:
            return self._guarded_join(self, queues)
        except Exception as bug:  # noqa: BLE001  # the host raises it, and not who enqueues
            self._fail(bug)
            return False

    def _join(self, queues: tuple[str, ...]) -> bool:
        effects = self._machine.receive(Coming(queues), self._session.loop.time())
        for effect in effects:
            self._do(effect)
        return bool(effects)

    def has_ridden(self, ops: Sequence[Op]) -> bool:
        """Say whether a reserve of this worker is among *ops*."""
        return any(type(op) is Reserve and op.worker_id == self._worker_id for op in ops)

    # -- turns -----------------------------------------------------------------------------

    async def _pump(self) -> None:
        while not self._stopped.is_set():
            self._waits_until = self._next_deadline()
            with anyio.CancelScope(deadline=self._waits_until):
                await self._mail.wait()
            self._mail = anyio.Event()
            self._lease.tick()
            self._turn()
        if self._error is not None:
            raise self._error

    def _next_deadline(self) -> float:
        return _earlier(self._machine.next_deadline(), self._lease.next_deadline())

    def _turn(self) -> None:
        """Tell the machine all that has happened, and do what it says."""
        self._is_in_turn = True
        try:
            self._tell_machine()
        finally:
            self._is_in_turn = False

    def _tell_machine(self) -> None:
        events, self._inbox = self._inbox, []
        hold = self._latest_hold
        if hold is not None and hold is not self._told_hold:
            # The news itself may still be on its way, behind whatever blocked the loop until now;
            # a lease that was renewed in time must not be judged by what was heard before.
            self._told_hold = hold
            events.insert(0, LeaseHeld(hold.worker_id, hold.until - clocks.lease_seconds()))
        now = self._session.loop.time()
        for event in (*events, TurnEnded()):
            for effect in self._machine.receive(event, now):
                self._do(effect)

    async def _hand_back(self) -> None:
        """Stop with no grace, in bounded time, however often we are cancelled meanwhile."""
        give_up_at = anyio.current_time() + CANCELLED_GRACE
        self.stop(grace=0)
        try:
            while not self._stopped.is_set() and anyio.current_time() < give_up_at:
                try:
                    with anyio.CancelScope(deadline=give_up_at, shield=True):
                        await self._pump()
                except anyio.get_cancelled_exc_class():
                    continue  # asyncio's own cancel() goes through a shield
        finally:
            for execution in self._executions.values():
                execution.interrupt()  # whatever the machine says or can not say any more

    def _do(self, effect: WorkerEffect) -> None:
        match effect:
            case StoreOps(ticket, ops):
                self._session.writer.submit_nowait(ops, partial(self._answered, ticket))
            case Execute(task):
                execution = self._executions[task.key] = Execution(self._bench, task)
                self._tasks.start_soon(self._execute, execution, name=task.name)
            case Interrupt(key, why):
                # It may have ended in this very turn, and only the machine not know it yet.
                interrupted = self._executions.get(key)
                if interrupted is not None:
                    if why is Why.LEASE_LOST:
                        log.warning("interrupting %s: its lease is lost", interrupted.task.id)
                    elif why is Why.TIMEOUT:
                        _warn(
                            interrupted.task,
                            f"is over its timeout of {interrupted.task.policy.timeout:g} s",
                        )
                    interrupted.interrupt()
            case Disown(worker_id):
                self._lease.disown(worker_id)
            case Late(task_id):
                log.warning("task %s ended after its lease was lost; it runs elsewhere", task_id)
            case WaitATurn():
                self._session.loop.soon(partial(self._at_once, TurnPassed()))
            case Stop():
                self._stopped.set()
            case _:
                assert_never(effect)

    async def _execute(self, execution: Execution) -> None:
        ending: Ending = Interrupted()
        try:
            ending = await self._run_execution(execution)
        finally:
            key = execution.task.key
            del self._executions[key]
            if type(ending) is not Returned:
                _tell_of(execution.task, ending)
            interrupted = isinstance(ending, Interrupted)
            self._at_once(TaskEnded(key, ending, lingers=interrupted and execution.lingers))

    def _answered(self, ticket: int, answer: tuple[Outcome, ...] | SitqError) -> None:
        if isinstance(answer, FOR_GOOD):
            self._fail(answer)
        elif isinstance(answer, SitqError):
            log.warning("the store could not be reached, trying again: %s", answer)
            self.post(StoreFailed(ticket, answer))
        else:
            self._at_once(Stored(ticket, answer))

    # -- news of the lease -----------------------------------------------------------------

    def _tell(self, news: Hold | LetGo | AskToStop | Wake) -> None:
        """Take the news, in the lease's thread."""
        if isinstance(news, Hold):
            self._latest_hold = news
        self._session.loop.soon_from_thread(partial(self._lease_news, news))

    def _lease_news(self, news: Hold | LetGo | AskToStop | Wake) -> None:
        match news:
            case Hold(worker_id):
                if self._latest_hold is not self._told_hold:
                    self._mail.set()  # the turn that follows finds the latest
                self._worker_id = worker_id
                self._session.hints.hold(worker_id, lambda keys: self.post(StopAsked(keys)))
            case LetGo(worker_id):
                log.warning("the lease of worker %s is lost", worker_id)
                self._session.hints.let_go(worker_id)
                self.post(LeaseLost(worker_id))
            case AskToStop(keys):
                self.post(StopAsked(keys))
            case Wake():
                self.post(Woken())
            case _:
                assert_never(news)

    async def _wait_for_lease(self) -> None:
        while not self._lease_is_over.is_set():
            with anyio.CancelScope(deadline=_earlier(self._lease.next_deadline(), None)):
                await self._lease_is_over.wait()
            self._lease.tick()

    def _lease_ended(self, bug: BaseException | None) -> None:
        self._lease_is_over.set()
        if bug is not None:
            self._fail(bug)

    def _fail(self, error: BaseException) -> None:
        """End the run with *error*: nothing more can be stored, or known to be ours."""
        self._error = error
        self._stopped.set()
        self._mail.set()


def _tell_of(task: Reservation, ending: Ending) -> None:
    """Log an attempt that failed: by the kind of the error alone, for its text may hold anything."""
    if isinstance(ending, Raised):
        _warn(task, f"raised {ending.failure.error_type}")
    elif isinstance(ending, Unreadable):
        log.warning("task %s (%s) is parked: %s", task.id, task.name, ending.text)


def _warn(task: Reservation, what: str) -> None:
    attempts = task.policy.retry.attempts
    log.warning(
        "task %s (%s) %s, attempt %d of %d", task.id, task.name, what, task.attempt, attempts
    )


def _earlier(one: float | None, other: float | None) -> float:
    return min(math.inf if one is None else one, math.inf if other is None else other)
