"""Many workers in threads at one database, dying and rescued at random: what must hold, holds."""

import threading
from random import Random

import pytest

from sitq import PostgresBackend
from sitq.adapters.postgres import block
from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import (
    Cancel,
    Completed,
    Count,
    Enqueue,
    Failed,
    Failure,
    Fetch,
    Released,
    Renew,
    Rescue,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    Settle,
    TaskPolicy,
)
from sitq.storage.postgres_schema import SUSPECT
from sitq.testing.conformance.asked import new_task, register

TASKS = 300
WORKERS = 6
QUEUES = ("default", "other")
BOOM = Failure("boom", "E")
TWO_SUSPECTS = f"""
    SELECT worker_id, array_agg(id) FROM sitq.tasks WHERE state = 'running' AND {SUSPECT}
    GROUP BY worker_id HAVING count(*) > 1
"""


class Crowd:
    """What all threads share: what they were told."""

    def __init__(self, backend) -> None:
        self.backend = backend
        self.lock = threading.Lock()
        self.given: dict[tuple, str] = {}  # who was given an attempt
        self.ended: dict[str, object] = {}  # the verdict that was applied to a task at last
        self.wrong: list[str] = []
        self.lives: list[str] = []

    def work(self, number: int, seed: int) -> None:
        dice = Random(seed)
        store = self.backend.open_store()
        try:
            life = 0
            while len(self.ended) < TASKS and not self.wrong:
                life += 1
                self.live(store, f"w{number}-{life}", dice)
        except BaseException as error:
            self.wrong.append(repr(error))
            raise
        finally:
            store.close()

    def live(self, store, worker_id: str, dice: Random) -> None:
        """One life: reserve and settle, until it is retired, or forgotten as if it had died."""
        store.apply([register(worker_id)])
        self.lives.append(worker_id)
        for _ in range(dice.randint(1, 6)):
            queues = dice.choice((QUEUES, QUEUES[:1], QUEUES[1:]))
            (got,) = store.apply([Reserve(worker_id, queues, dice.randint(1, 8))])
            if not isinstance(got, Reserved):
                return  # somebody has rescued its tasks
            with self.lock:
                for task in got.tasks:
                    before = self.given.setdefault(task.key, worker_id)
                    if before != worker_id:
                        self.wrong.append(f"{task.key} was given to {before} and {worker_id}")
            self.look_for_two_suspects(store)
            settles = [
                Settle(task.key, task.id, worker_id, self.verdict(dice)) for task in got.tasks
            ]
            dice.shuffle(settles)
            kept = settles[: dice.randint(0, len(settles))]
            for op, outcome in zip(kept, store.apply(kept), strict=True) if kept else ():
                if outcome.applied and isinstance(op.verdict, Completed | Failed):
                    with self.lock:
                        if op.task_id in self.ended:
                            self.wrong.append(f"{op.task_id} has ended twice")
                        self.ended[op.task_id] = op.verdict
            if dice.random() < 0.3:
                store.apply([Renew(worker_id, 60.0), Cancel(f"t{dice.randrange(TASKS)}")])
            if dice.random() < 0.3:
                store.apply([Rescue((dice.choice(self.lives),))])
        store.apply([Retire(worker_id) if dice.random() < 0.5 else Rescue((worker_id,))])
        self.count_what_else_has_ended(store)

    def verdict(self, dice: Random):
        return dice.choice(
            (Completed(b"v"), Completed(b"w"), Failed(BOOM), RetryIn(0.0, BOOM), Released())
        )

    def look_for_two_suspects(self, store) -> None:
        """No worker holds two tasks on their last chance: invariant S27."""
        talk = store._talk
        found = block(talk.connection.ask(TWO_SUSPECTS), talk.settings)
        if found:
            self.wrong.append(f"who holds two suspects: {found}")

    def count_what_else_has_ended(self, store) -> None:
        """Those that callers have cancelled, or that their workers' deaths have ended."""
        (fetched,) = store.apply([Fetch(tuple(f"t{n}" for n in range(TASKS)))])
        with self.lock:
            for row in fetched.rows.values():
                otherwise = row.state is S.CANCELLED or row.reason == "crash"
                if otherwise and self.ended.setdefault(row.id, "otherwise") != "otherwise":
                    self.wrong.append(f"{row.id} has ended twice")


@pytest.mark.parametrize("seed", range(2))
def test_no_attempt_is_given_twice_and_no_task_ends_twice(postgres_dsn, seed) -> None:
    backend = PostgresBackend(postgres_dsn, timeout=60.0)
    store = backend.open_store()
    tasks = tuple(
        new_task(
            f"t{n}", queue=QUEUES[n % 2], priority=n % 3, policy=TaskPolicy(max_crashes=2 + n % 2)
        )
        for n in range(TASKS)
    )
    store.apply([Enqueue(tasks)])
    crowd = Crowd(backend)
    threads = [
        threading.Thread(target=crowd.work, args=(n, 100 * seed + n)) for n in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert crowd.wrong == []
    assert not [thread for thread in threads if thread.is_alive()]
    (counted,) = store.apply([Count()])
    assert {state for _, state, _ in counted.rows} <= {S.SUCCESS, S.FAILED, S.CANCELLED}
    (fetched,) = store.apply([Fetch(tuple(crowd.ended))])
    for id_, verdict in crowd.ended.items():
        if isinstance(verdict, Completed):
            assert (fetched.rows[id_].state, fetched.rows[id_].value) == (S.SUCCESS, verdict.value)
    store.close()
