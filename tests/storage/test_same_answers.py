"""The SQL and the model give the same answers, whatever is asked, in whatever order.

Times, ids and workers are few, so that tokens go stale, ids clash and leases run out.
"""

from typing import ClassVar

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sitq.protocol.ops import (
    Aborted,
    Cancel,
    Completed,
    Count,
    Enqueue,
    Failed,
    Failure,
    Fetch,
    Moment,
    NewTask,
    Parked,
    Prune,
    Register,
    Released,
    Renew,
    Rescue,
    Reserve,
    Reserved,
    Retire,
    RetryIn,
    RetryPolicy,
    Settle,
    TaskKey,
    TaskPolicy,
    Unpark,
    Watch,
)
from tests.storage.on_postgres import Postgres
from tests.storage.runs import NOW, InMemory, Sql, later

IDS = [f"t{n}" for n in range(12)]
WORKERS = st.sampled_from(["w1", "w2", "w3"])
QUEUES = st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "a")])
SECONDS = st.sampled_from([0.0, 0.5, 10.0, 60.0])
FAILURES = st.sampled_from([Failure("e", "E"), Failure("f", "F", "trace", "timeout")])
VERDICTS = st.one_of(
    st.builds(Completed, st.binary(max_size=3)),
    st.builds(Failed, FAILURES),
    st.builds(RetryIn, SECONDS, FAILURES),
    st.just(Released()),
    st.builds(Parked, st.sampled_from(["x", "y"]), st.just("cannot read")),
    st.just(Aborted()),
)
NEW = st.builds(
    NewTask,
    id=st.sampled_from(IDS),
    payload=st.sampled_from([b"p", b"q"]),
    name=st.just("f"),
    queue=st.sampled_from(["a", "b"]),
    priority=st.integers(-1, 1),
    run_at_ms=st.sampled_from([None, NOW.wall_ms, NOW.wall_ms + 30_000]),
    delay_ms=st.sampled_from([0, 0, 500, 10_000]),
    policy=st.sampled_from(
        [
            TaskPolicy(),
            TaskPolicy(timeout=3.0, retry=RetryPolicy(attempts=2), max_crashes=1),
            TaskPolicy(max_crashes=2),
        ]
    ),
)
OTHERS = st.one_of(
    st.builds(Enqueue, st.lists(NEW, min_size=1, max_size=3).map(tuple), st.just(True)),
    st.builds(Reserve, WORKERS, QUEUES, st.integers(1, 4), st.none()),
    st.builds(
        Reserve,
        WORKERS,
        QUEUES,
        st.integers(1, 4),
        st.lists(st.integers(1, 12), max_size=4, unique=True).map(tuple),
    ),
    st.builds(Cancel, st.sampled_from(IDS)),
    st.builds(
        Register,
        WORKERS,
        st.just("h"),
        st.just(1),
        QUEUES,
        st.just(1),
        st.sampled_from([5.0, 60.0]),
    ),
    st.builds(Renew, WORKERS, st.just(5.0)),
    st.builds(Retire, WORKERS),
    st.builds(Rescue, st.lists(WORKERS, max_size=2, unique=True).map(tuple)),
    st.builds(Unpark, st.sampled_from([("x",), ("x", "y"), ()])),
    st.builds(Prune, SECONDS, st.integers(1, 3)),
    st.builds(Watch, WORKERS),
    st.just(Count()),
)


class SameAnswers(RuleBasedStateMachine):
    boots = True

    def __init__(self) -> None:
        super().__init__()
        self.sql, self.model = self.fresh(), InMemory()
        self.now: Moment = NOW
        self.given: list[tuple[TaskKey, str, str]] = []

    def fresh(self):
        return Sql()

    def ask(self, ops) -> None:
        answers = self.sql.apply(ops, self.now)
        assert self.model.apply(ops, self.now) == answers
        for op, answer in zip(ops, answers, strict=True):
            if isinstance(answer, Reserved):
                given = [(task.key, task.id, op.worker_id) for task in answer.tasks]
                again = [task for task in given if op.known is not None and task in self.given]
                assert not [key for key, _, _ in again if key.seq in op.known]
                self.given += [task for task in given if task not in again]
        assert len({key for key, _, _ in self.given}) == len(self.given), "a token given twice"

    @rule(ops=st.lists(OTHERS, min_size=1, max_size=4))
    def ops_are_asked(self, ops) -> None:
        self.ask(ops)

    @rule(worker_id=WORKERS, limit=st.integers(1, 4))
    def a_worker_comes_for_tasks(self, worker_id, limit) -> None:
        self.ask([Register(worker_id, "h", 1, ("a", "b"), 4, 60.0)])
        self.ask([Reserve(worker_id, ("a", "b"), limit)])

    @rule(data=st.data(), count=st.integers(1, 3))
    def attempts_are_settled(self, data, count) -> None:
        """Of now and of long ago, by their holder or by another, some of them again."""
        if not self.given:
            return
        settles = []
        for _ in range(count):
            key, task_id, holder = data.draw(st.sampled_from(self.given))
            worker_id = data.draw(st.sampled_from([holder, holder, holder, "w1"]))
            if key in [settle.key for settle in settles]:
                continue  # an attempt ends once in a batch
            settles.append(Settle(key, task_id, worker_id, data.draw(VERDICTS)))
        self.ask(settles)

    @rule(passed=SECONDS, boots=st.sampled_from(["boot", "boot", "boot", "next boot"]))
    def time_passes(self, passed, boots) -> None:
        self.now = later(passed, self.now, boots if self.boots else None)

    @invariant()
    def all_tasks_stand_alike(self) -> None:
        self.ask([Fetch(tuple(IDS)), Count(), *(Watch(f"w{n}") for n in (1, 2, 3))])

    def teardown(self) -> None:
        self.sql.close()


class SameOnPostgres(SameAnswers):
    """Its host may be another one, and its server has one clock: no boot is looked at."""

    boots = False
    opened: ClassVar[Postgres]

    def fresh(self):
        self.opened.empty()
        return self.opened

    def teardown(self) -> None:
        """The next example goes on with it."""


TestSameAnswers = SameAnswers.TestCase
TestSameAnswers.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


class TestSameOnPostgres(SameOnPostgres.TestCase):
    settings = settings(max_examples=40, stateful_step_count=20, deadline=None)

    @pytest.fixture(autouse=True)
    def _server(self, postgres):
        SameOnPostgres.opened = postgres
