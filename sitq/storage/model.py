"""The same ops on plain dicts: what every backend must answer, said as simply as possible.

It is the oracle of the conformance suite, and the store of MemoryBackend. It shares the ops
and the transition table with the SQL, and nothing else: what both get wrong, they get wrong
each on its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Final, assert_never

from sitq.protocol.lifecycle import FINAL, Move, TaskState, advance
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Conflict,
    Count,
    Counted,
    Enqueue,
    Enqueued,
    Failed,
    Fetch,
    Fetched,
    Moment,
    NewTask,
    Op,
    Outcome,
    Parked,
    Prune,
    Pruned,
    Register,
    Registered,
    Released,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Reservation,
    Reserve,
    Reserved,
    Retire,
    Retired,
    RetryIn,
    Settle,
    Settled,
    TaskKey,
    TaskRow,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
    Watched,
)

# These say no more than their kind, so one is enough.
_ENQUEUED, _REGISTERED, _RENEWED, _UNREGISTERED = (
    Enqueued(),
    Registered(),
    Renewed(),
    Unregistered(),
)

# A member is looked up in its enum by a slow path of Python 3.11; these are quick, and shorter.
SCHEDULED, QUEUED, RUNNING, PARKED, SUCCESS, FAILED, CANCELLED = TaskState


@dataclass(slots=True)
class _Task:
    seq: int
    new: NewTask
    state: TaskState
    run_at_ms: int
    enqueued_ms: int
    token: int = 0
    attempt: int = 0
    crashes: int = 0
    worker_id: str | None = None
    cancel_asked: bool = False
    parked_stamp: str | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    value: bytes | None = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    reason: str | None = None

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.seq, self.token)


@dataclass(slots=True)
class _Worker:
    host: str
    pid: int
    epoch: str
    lease_until_ms: int

    def is_expired(self, now: Moment) -> bool:
        return self.epoch != now.epoch or self.lease_until_ms <= now.lease_ms


class Model:
    """Tasks and workers in memory; every batch is applied as a whole.

    The heaps hold a task's number for each time it entered a queue; numbers of tasks that
    have moved on since are skipped when they come up.
    """

    def __init__(self) -> None:
        self._tasks: dict[int, _Task] = {}
        self._seq_of: dict[str, int] = {}
        self._queued: dict[str, list[tuple[int, int]]] = {}  # (-priority, seq)
        self._scheduled: dict[str, list[tuple[int, int]]] = {}  # (run_at_ms, seq)
        self._held: dict[str, dict[int, _Task]] = {}  # by worker, then by seq
        self._parked: dict[int, _Task] = {}
        self._ended: list[tuple[int, int]] = []  # (finished_ms, seq)
        self._workers: dict[str, _Worker] = {}
        self._seq = 0

    def apply(self, ops: Sequence[Op], now: Moment) -> tuple[Outcome, ...]:
        """Apply *ops* together; return their outcomes, in the order of *ops*."""
        if len(ops) == 1:
            return (self._apply(ops[0], now),)
        outcomes: list[Any] = [None] * len(ops)
        ranks = [_RANK[type(op)] for op in ops]
        for i in sorted(range(len(ops)), key=ranks.__getitem__):
            outcomes[i] = self._apply(ops[i], now)
        return tuple(outcomes)

    def _apply(self, op: Op, now: Moment) -> Outcome:
        match op:  # what comes most often comes first
            case Settle():
                return self._settle(op, now)
            case Reserve():
                return self._reserve(op, now)
            case Renew():
                return self._renew(op, now)
            case Watch():
                return self._watch(op.worker_id, now)
            case Enqueue():
                return self._enqueue(op, now)
            case Fetch():
                return self._fetch(op.task_ids)
            case Cancel():
                return self._cancel(op, now)
            case Unpark():
                return self._unpark(op.stamps)
            case Prune():
                return self._prune(op, now)
            case Rescue():
                return self._rescue(op.worker_ids, now)
            case Register():
                return self._register(op, now)
            case Retire():
                return self._retire(op.worker_id, now)
            case Count():
                return self._count()
            case _:
                assert_never(op)

    # -- every move of a task ------------------------------------------------------------

    def _move(self, task: _Task, move: Move) -> None:
        """Make *move*, and file the task under its new state."""
        state = advance(task.state, move)
        assert state is not None, f"{task.state} does not allow {move}"
        if task.state is RUNNING:
            assert task.worker_id is not None
            del self._held[task.worker_id][task.seq]
        elif task.state is PARKED:
            del self._parked[task.seq]
        task.state = state
        self._file(task)

    def _file(self, task: _Task) -> None:
        state = task.state
        if state is QUEUED:
            heap = self._queued.setdefault(task.new.queue, [])
            heappush(heap, (-task.new.priority, task.seq))
        elif state is SCHEDULED:
            heap = self._scheduled.setdefault(task.new.queue, [])
            heappush(heap, (task.run_at_ms, task.seq))
        elif state is RUNNING:
            assert task.worker_id is not None
            self._held.setdefault(task.worker_id, {})[task.seq] = task
        elif state is PARKED:
            self._parked[task.seq] = task
        else:
            assert state in FINAL
            assert task.finished_ms is not None
            heappush(self._ended, (task.finished_ms, task.seq))

    def _end(self, task: _Task, move: Move, now: Moment, reason: str | None = None) -> None:
        task.finished_ms, task.reason = now.wall_ms, reason
        self._move(task, move)

    def _give_back(self, task: _Task, move: Move) -> None:
        """Undo the reserve; the attempt is not charged."""
        self._move(task, move)
        task.attempt -= 1
        task.worker_id = task.started_ms = None

    # -- enqueue and cancel --------------------------------------------------------------

    def _enqueue(self, op: Enqueue, now: Moment) -> Outcome:
        fresh: dict[str, NewTask] = {}
        for new in op.tasks:
            if new.id in self._seq_of:
                stored = self._tasks[self._seq_of[new.id]]
                if stored.new.payload != new.payload:
                    return Conflict(new.id, stored.state)
            elif fresh.setdefault(new.id, new).payload != new.payload:
                return Conflict(new.id, QUEUED)
        for new in fresh.values():
            run_at_ms = now.wall_ms + new.delay_ms if new.run_at_ms is None else new.run_at_ms
            due = run_at_ms <= now.wall_ms
            self._seq += 1
            task = _Task(
                seq=self._seq,
                new=new,
                state=QUEUED if due else SCHEDULED,
                run_at_ms=run_at_ms,
                enqueued_ms=now.wall_ms,
            )
            self._tasks[task.seq] = task
            self._seq_of[new.id] = task.seq
            self._file(task)
        return _ENQUEUED

    def _cancel(self, op: Cancel, now: Moment) -> Outcome:
        if op.task_id not in self._seq_of:
            return Cancelled(None)
        task = self._tasks[self._seq_of[op.task_id]]
        was = task.state
        if was is RUNNING:
            task.cancel_asked = True
            return Cancelled(was, task.worker_id, task.key)
        if advance(was, Move.CANCEL) is not None:
            self._end(task, Move.CANCEL, now, "user")
        return Cancelled(was)

    # -- reserve and settle --------------------------------------------------------------

    def _reserve(self, op: Reserve, now: Moment) -> Outcome:
        if op.worker_id not in self._workers:  # its tasks would have no lease to run out
            return _UNREGISTERED
        due_at: list[int] = []  # for each queue in which some wait for their time
        for queue in op.queues:
            while (first := self._next(self._scheduled, queue, SCHEDULED)) is not None:
                if first.run_at_ms > now.wall_ms:
                    due_at.append(first.run_at_ms)
                    break
                self._move(first, Move.PROMOTE)
        tasks: list[_Task] = []
        if op.known is not None:
            forgotten = [t for t in self._held_by(op.worker_id) if t.seq not in op.known]
            tasks += forgotten[: op.limit]
        tasks += self._reserve_fresh(op, op.limit - len(tasks), now)
        if len(tasks) > 1:
            tasks.sort(key=_turn)
        given = tuple(_reservation(task) for task in tasks)
        if len(given) == op.limit:
            return Reserved(given)
        next_due_in = max(0, min(due_at) - now.wall_ms) / 1000 if due_at else None
        return Reserved(given, next_due_in)

    def _reserve_fresh(self, op: Reserve, limit: int, now: Moment) -> list[_Task]:
        """Give the next tasks, of the suspects one at most, and none to whoever holds one."""
        given: list[_Task] = []
        passed_over: list[_Task] = []
        while len(given) < limit:
            firsts = [self._next(self._queued, queue, QUEUED) for queue in op.queues]
            ready = [task for task in firsts if task is not None]
            if not ready:
                break
            task = ready[0] if len(ready) == 1 else min(ready, key=_turn)
            if _is_suspect(task) and any(map(_is_suspect, self._held_by(op.worker_id))):
                heappop(self._queued[task.new.queue])
                passed_over.append(task)
                continue
            task.worker_id, task.started_ms = op.worker_id, now.wall_ms
            task.token += 1
            task.attempt += 1
            self._move(task, Move.RESERVE)
            given.append(task)
        for task in passed_over:
            self._file(task)
        return given

    def _next(
        self, heaps: dict[str, list[tuple[int, int]]], queue: str, state: TaskState
    ) -> _Task | None:
        """Return the first task of a queue that is still in *state*."""
        heap = heaps.get(queue)
        while heap:
            task = self._tasks.get(heap[0][1])
            if task is not None and task.state is state:
                return task
            heappop(heap)
        return None

    def _settle(self, op: Settle, now: Moment) -> Outcome:
        task = self._tasks.get(op.key.seq)
        if task is None or task.token != op.key.token:
            return Settled(False)
        if task.state is not RUNNING:
            return Settled(True)  # as it was left under this very token
        if task.worker_id != op.worker_id:
            return Settled(False)
        if task.cancel_asked and isinstance(op.verdict, RetryIn | Released | Parked):
            self._end(task, Move.ABORT, now, "user")
            return Settled(True)
        match op.verdict:
            case Completed(value):
                task.value, task.error, task.error_type, task.traceback = value, None, None, None
                self._end(task, Move.COMPLETE, now)
            case Failed(failure):
                task.error, task.error_type = failure.error, failure.error_type
                task.traceback = failure.traceback
                self._end(task, Move.FAIL, now, failure.reason)
            case Aborted():
                self._end(task, Move.ABORT, now, "user")
            case RetryIn(delay, failure):
                task.run_at_ms = now.wall_ms + _ms(delay)
                task.error, task.error_type = failure.error, failure.error_type
                task.traceback = failure.traceback
                self._move(task, Move.RETRY)
                task.worker_id = None
            case Released():
                self._give_back(task, Move.RELEASE)
            case Parked(stamp, text):
                task.parked_stamp, task.error = stamp, text
                self._give_back(task, Move.PARK)
            case _:
                assert_never(op.verdict)
        return Settled(True)

    # -- workers -------------------------------------------------------------------------

    def _register(self, op: Register, now: Moment) -> Outcome:
        until = now.lease_ms + _ms(op.lease_for)
        self._workers[op.worker_id] = _Worker(op.host, op.pid, now.epoch, until)
        return _REGISTERED

    def _renew(self, op: Renew, now: Moment) -> Outcome:
        if (worker := self._workers.get(op.worker_id)) is None:
            return _UNREGISTERED
        worker.epoch = now.epoch
        worker.lease_until_ms = now.lease_ms + _ms(op.lease_for)
        return _RENEWED

    def _retire(self, worker_id: str, now: Moment) -> Outcome:
        released = 0
        for task in self._held_by(worker_id):
            task.token += 1
            if task.cancel_asked:
                self._end(task, Move.ABORT, now, "user")
            else:
                self._give_back(task, Move.RELEASE)
                released += 1
        self._forget(worker_id)
        return Retired(released)

    def _rescue(self, named: tuple[str, ...], now: Moment) -> Outcome:
        dead = [id_ for id_, w in self._workers.items() if id_ in named or w.is_expired(now)]
        tasks = 0
        for worker_id in sorted(dead):
            worker = self._workers[worker_id]
            for task in self._held_by(worker_id):
                tasks += 1
                task.token += 1
                if task.cancel_asked:
                    self._end(task, Move.ABORT, now, "user")
                    continue
                task.crashes += 1
                if task.crashes < task.new.policy.max_crashes:
                    self._give_back(task, Move.RESCUE)
                    continue
                times = "1 time" if task.crashes == 1 else f"{task.crashes} times"
                task.error = (
                    f"the worker died {times} while running this task"
                    f" (last: pid {worker.pid} on {worker.host})"
                )
                task.error_type, task.traceback = "WorkerDied", None
                self._end(task, Move.FAIL, now, "crash")
            self._forget(worker_id)
        return Rescued(tuple(sorted(dead)), tasks)

    def _forget(self, worker_id: str) -> None:
        self._workers.pop(worker_id, None)
        self._held.pop(worker_id, None)

    def _watch(self, worker_id: str, now: Moment) -> Outcome:
        peers: list[str] = []
        expired = False
        for id_, worker in self._workers.items():
            if id_ != worker_id:
                peers.append(id_)
                expired = expired or worker.is_expired(now)
        cancelled = [task.key for task in self._held_by(worker_id) if task.cancel_asked]
        return Watched(tuple(sorted(peers)), expired, tuple(cancelled))

    def _held_by(self, worker_id: str) -> list[_Task]:
        held = self._held.get(worker_id)
        return [held[seq] for seq in sorted(held)] if held else []

    # -- upkeep and reading --------------------------------------------------------------

    def _unpark(self, stamps: tuple[str, ...]) -> Outcome:
        readable = [task for task in self._parked.values() if task.parked_stamp in stamps]
        for task in readable:
            self._move(task, Move.UNPARK)
            task.parked_stamp = task.error = None
        return Unparked(len(readable))

    def _prune(self, op: Prune, now: Moment) -> Outcome:
        before = now.wall_ms - _ms(op.older_than)
        count = 0
        newest: list[tuple[int, int]] = []
        while count < op.limit and self._ended and self._ended[0][0] <= before:
            finished_ms, seq = heappop(self._ended)
            if seq == self._seq:
                newest.append((finished_ms, seq))  # it stays, as the SQL says
                continue
            task = self._tasks.pop(seq)
            del self._seq_of[task.new.id]
            count += 1
        for entry in newest:
            heappush(self._ended, entry)
        return Pruned(count)

    def _fetch(self, task_ids: tuple[str, ...]) -> Outcome:
        found = [id_ for id_ in task_ids if id_ in self._seq_of]
        return Fetched({id_: _row(self._tasks[self._seq_of[id_]]) for id_ in found})

    def _count(self) -> Outcome:
        counts: dict[tuple[str, TaskState], int] = {}
        for task in self._tasks.values():
            key = task.new.queue, task.state
            counts[key] = counts.get(key, 0) + 1
        return Counted(tuple((queue, state, n) for (queue, state), n in sorted(counts.items())))


_RANK: Final = {
    kind: rank
    for rank, kind in enumerate(
        (
            Settle,
            Retire,
            Register,
            Renew,
            Rescue,
            Unpark,
            Prune,
            Enqueue,
            Cancel,
            Reserve,
            Watch,
            Fetch,
            Count,
        )
    )
}
"""Ops of one batch are concurrent, so any order is right; the tests want the SQL's."""


def _is_suspect(task: _Task) -> bool:
    """Say whether a task fails if its worker dies once more."""
    return 0 < task.crashes >= task.new.policy.max_crashes - 1


def _turn(task: _Task) -> tuple[int, int]:
    """By priority, then first come, first served."""
    return -task.new.priority, task.seq


def _reservation(task: _Task) -> Reservation:
    new = task.new
    return Reservation(
        task.key, new.id, new.name, new.payload, task.attempt, new.policy, task.crashes
    )


def _row(task: _Task) -> TaskRow:
    return TaskRow(
        id=task.new.id,
        name=task.new.name,
        queue=task.new.queue,
        state=task.state,
        attempt=task.attempt,
        crashes=task.crashes,
        enqueued_ms=task.enqueued_ms,
        started_ms=task.started_ms,
        finished_ms=task.finished_ms,
        value=task.value,
        error=task.error,
        error_type=task.error_type,
        traceback=task.traceback,
        reason=task.reason,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
