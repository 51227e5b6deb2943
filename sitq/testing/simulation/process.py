"""One simulated process: a worker with its lease and its group commit; its callers stand in `callers`.

It is the third driver, beside those for asyncio and for trio: it runs the same machines, and
decides nothing. Where the others wait for an event loop, a disk or a thread, this one asks the
world, which answers when the seed says, or never.

A process has two threads, as the real one has: the event loop, which a task may block, and the
lease's own, which then goes on. A process that is paused does neither.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, assert_never

from sitq.protocol import commit as c, lease as l, worker as w
from sitq.protocol.commit import Blame, CommitMachine, Group
from sitq.protocol.lease import LeaseConfig, LeaseMachine
from sitq.protocol.ops import (
    Cancel,
    Cancelled,
    Enqueue,
    Failure,
    Op,
    Outcome,
    Reservation,
    Reserve,
    Settle,
    TaskKey,
)
from sitq.protocol.retry import Ending, Interrupted, Raised, Returned, Unreadable
from sitq.protocol.worker import WorkerConfig, WorkerMachine
from sitq.testing.simulation.callers import TICK, Asking, SimError, Waiting
from sitq.testing.simulation.chance import Chance
from sitq.testing.simulation.climate import NodePlan, TaskPlan
from sitq.testing.simulation.history import Kind, made

if TYPE_CHECKING:
    from sitq.testing.simulation.world import World

UNREADABLE: Final = "unreadable"
HURRY: Final = 0.5
"""Seconds that a task runs at most once all is well, if nobody is to stop it."""
UNWIND: Final = 0.05
"""Seconds, about, until a task that is interrupted has come to its end."""
LONG_TURN: Final = 0.02
"""Seconds, about, until all has run that could run at the beginning of a turn."""

_HELD, _START, _END, _TOLD = Kind.HELD, Kind.START, Kind.END, Kind.TOLD
_TURN_ENDED, _TURN_PASSED = w.TurnEnded(), w.TurnPassed()
_WOKEN, _TICK = w.Woken(), l.Tick()  # they say no more


class Execution:
    """A task that runs."""

    __slots__ = ("ends_at", "interrupted", "key", "lingers", "task", "worker_id")

    def __init__(self, task: Reservation, worker_id: str) -> None:
        self.task = task
        self.key = task.key
        self.worker_id = worker_id
        self.interrupted = False
        self.lingers = False
        self.ends_at = 0.0  # by itself, if it does


class Process:
    """One life of a process, from its start until it dies or has stopped."""

    # So many are quicker to reach in slots: a dict of a class is made for thirty.
    __slots__ = (
        "_groups", "_hears_twice", "_inbox", "_is_late", "_is_mortal", "_latest_hold",
        "_lease_busy", "_lease_tick_at", "_mail", "_mishears", "_replies", "_rides", "_ticket",
        "_told_hold", "_turn_at", "_waiting", "_worker_id", "alive", "asleep_until",
        "blocked_until", "chance", "cut_off_until", "executions", "frozen_until", "held_up",
        "lease", "lingering", "lives", "locks", "name", "node", "plan", "slept", "stopped",
        "stopping", "to_come", "worker", "world", "writer",
    )  # fmt: skip

    def __init__(
        self, world: "World", node: int, name: str, plan: NodePlan, chance: Chance
    ) -> None:
        self.world = world
        self.node = node
        self.name = name
        self.plan = plan
        self.chance = chance
        self.alive = True
        climate = world.climate
        self._is_mortal = bool(climate.kill)
        self._mishears = bool(climate.lost_hint)
        self._is_late = bool(climate.late_news)
        self._hears_twice = bool(climate.doubled_answer)
        self._rides = chance.unit() < 0.5  # its callers may have a backend of their own
        self.frozen_until = 0.0
        self.held_up: list[tuple[int, Callable[[], None]]] = []  # until then
        self.blocked_until = 0.0
        self.cut_off_until = 0.0
        self.asleep_until = 0.0
        self.slept = 0.0  # seconds of the machine's sleep, which the loop's clock leaves out
        self.locks: set[str] = set()  # liveness locks held
        self.lives = 0
        self.stopping = False
        self.stopped = False
        self.to_come = 0  # callers that have not spoken yet
        # the event loop
        self.worker = WorkerMachine(
            WorkerConfig(
                queues=plan.queues,
                max_concurrency=plan.slots,
                poll_interval=plan.poll_interval,
                horizon=plan.horizon,
                quick=plan.quick,
            ),
            chance.unit,
        )
        self.writer = CommitMachine(max_batch=plan.max_batch)
        self.executions: dict[TaskKey, Execution] = {}
        self.lingering = 0
        self._inbox: list[w.WorkerEvent] = []
        self._turn_at: float | None = None
        self._groups: list[Group] = []
        self._replies: dict[int, Callable[[Any], None]] = {}
        self._ticket = 0
        self._waiting: dict[str, list[Waiting]] = {}
        self._latest_hold: l.Hold | None = None
        self._told_hold: l.Hold | None = None
        self._worker_id: str | None = None
        # the lease's thread
        self.lease = LeaseMachine(
            LeaseConfig(
                host="host",
                pid=world.next_pid(),
                queues=plan.queues,
                max_concurrency=plan.slots,
                lease_for=plan.lease_for,
                retention=plan.retention,
                stamps=plan.reads,
            )
        )
        self._mail: deque[l.LeaseEvent] = deque()
        self._lease_busy = False
        self._lease_tick_at: float | None = None

    def start(self) -> None:
        self.world.note(Kind.UP, self.name)
        self._lease_receive(l.Started())
        if self.world.stops_at_once():  # a stop may well come before the start
            self.world.ask_to_stop(self, None, first=True)
        self.post(w.Started())

    def loop_time(self) -> float:
        return self.world.now - self.slept

    def lease_time(self) -> float:
        return self.world.now

    def close(self) -> None:
        """Let go of whoever waits for an answer: there is none any more."""
        self._replies.clear()
        self._waiting.clear()
        self.held_up.clear()

    # -- the event loop ------------------------------------------------------------------

    def post(self, event: w.WorkerEvent) -> None:
        """Have the machine told of *event* in the next turn."""
        self._inbox.append(event)
        now = self.world.now
        if self._turn_at is None or now < self._turn_at:
            self._want_turn(now)

    def _want_turn(self, at: float) -> None:
        if self._turn_at is None or at < self._turn_at:
            self._turn_at = at
            self.world.on_loop(self, at, self._turn)

    def _turn(self) -> None:
        time = self.world.now
        if self._turn_at is None or self._turn_at > time:
            return  # another turn has done it
        self._turn_at = None
        if self.stopped:
            return
        events, self._inbox = self._inbox, []
        hold = self._latest_hold
        if hold is not None and hold is not self._told_hold:
            self._told_hold = hold
            events.insert(0, made(w.LeaseHeld, (hold.worker_id, hold.until - time)))
        events.append(_TURN_ENDED)
        now, receive = time - self.slept, self.worker.receive
        for event in events:
            for effect in receive(event, now):
                self._do(effect)
        if self._groups:
            self._end_turn()
        deadline = self.worker.next_deadline()
        if deadline is not None:
            assert deadline > now, "a deadline was left behind"
            self._want_turn(max(deadline + self.slept, time + TICK))

    def _end_turn(self) -> None:
        if self._groups:
            self._offer()
            groups, self._groups = self._groups, []
            self._commit(made(c.Submitted, (tuple(groups),)))

    def _offer(self) -> None:
        """Let the worker reserve in the transaction that enqueues."""
        if self._inbox or self.stopped or not self._rides:
            return
        ops = [op for group in self._groups for op in group.ops if type(op) is Enqueue]
        if ops:
            queues = tuple({task.queue: None for op in ops for task in op.tasks})
            for effect in self.worker.receive(w.Coming(queues), self.loop_time()):
                self._do(effect)

    def _do(self, effect: w.WorkerEffect) -> None:
        if isinstance(effect, w.Store):
            self.submit(effect.ops, partial(self._stored, effect))
        elif isinstance(effect, w.Execute):
            self._execute(effect.task)
        elif isinstance(effect, w.Stop):
            self.stopped = True
            self._lease_mail(l.LeaveRequested())
        elif isinstance(effect, w.Interrupt):
            self._interrupt(effect.key)
        elif isinstance(effect, w.Disown):
            self._lease_mail(l.Disowned(effect.worker_id))
        elif isinstance(effect, w.WaitATurn):
            at = self.world.now + self.chance.about(LONG_TURN)
            self.world.on_loop(self, at, partial(self.post, _TURN_PASSED))
        else:
            assert isinstance(effect, w.Late)  # it is only to be told to people
        if self._is_mortal:
            self.world.may_die(self)

    def _stored(self, asked: w.Store, answer: Any) -> None:
        if isinstance(answer, SimError):
            self.world.note(Kind.DENIED, self.name, value="worker")
            self.post(w.StoreFailed(asked.ticket, answer))
            return
        for op, outcome in zip(asked.ops, answer, strict=True):
            if type(op) is Settle:
                self.world.note(_TOLD, self.name, op.task_id, op.key.token, outcome.applied)
        self.post(made(w.Stored, (asked.ticket, answer)))

    # -- group commit --------------------------------------------------------------------

    def submit(self, ops: tuple[Op, ...], reply: Callable[[Any], None]) -> None:
        """Have *ops* committed; *reply* is given the outcomes, or a `SimError`."""
        self._ticket += 1
        self._replies[self._ticket] = reply
        self._groups.append(made(Group, (self._ticket, ops, False)))

    def _commit(self, event: c.CommitEvent) -> None:
        for effect in self.writer.receive(event, self.loop_time()):
            if isinstance(effect, c.Commit):
                landed = partial(self._landed, effect.batch_id)
                self.world.disk.apply(self, effect.ops, landed)
            elif isinstance(effect, c.Resolve):
                self._replies.pop(effect.ticket)(effect.outcomes)
            elif isinstance(effect, c.Reject):
                self._replies.pop(effect.ticket)(SimError("refused"))
            else:
                assert isinstance(effect, c.Doubt)  # nobody closes it
                self._replies.pop(effect.ticket)(SimError("doubt"))
            if self._is_mortal:
                self.world.may_die(self)

    def _landed(self, batch_id: int, answer: "tuple[Outcome, ...] | Blame") -> None:
        if self._groups:
            self._end_turn()  # what was asked while this one was under way
        event: c.CommitEvent
        if isinstance(answer, Blame):
            event = c.CommitFailed(batch_id, SimError(), answer)
        else:
            event = made(c.Committed, (batch_id, answer))
        if self._hears_twice:
            again_in = self.world.answers_again_in(self)
            if again_in is not None:
                again = partial(self._commit, event)
                self.world.on_loop(self, self.world.now + again_in, again)
        self._commit(event)
        if self._groups:
            self._end_turn()

    def hear(
        self,
        ops: tuple[Op, ...],
        answer: "tuple[Outcome, ...] | Blame",
        reply: Callable[[Any], None],
    ) -> None:
        """Hear what became of *ops*; pass it on to those whom it concerns."""
        if not isinstance(answer, Blame):
            self._pass_on(ops, answer)
        reply(answer)

    def _pass_on(self, ops: tuple[Op, ...], outcomes: tuple[Outcome, ...]) -> None:
        for op, outcome in zip(ops, outcomes, strict=True):
            if self._mishears and self.world.hint_is_lost(self):
                continue
            if type(op) is Enqueue and not self._has_ridden(ops):
                self.post(_WOKEN)
            elif type(op) is Settle:
                for waiting in self._waiting.get(op.task_id, ()):
                    waiting.hint()
            elif type(op) is Cancel:
                assert type(outcome) is Cancelled
                if outcome.key is not None and outcome.holder == self._worker_id:
                    self.post(w.StopAsked((outcome.key,)))

    def _has_ridden(self, ops: tuple[Op, ...]) -> bool:
        return any(type(op) is Reserve and op.worker_id == self._worker_id for op in ops)

    # -- running tasks -------------------------------------------------------------------

    def _execute(self, task: Reservation) -> None:
        world, worker_id = self.world, self._worker_id_of(task)
        execution = self.executions[task.key] = Execution(task, worker_id)
        plan = world.task_plan(task.id)
        stamp, _, number = task.payload.decode().partition("|")
        if stamp not in self.plan.reads:  # nothing is run
            world.on_loop(self, world.now, lambda: self._end(execution, UNREADABLE))
            return
        world.note(_START, self.name, task.id, task.key.token, (worker_id, task.payload))
        takes = plan.takes * self.chance.between(0.5, 1.5)
        if world.healed and plan.may_hurry:
            takes = min(takes, HURRY)
        if world.kills_process(plan):
            world.at(self, world.now + takes, lambda: world.kill(self))
            return
        if plan.style == "blocks":
            self.blocked_until = max(self.blocked_until, world.now + takes)
            world.note(Kind.BLOCKED, self.name, value=takes)
        if plan.enqueues and not number:
            world.on_loop(
                self, world.now + takes * 0.5, lambda: self._enqueue_child(execution, plan)
            )
        self._ends_in(execution, takes)

    def _ends_in(self, execution: Execution, seconds: float) -> None:
        execution.ends_at = self.world.now + seconds
        self.world.on_loop(self, execution.ends_at, lambda: self._end(execution, ""))

    def hurry(self) -> None:
        """Have the tasks end soon whose length is of no matter any more."""
        for execution in self.executions.values():
            is_long = execution.ends_at > self.world.now + HURRY
            if is_long and self.world.task_plan(execution.task.id).may_hurry:
                self._ends_in(execution, HURRY)

    def _worker_id_of(self, task: Reservation) -> str:
        return self.worker._running[task.key].worker_id  # noqa: SLF001  # to be noted, no more

    def _enqueue_child(self, execution: Execution, plan: TaskPlan) -> None:
        if self.executions.get(execution.key) is execution and not execution.interrupted:
            child = plan._replace(
                id=f"{plan.id}.{execution.key.seq}-{execution.key.token}",
                enqueues=False,
                kills=0,
                delay=0.0,
            )
            self.world.adopt(child)
            Asking(self, [child]).ask()

    def _interrupt(self, key: TaskKey) -> None:
        execution = self.executions.get(key)
        if execution is None or execution.interrupted:
            return
        execution.interrupted = True
        self.world.note(Kind.INTERRUPT, self.name, execution.task.id, key.token)
        plan = self.world.task_plan(execution.task.id)
        if plan.style == "thread":
            # Nobody waits for it any more, and it runs on.
            execution.lingers = True
            self.lingering += 1
            self._report(execution, Interrupted(), lingers=True)
        elif plan.style != "stubborn":
            unwinds = self.chance.about(UNWIND)
            self.world.on_loop(
                self, self.world.now + unwinds, lambda: self._end(execution, "interrupted")
            )

    def _end(self, execution: Execution, how: str) -> None:
        """The function of *execution* is over, if it was not before."""
        world, task = self.world, execution.task
        if execution.lingers:
            execution.lingers = False
            self.lingering -= 1
            world.note(_END, self.name, task.id, task.key.token, "lingered")
            self.post(w.ThreadReturned())
            return
        if self.executions.get(execution.key) is not execution:
            return
        plan = world.task_plan(task.id)
        ending: Ending
        if how == "interrupted":
            ending = Interrupted()
        elif how == UNREADABLE:
            ending = Unreadable(task.payload.decode().partition("|")[0], "of another version")
        elif plan.hopeless:
            ending = Raised(Failure("boom", "Hopeless"), retryable=False)
        elif world.still_fails(plan):
            ending = Raised(Failure("boom", "ValueError"))
        else:
            ending = Returned(f"{task.id}/{task.key.token}".encode())
        world.note(_END, self.name, task.id, task.key.token, type(ending).__name__.lower())
        self._report(execution, ending, lingers=False)

    def _report(self, execution: Execution, ending: Ending, *, lingers: bool) -> None:
        del self.executions[execution.key]
        self.post(w.TaskEnded(execution.key, ending, lingers))

    # -- the lease's thread --------------------------------------------------------------

    def _lease_mail(self, event: l.LeaseEvent) -> None:
        self._mail.append(event)
        self.world.on_thread(self, self.world.now, self._lease_read_mail)

    def _lease_read_mail(self) -> None:
        while self._mail and not self._lease_busy:
            self._lease_receive(self._mail.popleft())

    def _lease_tick(self) -> None:
        if self._lease_tick_at is not None and self._lease_tick_at <= self.world.now:
            self._lease_tick_at = None
            if not self._lease_busy:
                self._lease_receive(_TICK)

    def _lease_receive(self, event: l.LeaseEvent) -> None:
        now, receive, events = self.world.now, self.lease.receive, [event]
        for told in events:
            for effect in receive(told, now):
                answer = self._lease_do(effect)
                if answer is not None:
                    events.append(answer)  # it is told behind the others
        if not self._lease_busy:
            deadline = self.lease.next_deadline()
            if deadline is not None:
                assert deadline > now, "a deadline was left behind"
                at = deadline
                if self._lease_tick_at is None or at < self._lease_tick_at:
                    self._lease_tick_at = at
                    self.world.on_thread(self, at, self._lease_tick)

    def _lease_do(self, effect: l.LeaseEffect) -> l.LeaseEvent | None:
        world = self.world
        if isinstance(effect, l.Apply):  # what comes most often comes first
            self._lease_busy = True
            world.disk.apply(self, effect.ops, self._lease_answered, thread=True)
        elif isinstance(effect, l.Hold):
            self._latest_hold = effect
            self._lease_tells(effect)
        elif isinstance(effect, l.Probe):
            return made(l.Probed, (world.free_locks(effect.worker_ids),))
        elif isinstance(effect, l.Enter):
            self.lives += 1
            worker_id = f"{self.name}.{self.lives}"
            self.locks.add(worker_id)
            return l.Entered(worker_id)
        elif isinstance(effect, l.Leave):
            self.locks.discard(effect.worker_id)
        elif isinstance(effect, l.Stop):
            world.has_stopped(self)
        elif not isinstance(effect, l.Complain | l.Sweep):  # nothing here needs those
            self._lease_tells(effect)
        return None

    def _lease_tells(self, news: l.Hold | l.LetGo | l.AskToStop | l.Wake) -> None:
        """Have the event loop hear of *news*, sooner or later."""
        world = self.world
        at = world.now + world.news_takes(self) if self._is_late else world.now
        world.on_loop(self, at, partial(self._lease_news, news))

    def _lease_answered(self, answer: "tuple[Outcome, ...] | Blame") -> None:
        self._lease_busy = False
        if isinstance(answer, Blame):
            self.world.note(Kind.DENIED, self.name, value="lease")
            self._lease_receive(l.ApplyFailed(SimError()))
        else:
            self._lease_receive(made(l.Applied, (answer,)))
        if self._mail:
            self._lease_read_mail()

    def _lease_news(self, news: l.Hold | l.LetGo | l.AskToStop | l.Wake) -> None:
        match news:
            case l.Hold():
                if self._worker_id != news.worker_id:  # and not renewed once more
                    self._worker_id = news.worker_id
                    self.world.note(_HELD, self.name, value=news.worker_id)
                self._turn_at = self.world.now
                self._turn()
            case l.LetGo(worker_id):
                self.world.note(Kind.LET_GO, self.name, value=worker_id)
                self.post(w.LeaseLost(worker_id))
            case l.AskToStop(keys):
                self.post(w.StopAsked(keys))
            case l.Wake():
                self.post(_WOKEN)
            case _:
                assert_never(news)

    # -- callers -------------------------------------------------------------------------

    def enqueue(self, tasks: list[TaskPlan]) -> None:
        Asking(self, tasks).ask()

    def cancel(self, task_id: str) -> None:
        self.world.note(Kind.CANCEL, self.name, task_id)
        self.submit((Cancel(task_id),), lambda answer: self._cancelled(task_id, answer))
        self._end_turn()

    def _cancelled(self, task_id: str, answer: Any) -> None:
        if not isinstance(answer, SimError):
            (outcome,) = answer
            self.world.note(Kind.CANCELLED, self.name, task_id, value=outcome.was)

    def wait(self, task_id: str, timeout: float | None) -> None:
        waiting = Waiting(self, task_id, timeout)
        self._waiting.setdefault(task_id, []).append(waiting)
        waiting.start()

    def waiting_has_ended(self, waiting: "Waiting") -> None:
        self._waiting[waiting.task_id].remove(waiting)
        if not self._waiting[waiting.task_id]:
            del self._waiting[waiting.task_id]

    def leftovers(self) -> dict[str, int]:
        """Return what the worker still keeps of tasks; nothing, once all are over."""
        worker = self.worker
        kept = {
            "running": len(worker._running),  # noqa: SLF001
            "asked": len(worker._asked),  # noqa: SLF001
            "settles": len(worker._settles),  # noqa: SLF001
            "time limits": len(worker._time_limits),  # noqa: SLF001
            "executions": len(self.executions),
        }
        return {name: count for name, count in kept.items() if count}

    def is_busy(self) -> bool:
        """Say whether something goes on here that is to be waited for."""
        return bool(self._replies or self._waiting or self.executions or self.lingering)
