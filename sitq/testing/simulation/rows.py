"""What must hold of the store: of each transaction, and of each change of a task's row."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Conflict,
    Enqueue,
    Enqueued,
    Failed,
    Moment,
    Parked,
    Prune,
    Register,
    Registered,
    Released,
    Renew,
    Renewed,
    Rescue,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    Settle,
    Settled,
    Unregistered,
)
from sitq.testing.simulation.facts import FINAL, PENDING, RESCUED_WITHIN, SLACK, Facts, Proc, Task
from sitq.testing.simulation.history import Batch, Change, Event

LEGAL: Final = frozenset(
    {
        (S.SCHEDULED, S.QUEUED), (S.SCHEDULED, S.CANCELLED),
        (S.QUEUED, S.RUNNING), (S.QUEUED, S.CANCELLED),
        (S.PARKED, S.QUEUED), (S.PARKED, S.CANCELLED),
        (S.RUNNING, S.SUCCESS), (S.RUNNING, S.FAILED), (S.RUNNING, S.CANCELLED),
        (S.RUNNING, S.SCHEDULED), (S.RUNNING, S.QUEUED), (S.RUNNING, S.PARKED),
    }
)  # fmt: skip
BY_VERDICT: Final[dict[type, frozenset[S]]] = {
    Completed: frozenset({S.SUCCESS}),
    Failed: frozenset({S.FAILED}),
    Aborted: frozenset({S.CANCELLED}),
    RetryIn: frozenset({S.SCHEDULED, S.CANCELLED}),
    Released: frozenset({S.QUEUED, S.CANCELLED}),
    Parked: frozenset({S.PARKED, S.CANCELLED}),
}
CHARGED: Final = frozenset({Completed, Failed, Aborted, RetryIn})
SCHEDULED, QUEUED, RUNNING, PARKED, SUCCESS, FAILED, CANCELLED = S


class Rows:
    """Judges the events `BATCH` and `ROW`."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._keys: set[tuple[int, int]] = set()
        self._queued: dict[str, dict[str, Task]] = {}  # by queue, those that wait
        self._batch: Batch | None = None
        self._who = ""  # its process
        self.is_open = False
        """Whether the batch is to be judged once all of its rows were seen."""
        self._claimed: list[tuple[str, Change]] = []
        self._stored: list[str] = []  # ids that the batch is said to have stored
        self._settles: dict[int, list[tuple[Settle, bool]]] = {}

    def batch(self, event: Event) -> None:
        self.facts.saw_store = True
        self._batch = event.value
        self._who = event.who
        if self._settles:
            self._settles = {}
        ops, outcomes, now = event.value
        for op, outcome in zip(ops, outcomes, strict=True):
            judge = self._JUDGES.get(type(op))
            if judge is not None:
                judge(self, op, outcome, now)

    def _settle(self, op: Settle, outcome: Settled, now: Moment) -> None:  # noqa: ARG002
        self._settles.setdefault(op.key.seq, []).append((op, outcome.applied))

    def _register(self, op: Register, outcome: Registered, now: Moment) -> None:  # noqa: ARG002
        self._leased(op.worker_id, op.lease_for, now)
        self.facts.owner[op.worker_id] = self._who
        proc = self.facts.procs[self._who]
        proc.slots, proc.queues = op.max_concurrency, op.queues

    def _renew(self, op: Renew, outcome: Renewed | Unregistered, now: Moment) -> None:
        if type(outcome) is Renewed:
            self._leased(op.worker_id, op.lease_for, now)

    def _leased(self, worker_id: str, lease_for: float, now: Moment) -> None:
        until = now.lease_ms + round(lease_for * 1000)
        self.facts.leases[worker_id] = until, now.epoch, lease_for

    def _reserve(self, op: Reserve, outcome: Reserved | Unregistered, now: Moment) -> None:  # noqa: ARG002
        if type(outcome) is Reserved and len(outcome.tasks) > op.limit:
            self.facts.fail(
                "S16", f"{self._who} asked for {op.limit} tasks, and got {len(outcome.tasks)}"
            )

    def _cancel(self, op: Cancel, outcome: Cancelled, now: Moment) -> None:  # noqa: ARG002
        if outcome.was is RUNNING:
            self.facts.tasks[op.task_id].stop_at = self.facts.at

    def _enqueue(self, op: Enqueue, outcome: Enqueued | Conflict, now: Moment) -> None:  # noqa: ARG002
        if type(outcome) is Conflict:
            return
        for new in op.tasks:
            task = self.facts.tasks[new.id]
            if task.new is None:
                task.new = new
            self._stored.append(new.id)
            self.is_open = True

    def close(self) -> None:
        """What can be judged only once the whole batch was seen."""
        self.is_open = False
        stored, self._stored = self._stored, []
        for task_id in stored:
            if not self.facts.tasks[task_id].inserted:
                self.facts.fail("S3", f"{task_id} is said to be stored with others, and is not")
        claimed, self._claimed = self._claimed, []
        for task_id, change in claimed:
            suspect = self.facts.tasks[task_id].is_suspect()
            for other_id, other in self._queued.get(change.queue, {}).items():
                assert other.new is not None
                if other.is_suspect() and not suspect:
                    continue  # it waits for its worker to have none
                if (-other.new.priority, other.seq) < (-change.priority, change.seq):
                    self.facts.fail(
                        "S21", f"{task_id} was reserved before {other_id}, which goes first"
                    )

    def row(self, event: Event) -> None:
        change: Change = event.value
        task = self.facts.tasks[event.task]
        if change.old is None:
            self._inserted(event, task, change)
            return
        if change.new is None:
            self._deleted(event, task, change)
            return
        if change.old is change.new:
            if task.state in FINAL:
                self.facts.fail("S8", f"{event.task} has ended, and its row was changed")
            task.token, task.worker = change.token, change.worker
            return
        if task.state in FINAL:
            self.facts.fail(
                "S8", f"{event.task} had ended as {task.state}, and becomes {change.new}"
            )
        elif (change.old, change.new) not in LEGAL or change.old is not task.state:
            self.facts.fail("S18", f"{event.task} went from {task.state} to {change.new}")
        if change.old is QUEUED:
            self._queued.get(change.queue, {}).pop(event.task, None)
        if change.old is RUNNING:
            self._left(event, task, change)
        elif change.old is QUEUED and change.new is RUNNING:
            self._claim(event, task, change)
        elif change.old is SCHEDULED and change.new is QUEUED:
            self._promoted(event, change)
        task.state, task.token, task.worker = change.new, change.token, change.worker
        if change.new in FINAL:
            task.ended_at = event.at
        elif change.new is QUEUED:
            task.queued_at = event.at
            task.was_scheduled = change.old is SCHEDULED
            self._queued.setdefault(change.queue, {})[event.task] = task

    def _inserted(self, event: Event, task: Task, change: Change) -> None:
        assert change.new is not None
        if not (task.pending or task.unknown or task.acknowledged):
            self.facts.fail("S2", f"{event.task} is stored, and nobody asks for it")
        if task.state is not None:
            self.facts.fail("S4", f"{event.task} is stored twice")
        if task.inserted:  # it was forgotten after its retention: this is another task
            task.known, task.begun = set(), set()
            task.charged = task.crashes = task.starts = 0
            task.cancelled, task.stop_at = False, None
        task.inserted += 1
        task.state, task.seq, task.token = change.new, change.seq, change.token
        task.queued_at, task.ended_at = event.at, None
        task.was_scheduled = change.new is SCHEDULED
        if change.new is QUEUED:
            self._queued.setdefault(change.queue, {})[event.task] = task
            self._promoted(event, change)
        elif change.new is not SCHEDULED:
            self.facts.fail("S18", f"{event.task} came into being as {change.new}")

    def _deleted(self, event: Event, task: Task, change: Change) -> None:
        assert self._batch is not None
        if task.state not in FINAL:
            self.facts.fail("S25", f"{event.task} was forgotten while it was {task.state}")
        elif not any(
            isinstance(op, Prune)
            and change.finished_ms is not None
            and change.finished_ms <= self._batch.now.wall_ms - round(op.older_than * 1000)
            for op in self._batch.ops
        ):
            self.facts.fail("S25", f"{event.task} was forgotten before its time")
        task.state = None

    def _promoted(self, event: Event, change: Change) -> None:
        assert self._batch is not None
        if self._batch.now.wall_ms < change.run_at_ms:
            early = change.run_at_ms - self._batch.now.wall_ms
            self.facts.fail("S13", f"{event.task} became due {early} ms before its time")

    def _claim(self, event: Event, task: Task, change: Change) -> None:
        assert self._batch is not None
        key = change.seq, change.token
        if key in self._keys or (task.known and change.token <= max(task.known)):
            self.facts.fail("S6", f"{event.task} was given out under token {change.token} before")
        self._keys.add(key)
        task.known.add(change.token)
        task.given.setdefault(change.token, set()).add(change.worker)
        task.given_at = event.at
        if change.attempt != task.charged + 1:
            self.facts.fail(
                "S7",
                f"{event.task} begins attempt {change.attempt}, and {task.charged} were charged",
            )
        if task.new is not None and change.attempt > task.new.policy.retry.attempts:
            self.facts.fail("S7", f"{event.task} begins attempt {change.attempt}, one too many")
        if not any(
            isinstance(op, Reserve) and op.worker_id == change.worker and change.queue in op.queues
            for op in self._batch.ops
        ):
            self.facts.fail(
                "S9", f"{event.task} was given to {change.worker}, who did not ask for it"
            )
        if change.worker not in self.facts.leases:
            self.facts.fail("S6", f"{event.task} was given to {change.worker}, who has no lease")
        self._claimed.append((event.task, change))
        self.is_open = True
        if task.is_suspect():
            self._judge_company(event, task, change)
        else:
            self._judge_pickup(event, task, change)

    def _judge_company(self, event: Event, task: Task, change: Change) -> None:
        for other_id, other in self.facts.tasks.items():
            held = other.state is RUNNING and other.worker == change.worker
            if held and other is not task and other.is_suspect():
                self.facts.fail(
                    "S27",
                    f"{event.task} ({task.crashes} deaths) was given to {change.worker}, which has"
                    f" {other_id} ({other.crashes} deaths)",
                )

    def _judge_pickup(self, event: Event, task: Task, change: Change) -> None:
        """L4: how long was it there, while this worker had nothing to do?"""
        proc = self.facts.procs[event.who]
        if self.facts.healed_at is None or proc.free_since is None or not proc.poll:
            return
        assert self._batch is not None
        due_at = task.queued_at
        if task.was_scheduled:
            due_at = event.at - (self._batch.now.wall_ms - change.run_at_ms) / 1000
        waited = event.at - max(due_at, proc.free_since, self.facts.healed_at)
        if waited > proc.poll + SLACK:
            self.facts.fail(
                "L4", f"{event.task} waited {waited:.1f} s for {event.who}, which was free"
            )

    def _left(self, event: Event, task: Task, change: Change) -> None:
        """Why did a task stop being that of its holder?"""
        assert self._batch is not None
        assert change.new is not None
        holder = change.old_worker or ""
        for settle, _ in self._settles.get(change.seq, ()):
            if settle.key.token == change.old_token and settle.worker_id == holder:
                self._settled(event, task, change, settle)
                return
        if self._settles.get(change.seq):
            self.facts.fail(
                "S9",
                f"{event.task} (token {change.old_token} of {holder}) was settled by another:"
                f" {self._settles[change.seq][0][0].key}",
            )
            return
        if change.new not in {QUEUED, FAILED, CANCELLED}:
            self.facts.fail("S9", f"{event.task} became {change.new}, and nobody had settled it")
            return
        if change.token <= change.old_token:
            self.facts.fail("S6", f"{event.task} was taken from {holder} and kept its token")
        for op in self._batch.ops:
            if isinstance(op, Retire) and op.worker_id == holder:
                if event.who != self.facts.owner.get(holder):
                    self.facts.fail("S10", f"{event.who} retired {holder}, which is not its own")
                if change.new is FAILED:
                    self.facts.fail("S7", f"{event.task} failed because its worker has stopped")
                if task.stop_at is not None:
                    self._came_back(event, change)
                return
        self._rescued(event, task, change, holder)

    def _rescued(self, event: Event, task: Task, change: Change, holder: str) -> None:
        assert self._batch is not None
        if not any(isinstance(op, Rescue) for op in self._batch.ops):
            self.facts.fail("S9", f"{event.task} was taken from {holder} by no op that may")
            return
        now = self._batch.now
        owner = self.facts.procs.get(self.facts.owner.get(holder, ""))
        until, epoch, lease_for = self.facts.leases.get(holder, (0, "", 0.0))
        gave_it_up = self.facts.owner.get(holder) == event.who  # and begins another life
        is_dead = owner is None or not owner.alive or owner.held != holder or gave_it_up
        if not is_dead and epoch == now.epoch and until > now.lease_ms:
            self.facts.fail(
                "S10",
                f"{event.task} was taken from {holder}, which is alive and whose lease is good for"
                f" another {(until - now.lease_ms) / 1000:.3f} s",
            )
        self._judge_rescue(event, owner, lease_for)
        if change.new is CANCELLED:
            return
        task.crashes += 1
        most = task.new.policy.max_crashes if task.new is not None else 3
        if change.crashes != task.crashes:
            self.facts.fail(
                "L3", f"{event.task} counts {change.crashes} deaths, not {task.crashes}"
            )
        if (change.new is FAILED) != (task.crashes >= most):
            self.facts.fail(
                "L3", f"{event.task} is {change.new} after {task.crashes} of at most {most} deaths"
            )
        if task.stop_at is not None:
            self._came_back(event, change)

    def _judge_rescue(self, event: Event, owner: Proc | None, lease_for: float) -> None:
        if (
            self.facts.fine_since is not None
            and self.facts.ready_since is not None
            and owner is not None
            and not owner.alive
            and not owner.stopped
        ):
            took = event.at - max(owner.killed_at, self.facts.fine_since, self.facts.ready_since)
            if took > RESCUED_WITHIN + (0.0 if self.facts.presence else lease_for):
                self.facts.fail(
                    "L2", f"{event.task} was rescued {took:.1f} s after its worker had died"
                )

    def _settled(self, event: Event, task: Task, change: Change, settle: Settle) -> None:
        verdict = settle.verdict
        assert change.new is not None
        if change.new not in BY_VERDICT[type(verdict)]:
            self.facts.fail("S9", f"{event.task} became {change.new} by {type(verdict).__name__}")
        attempt = self.facts.owner.get(settle.worker_id, ""), settle.key.token
        task.settled.add(attempt)
        if (
            attempt in task.interrupted
            and isinstance(verdict, Failed | RetryIn)
            and verdict.failure.reason != "timeout"
        ):
            self.facts.fail("S7", f"{event.task} was interrupted, and is charged for it")
        if type(verdict) in CHARGED or change.new is CANCELLED:
            task.charged += 1
        if isinstance(verdict, Completed):
            task.result = verdict.value
        if task.stop_at is not None:
            self._came_back(event, change)
        if isinstance(verdict, RetryIn):
            assert self._batch is not None
            due = self._batch.now.wall_ms + round(verdict.delay * 1000)
            if change.new is SCHEDULED and change.run_at_ms != due:
                self.facts.fail(
                    "S13", f"{event.task} is to be retried at another time than was said"
                )

    def _came_back(self, event: Event, change: Change) -> None:
        if change.new in PENDING:
            self.facts.fail("S15", f"{event.task} was cancelled while it ran, and comes back")

    # Of the other ops, their rows tell all.
    _JUDGES: ClassVar[Mapping[type, Callable[[Any, Any, Any, Moment], None]]] = {
        Settle: _settle,
        Register: _register,
        Renew: _renew,
        Reserve: _reserve,
        Cancel: _cancel,
        Enqueue: _enqueue,
    }
