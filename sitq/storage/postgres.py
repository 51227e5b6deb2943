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
from typing import Any, Final

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
    Prune,
    Pruned,
    Register,
    Renew,
    Rescue,
    Reserve,
    Retire,
    Settle,
    TaskKey,
    Unpark,
    Unparked,
    Watch,
)
from sitq.storage import postgres_statements as sql, postgres_workers as workers
from sitq.storage.policy_column import dump_policy
from sitq.storage.postgres_arrays import Blobs, Ints, Texts
from sitq.storage.postgres_front import BEGINNING, Front
from sitq.storage.postgres_reserves import (
    all_given,
    as_given,
    given_out,
    next_of,
    note,
    reserve,
    reserved,
)
from sitq.storage.postgres_schema import refuse_newer
from sitq.storage.postgres_settles import changes_of, settle, settled
from sitq.storage.program import Commit, Program, Query, Together
from sitq.storage.sql import ENQUEUED, ms, new_tasks, task_row, when


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
    changes = changes_of(settles)
    new = [task for _, op in asked.get(Enqueue, ()) for task in op.tasks]
    enqueues = [Query(sql.ENQUEUE_NEW, _columns_of_new(new))] if new else []
    places = [front.of(op.queues[0]) if len(op.queues) == 1 else None for _, op in reserves]
    nexts = [next_of(op, op.limit, place=it) for (_, op), it in zip(reserves, places, strict=True)]
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
        outcomes |= yield from settled(settles, applied)
    its = zip(reserves, places, answers[len(answers) - len(reserves) :], strict=True)
    for (i, op), place, rows in its:
        given = yield from all_given(op, as_given(rows), now, place)
        note(op, given, front)
        outcomes[i] = yield from reserved(op, given, now)
    yield _COMMIT
    return outcomes


def _reserve_alone(op: Reserve, schema: str, front: Front) -> Program[Outcome | None]:
    """Send it with its COMMIT; return None if it is to be done one by one.

    Whether it was committed may not be known then; a worker asks again with what it has (`known`).
    """
    asks = sql.BEGIN_ALONE, sql.LOOK_UP, next_of(op, op.limit), sql.COMMIT
    queries = tuple([ask if isinstance(ask, Query) else Query(ask) for ask in asks])
    answers = yield Together(queries, commits=True)
    if not answers:
        return None
    (now, version, *_) = answers[1][0]
    refuse_newer(version, schema)
    given = as_given(answers[2])
    if given.waits_for_promotion(now):
        return None  # and nothing was given yet
    note(op, given, front)
    outcome, damaged = given_out(op, given, now)
    if damaged:
        yield Query(sql.BEGIN)
        yield from settle(damaged, now)
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
    (Settle, settle),
    (Retire, workers.retire),
    (Register, workers.register),
    (Renew, workers.renew),
    (Rescue, workers.rescue),
    (Unpark, _unpark),
    (Prune, _prune),
    (Enqueue, enqueue),
    (Cancel, _cancel),
    (Reserve, reserve),
    (Watch, workers.watch),
    (Count, _count),
    (Fetch, _fetch),
)
READS: Final[frozenset[type]] = frozenset({Watch, Fetch, Count})
"""A batch of these alone writes nothing."""
_COMMIT: Final = Commit()
