"""What workers ask of Postgres about themselves and each other: their rows, and who is dead.

As everywhere, what is judged is judged in the transaction that acts on it.
"""

from sitq.protocol.ops import (
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
from sitq.storage import postgres_statements as sql
from sitq.storage.postgres_arrays import Ints, Texts
from sitq.storage.program import Program, Query
from sitq.storage.sql import ms


def register(registers: list[tuple[int, Register]], now: int) -> Program[dict[int, Outcome]]:
    for _, op in registers:
        until = now + ms(op.lease_for)
        about = (op.worker_id, op.host, op.pid, Texts(op.queues), op.max_concurrency)
        yield Query(sql.REGISTER, (*about, until, now))
    return {i: Registered() for i, _ in registers}


def renew(renews: list[tuple[int, Renew]], now: int) -> Program[dict[int, Outcome]]:
    outcomes: dict[int, Outcome] = {}
    for i, op in renews:
        ((changed,),) = yield Query(sql.RENEW, (now + ms(op.lease_for), op.worker_id))
        outcomes[i] = Renewed() if changed else Unregistered()
    return outcomes


def rescue(rescues: list[tuple[int, Rescue]], now: int) -> Program[dict[int, Outcome]]:
    outcomes: dict[int, Outcome] = {}
    for i, op in rescues:
        outcomes[i] = yield from _rescue_one(op, now)
    return outcomes


def _rescue_one(op: Rescue, now: int) -> Program[Outcome]:
    dead = yield Query(sql.DEAD, (Texts(op.worker_ids), now))
    if not dead:
        return Rescued((), 0)
    ids = Texts(id_ for id_, _, _ in dead)
    where = Texts(host for _, host, _ in dead), Ints(pid for _, _, pid in dead)
    tasks = 0
    for statement, params in (
        (sql.RESCUE_ABORT, (now, ids)),
        (sql.RESCUE_FAIL, (now, ids, *where)),
        (sql.RESCUE, (ids,)),
    ):
        ((changed,),) = yield Query(statement, params)
        tasks += changed
    yield Query(sql.FORGET_WORKERS, (ids,))
    return Rescued(tuple(id_ for id_, _, _ in dead), tasks)


def retire(retires: list[tuple[int, Retire]], now: int) -> Program[dict[int, Outcome]]:
    outcomes: dict[int, Outcome] = {}
    for i, op in retires:
        own = Texts([op.worker_id])
        yield Query(sql.WAIT_FOR_WORKER, (op.worker_id,))
        yield Query(sql.RESCUE_ABORT, (now, own))
        ((released,),) = yield Query(sql.RETIRE_RELEASE, (own,))
        yield Query(sql.FORGET_WORKERS, (own,))
        outcomes[i] = Retired(released)
    return outcomes


def watch(watches: list[tuple[int, Watch]], now: int) -> Program[dict[int, Outcome]]:
    outcomes: dict[int, Outcome] = {}
    for i, op in watches:
        peers = yield Query(sql.PEERS, (now, op.worker_id))
        asked = yield Query(sql.ASKED_TO_STOP, (op.worker_id,))
        outcomes[i] = Watched(
            peers=tuple(worker_id for worker_id, _ in peers),
            expired=any(expired for _, expired in peers),
            cancelled=tuple(TaskKey(seq, token) for seq, token in asked),
        )
    return outcomes
