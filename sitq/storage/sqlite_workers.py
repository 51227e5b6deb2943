"""What workers ask of SQLite about themselves and each other: their rows, and who is dead.

As everywhere, what is judged is judged in the transaction that acts on it.
"""

import json

from sitq.protocol.ops import (
    Moment,
    Outcome,
    Register,
    Registered,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Retire,
    Retired,
    TaskKey,
    Unregistered,
    Watch,
    Watched,
)
from sitq.storage import sqlite_statements as sql
from sitq.storage.program import Change, Program, Query
from sitq.storage.sql import ms


def register(op: Register, now: Moment) -> Program[Outcome]:
    row = (
        op.worker_id,
        op.host,
        op.pid,
        json.dumps(op.queues),
        op.max_concurrency,
        now.epoch,
        now.lease_ms + ms(op.lease_for),
        now.wall_ms,
    )
    yield Change(sql.REGISTER, [row])
    return Registered()


def renew(op: Renew, now: Moment) -> Program[Outcome]:
    row = (now.epoch, now.lease_ms + ms(op.lease_for), op.worker_id)
    ((changed,),) = yield Change(sql.RENEW, [row])
    return Renewed() if changed else Unregistered()


def rescue(op: Rescue, now: Moment) -> Program[Outcome]:
    dead = yield Query(sql.DEAD, (json.dumps(op.worker_ids), now.epoch, now.lease_ms))
    tasks = 0
    for worker_id, host, pid in dead:
        for statement, row in (
            (sql.RESCUE_ABORT, (now.wall_ms, worker_id)),
            (sql.RESCUE_FAIL, (now.wall_ms, pid, host, worker_id)),
            (sql.RESCUE, (worker_id,)),
        ):
            ((changed,),) = yield Change(statement, [row])
            tasks += changed
        yield Change(sql.FORGET_WORKER, [(worker_id,)])
    return Rescued(tuple(worker_id for worker_id, _, _ in dead), tasks)


def retire(op: Retire, now: Moment) -> Program[Outcome]:
    yield Change(sql.RETIRE_ABORT, [(now.wall_ms, op.worker_id)])
    ((released,),) = yield Change(sql.RETIRE_RELEASE, [(op.worker_id,)])
    yield Change(sql.FORGET_WORKER, [(op.worker_id,)])
    return Retired(released)


def watch(op: Watch, now: Moment) -> Program[Outcome]:
    peers = yield Query(sql.PEERS, (now.epoch, now.lease_ms, op.worker_id))
    asked = yield Query(sql.ASKED_TO_STOP, (op.worker_id,))
    return Watched(
        peers=tuple(worker_id for worker_id, _ in peers),
        expired=any(expired for _, expired in peers),
        cancelled=tuple(TaskKey(seq, token) for seq, token in asked),
    )
