"""Every op as statements of Postgres.

The promises:
- A batch is one transaction. Its ops were asked at the same time, and none has been answered
  when it begins, so any order is a right one: they go kind by kind, and what frees comes before
  what takes.
- All times are those of the server, so that the clocks of workers do not matter.
- Enqueues, settles, cancels and a reserve each cost a fixed number of statements, however many
  tasks there are. What most batches consist of leaves together: such a batch costs two round trips,
  the second of which is COMMIT. All else costs one for each statement.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, assert_never

from sitq.protocol.lifecycle import Move, TaskState, advance
from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Cancelled,
    Completed,
    Count,
    Counted,
    Enqueue,
    Failed,
    Fetch,
    Fetched,
    NewTask,
    Op,
    Outcome,
    Parked,
    Prune,
    Pruned,
    Register,
    Released,
    Renew,
    Rescue,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    Settle,
    Settled,
    TaskKey,
    Unpark,
    Unparked,
    Unregistered,
    Watch,
)
from sitq.storage import postgres_statements as sql, postgres_workers as workers
from sitq.storage.policy_column import dump_policy
from sitq.storage.postgres_arrays import Blobs, Ints, Texts
from sitq.storage.postgres_front import BEGINNING, Front, Place
from sitq.storage.postgres_schema import refuse_newer
from sitq.storage.program import Commit, Program, Query, Row, Together
from sitq.storage.sql import ENQUEUED, in_turn, ms, new_tasks, reservations, task_row, when


def apply_batch(
    ops: Sequence[Op], schema: str, front: Front | None = None
) -> Program[tuple[Outcome, ...]]:
    """Apply *ops* in one transaction; return their outcomes, in the order of *ops*.

    *schema* is for messages. *front* is what the same connection has found so far.
    """
    front = front or Front()
    outcomes: dict[int, Outcome] = {}
    asked: dict[type, list[tuple[int, Any]]] = {}
    for i, op in enumerate(ops):
        asked.setdefault(type(op), []).append((i, op))
    if asked.keys() == {Fetch}:  # one statement is a transaction of its own
        outcomes |= yield from _fetch(asked[Fetch], 0)
        return tuple([outcomes[i] for i in range(len(ops))])
    if len(ops) == 1 and isinstance(op := ops[0], Reserve) and op.known is None:
        outcome = yield from _reserve_alone(op, schema, front)
        if outcome is not None:
            return (outcome,)
    elif _leaves_together(asked):
        found = yield from _together(asked, schema, front)
        if found is not None:
            return tuple([found[i] for i in range(len(ops))])
    begin = sql.BEGIN_READING if asked.keys() <= READS else sql.BEGIN
    ((now, version, *_),) = yield Query(begin)
    refuse_newer(version, schema)
    for kind, program in _IN_ORDER:
        if kind in asked:
            more = (front,) if kind is Prune else ()
            outcomes |= yield from program(asked[kind], now, *more)
    yield _COMMIT
    return tuple([outcomes[i] for i in range(len(ops))])


# -- what leaves together --------------------------------------------------------------


def _leaves_together(asked: dict[type, list[tuple[int, Any]]]) -> bool:
    """Say whether no statement of the batch has to know what one before it has found."""
    return asked.keys() <= _TOGETHER and (
        all(type(op.verdict) in _ENDS for _, op in asked.get(Settle, ()))
        and all(op.known is None for _, op in asked.get(Reserve, ()))
        and not any(
            op.may_exist or any(task.delay_ms or task.run_at_ms is not None for task in op.tasks)
            for _, op in asked.get(Enqueue, ())
        )
    )


def _together(
    asked: dict[type, list[tuple[int, Any]]], schema: str, front: Front
) -> Program[dict[int, Outcome] | None]:
    """Send all of it at once; return None if it is to be done one by one: an id may be taken.

    New tasks alone take their COMMIT along: nothing is to be decided upon before it.
    """
    settles, reserves = asked.get(Settle, []), asked.get(Reserve, [])
    changes = _changes(settles)
    new = [task for _, op in asked.get(Enqueue, ()) for task in op.tasks]
    enqueues = [Query(sql.ENQUEUE_NEW, _columns_of_new(new))] if new else []
    places = [front.of(op.queues[0]) if len(op.queues) == 1 else None for _, op in reserves]
    nexts = [_next_of(op, op.limit, place=it) for (_, op), it in zip(reserves, places, strict=True)]
    begin = (Query(sql.BEGIN_ALONE), Query(sql.LOOK_UP))
    if asked.keys() == {Enqueue}:
        alone = yield Together((*begin, *enqueues, Query(sql.COMMIT)), commits=True)
        return {i: ENQUEUED for i, _ in asked[Enqueue]} if alone else None
    answers = yield Together((*begin, *changes, *enqueues, *nexts))
    if not answers:
        return None
    (now, version, *_) = answers[1][0]
    refuse_newer(version, schema)
    applied = sum(rows[0][0] for rows in answers[2 : 2 + len(changes)])
    outcomes: dict[int, Outcome] = {i: ENQUEUED for i, _ in asked.get(Enqueue, ())}
    if settles:
        outcomes |= yield from _settled(settles, applied)
    its = zip(reserves, places, answers[len(answers) - len(reserves) :], strict=True)
    for (i, op), place, rows in its:
        given = yield from _all_given(op, _given(rows), now, place)
        _note(op, given, front)
        outcomes[i] = yield from _reserved(op, given, now)
    yield _COMMIT
    return outcomes


def _reserve_alone(op: Reserve, schema: str, front: Front) -> Program[Outcome | None]:
    """Send it with its COMMIT; return None if it is to be done one by one.

    Whether it was committed may not be known then; a worker asks again with what it has (`known`).
    """
    asks = sql.BEGIN_ALONE, sql.LOOK_UP, _next_of(op, op.limit), sql.COMMIT
    queries = tuple([ask if isinstance(ask, Query) else Query(ask) for ask in asks])
    answers = yield Together(queries, commits=True)
    if not answers:
        return None
    (now, version, *_) = answers[1][0]
    refuse_newer(version, schema)
    given = _given(answers[2])
    if given.waits_for_promotion(now):
        return None  # and nothing was given yet
    _note(op, given, front)
    outcome, damaged = _given_out(op, given, now)
    if damaged:
        yield Query(sql.BEGIN)
        yield from _settle(damaged, now)
        yield _COMMIT
    return outcome


def _columns_of_new(new: Sequence[NewTask]) -> tuple[Any, ...]:
    return (
        Texts([task.id for task in new]),
        Texts([task.queue for task in new]),
        Texts([task.name for task in new]),
        Ints([task.priority for task in new]),
        Blobs([task.payload for task in new]),
        Texts([dump_policy(task.policy) for task in new]),
        Ints([task.policy.max_crashes for task in new]),
    )


_TOGETHER: Final[frozenset[type]] = frozenset({Settle, Enqueue, Reserve})
# What has ended is in no queue any more: no reserve of this batch can take it, before it is looked
# up how a task stands whose verdict was refused.
_ENDS: Final[frozenset[type]] = frozenset({Completed, Failed, Aborted})

# -- enqueue and cancel ----------------------------------------------------------------


def enqueue(enqueues: list[tuple[int, Enqueue]], now: int) -> Program[dict[int, Outcome]]:
    while True:
        known: dict[str, tuple[TaskState, bytes]] = {}
        may_exist = [task.id for _, op in enqueues if op.may_exist for task in op.tasks]
        if may_exist:
            found = yield Query(sql.EXISTING, (Texts(may_exist),))
            known = {id_: (TaskState(state), payload) for id_, state, payload in found}
        outcomes, new = new_tasks(enqueues, known, now)
        if not new:
            return outcomes
        put = yield Query(sql.ENQUEUE, _columns(new, now))
        if len(put) == len(new):
            return outcomes
        # Somebody has taken one of the ids since we looked, or it was not looked for. By now it can
        # be seen: all is decided anew.
        yield Query(sql.TAKE_BACK, (Texts(id_ for (id_,) in put),))
        enqueues = [(i, op._replace(may_exist=True)) for i, op in enqueues]


def _columns(new: Sequence[NewTask], now: int) -> tuple[Any, ...]:
    begins = [when(task, now) for task in new]
    return (
        Texts(task.id for task in new),
        Texts(task.queue for task in new),
        Texts(task.name for task in new),
        Texts(state for state, _ in begins),
        Ints(task.priority for task in new),
        Ints(run_at_ms for _, run_at_ms in begins),
        Ints([now] * len(new)),
        Blobs(task.payload for task in new),
        Texts(dump_policy(task.policy) for task in new),
        Ints(task.policy.max_crashes for task in new),
    )


def _cancel(cancels: list[tuple[int, Cancel]], now: int) -> Program[dict[int, Outcome]]:
    rows = yield Query(sql.FIND, (Texts(sorted({op.task_id for _, op in cancels})),))
    found = {id_: (TaskState(state), TaskKey(seq, token), w) for id_, seq, token, state, w in rows}
    waiting = [id_ for id_, (was, *_) in found.items() if advance(was, Move.CANCEL) is not None]
    running = [id_ for id_, (was, *_) in found.items() if was is TaskState.RUNNING]
    if waiting:
        yield Query(sql.CANCEL, (now, Texts(waiting)))
    if running:
        yield Query(sql.ASK_TO_STOP, (Texts(running),))
    outcomes: dict[int, Outcome] = {}
    for i, op in cancels:
        was, key, holder = found.get(op.task_id, (None, None, None))
        if was is TaskState.RUNNING:
            outcomes[i] = Cancelled(was, holder, key)
        else:
            outcomes[i] = Cancelled(was)
            if op.task_id in waiting:  # who asks for it again comes after that
                found[op.task_id] = (TaskState.CANCELLED, TaskKey(0, 0), None)
    return outcomes


# -- reserve ---------------------------------------------------------------------------


class _Given(NamedTuple):
    """What a reserve found: whether the worker is there, when the next task is due, and tasks.

    They come in turn.
    """

    registered: bool
    due_at: int | None
    rows: list[Row]

    def waits_for_promotion(self, now: int) -> bool:
        return self.registered and self.due_at is not None and self.due_at <= now

    def beside(self, rows: Sequence[Row]) -> "_Given":
        """Return the same with *rows* as well."""
        return self._replace(rows=in_turn([*self.rows, *rows])) if rows else self


def _reserve(reserves: list[tuple[int, Reserve]], now: int) -> Program[dict[int, Outcome]]:
    outcomes: dict[int, Outcome] = {}
    for i, op in reserves:
        outcomes[i] = yield from _reserve_one(op, now)
    return outcomes


def _reserve_one(op: Reserve, now: int) -> Program[Outcome]:
    forgotten: Sequence[Row] = ()
    if op.known is not None:
        yield Query(sql.WAIT_FOR_WORKER, (op.worker_id,))
        known = Ints(op.known)
        forgotten = yield Query(sql.FORGOTTEN, (op.worker_id, known, op.limit))
    rest = op._replace(limit=op.limit - len(forgotten))
    given = yield from _all_given(rest, _given((yield _next_of(op, rest.limit))), now, None)
    return (yield from _reserved(op, given.beside(forgotten), now))


def _all_given(op: Reserve, given: _Given, now: int, place: Place | None) -> Program[_Given]:
    """Return what is given once what has become due is there, and what is before *place*."""
    if given.waits_for_promotion(now):
        yield Query(sql.PROMOTE, (Texts(op.queues), now))
        return _given((yield _next_of(op, op.limit, promoted=True)))
    if place is not None and given.registered and len(given.rows) < op.limit:
        before = yield _next_of(op, op.limit - len(given.rows))
        return given.beside(_given(before).rows)
    return given


def _note(op: Reserve, given: _Given, front: Front) -> None:
    if len(op.queues) == 1:
        front.gave(op.queues[0], given.rows, op.limit)


def _reserved(op: Reserve, given: _Given, now: int) -> Program[Outcome]:
    outcome, damaged = _given_out(op, given, now)
    if damaged:
        yield from _settle(damaged, now)
    return outcome


def _given_out(op: Reserve, given: _Given, now: int) -> tuple[Outcome, list[tuple[int, Settle]]]:
    """Return what the worker is told, and how those are put aside that it is not given."""
    if not given.registered:
        return Unregistered(), []
    tasks, damaged = reservations(given.rows, op.worker_id)
    if given.due_at is None or len(given.rows) == op.limit:
        return Reserved(tasks), damaged
    return Reserved(tasks, max(0, given.due_at - now) / 1000), damaged


def _next_of(
    op: Reserve, limit: int, *, promoted: bool = False, place: Place | None = None
) -> Query:
    about = op.worker_id, Texts(op.queues), limit, promoted
    if place is not None:
        return Query(sql.RESERVE_FROM_THERE, (*about, *place))
    return Query(sql.RESERVE if len(op.queues) == 1 else sql.RESERVE_FROM_SEVERAL, about)


def _given(rows: Sequence[Row]) -> _Given:
    registered, due_at, *_ = rows[0]
    given = in_turn([row[2:] for row in rows if row[2] is not None])
    return _Given(registered, due_at, given)


# -- settle ----------------------------------------------------------------------------


def _settle(settles: list[tuple[int, Settle]], now: int) -> Program[dict[int, Outcome]]:  # noqa: ARG001
    applied = 0
    for change in _changes(settles):
        ((changed,),) = yield change
        applied += changed
    return (yield from _settled(settles, applied))


def _changes(settles: list[tuple[int, Settle]]) -> list[Query]:
    """Return the statements that make all of the changes; each returns how many it has made."""
    changes: dict[str, list[tuple[Settle, tuple[Any, ...]]]] = {}
    for _, op in settles:
        for statement, values in _verdict_changes(op):
            changes.setdefault(statement, []).append((op, values))
    queries = []
    for statement, each in changes.items():
        each.sort(key=_id_of)
        ops = [op for op, _ in each]
        kinds = _COLUMNS.get(statement, ())
        columns = zip(kinds, zip(*(values for _, values in each), strict=True), strict=True)
        params = (
            Texts([op.task_id for op in ops]),
            Ints([op.key.seq for op in ops]),
            Ints([op.key.token for op in ops]),
            Texts([op.worker_id for op in ops]),
            *(kind(column) for kind, column in columns),
        )
        queries.append(Query(statement, params))
    return queries


def _settled(settles: list[tuple[int, Settle]], applied: int) -> Program[dict[int, Outcome]]:
    if applied == len(settles):
        return {i: Settled(True) for i, _ in settles}
    # Some were refused. One that stands as it was left under this very token had been applied
    # before, and its answer lost; all else belongs to another by now.
    found = yield Query(sql.STANDING, (Texts(op.task_id for _, op in settles),))
    standing = {(seq, token) for seq, token, state in found if state != TaskState.RUNNING}
    return {i: Settled(op.key in standing) for i, op in settles}


def _id_of(change: tuple[Settle, tuple[Any, ...]]) -> str:
    return change[0].task_id


_COLUMNS: Final[dict[str, tuple[type[Ints] | type[Texts] | type[Blobs], ...]]] = {
    sql.COMPLETE: (Blobs,),
    sql.FAIL: (Texts, Texts, Texts, Texts),
    sql.RETRY: (Ints, Texts, Texts, Texts),
    sql.PARK: (Texts, Texts),
}


def _verdict_changes(op: Settle) -> list[tuple[str, tuple[Any, ...]]]:
    match op.verdict:
        case Completed(value):
            return [(sql.COMPLETE, (value,))]
        case Failed(failure):
            error = (failure.error, failure.error_type, failure.traceback, failure.reason)
            return [(sql.FAIL, error)]
        case Aborted():
            return [(sql.ABORT, ())]
        case RetryIn(delay, failure):
            again = (ms(delay), failure.error, failure.error_type, failure.traceback)
            return [(sql.ABORT_IF_ASKED, ()), (sql.RETRY, again)]
        case Released():
            return [(sql.ABORT_IF_ASKED, ()), (sql.RELEASE, ())]
        case Parked(stamp, text):
            return [(sql.ABORT_IF_ASKED, ()), (sql.PARK, (stamp, text))]
        case _:
            assert_never(op.verdict)


# -- upkeep and reading ----------------------------------------------------------------


def _unpark(unparks: list[tuple[int, Unpark]], now: int) -> Program[dict[int, Outcome]]:  # noqa: ARG001
    outcomes: dict[int, Outcome] = {}
    for i, op in unparks:
        ((count,),) = yield Query(sql.UNPARK, (Texts(op.stamps),))
        outcomes[i] = Unparked(count)
    return outcomes


def _prune(prunes: list[tuple[int, Prune]], now: int, front: Front) -> Program[dict[int, Outcome]]:
    outcomes: dict[int, Outcome] = {}
    for i, op in prunes:
        about = front.pruned_to, now - ms(op.older_than), op.limit
        ((count, latest),) = yield Query(sql.PRUNE, about)
        front.pruned_to = latest if count == op.limit else BEGINNING
        outcomes[i] = Pruned(count)
    return outcomes


def _count(counts: list[tuple[int, Count]], now: int) -> Program[dict[int, Outcome]]:  # noqa: ARG001
    rows = yield Query(sql.COUNT)
    counted = Counted(tuple((queue, TaskState(state), n) for queue, state, n in rows))
    return {i: counted for i, _ in counts}


def _fetch(fetches: list[tuple[int, Fetch]], now: int) -> Program[dict[int, Outcome]]:  # noqa: ARG001
    asked = sorted({task_id for _, op in fetches for task_id in op.task_ids})
    rows = yield Query(sql.FETCH, (Texts(asked),))
    found = {row[0]: task_row(row) for row in rows}
    return {
        i: Fetched({task_id: found[task_id] for task_id in op.task_ids if task_id in found})
        for i, op in fetches
    }


# What frees comes before what takes, and what looks comes last.
_IN_ORDER: Final[Sequence[tuple[type, Any]]] = (
    (Settle, _settle),
    (Retire, workers.retire),
    (Register, workers.register),
    (Renew, workers.renew),
    (Rescue, workers.rescue),
    (Unpark, _unpark),
    (Prune, _prune),
    (Enqueue, enqueue),
    (Cancel, _cancel),
    (Reserve, _reserve),
    (Watch, workers.watch),
    (Count, _count),
    (Fetch, _fetch),
)
READS: Final[frozenset[type]] = frozenset({Watch, Fetch, Count})
"""A batch of these alone writes nothing."""
_COMMIT: Final = Commit()
