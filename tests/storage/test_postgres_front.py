"""Who takes many tasks from a queue on Postgres looks from where the last ones were, and misses none."""

from itertools import pairwise

import pytest

from sitq.protocol.ops import (
    Completed,
    Enqueue,
    Prune,
    Pruned,
    Released,
    Reserve,
    Reserved,
    Settle,
    Settled,
    Unregistered,
)
from sitq.storage import postgres_front
from sitq.storage.postgres import apply_batch
from sitq.storage.postgres_front import BEGINNING, LOOK_AGAIN_AFTER, MANY, Front, Place
from sitq.storage.postgres_statements import RESERVE_FROM_THERE
from sitq.storage.program import Together
from tests.storage.runs import NOW, later, new_task, register

A_BATCH = 300


def row(seq, priority=0) -> tuple:
    return (seq, 1, "id", "f", b"", 1, "", 3, priority, 0)


def batch(first, count=A_BATCH, priority=0) -> list[tuple]:
    return [row(first + n, priority) for n in range(count)]


# -- where to look ---------------------------------------------------------------------


def test_it_is_looked_from_the_beginning_until_many_were_taken() -> None:
    front = Front()
    for taken in range(0, MANY, A_BATCH):
        assert front.of("mail") is None, taken
        front.gave("mail", batch(taken), A_BATCH)
    assert front.of("mail") == Place(0, taken)
    front.gave("mail", batch(5000), A_BATCH)
    assert front.of("mail") == Place(0, 5000)
    assert front.of("other") is None


def test_it_is_looked_from_the_beginning_again_and_again() -> None:
    front = Front()
    looks = []
    for taken in range(0, 3 * LOOK_AGAIN_AFTER, A_BATCH):
        if front.of("mail") is None:
            looks.append(taken)
        front.gave("mail", batch(taken), A_BATCH)
    again = [taken for taken in looks if taken >= MANY + A_BATCH]
    assert len(again) == 3
    assert all(b - a <= LOOK_AGAIN_AFTER for a, b in pairwise(again))


def test_the_place_is_that_of_the_priority_which_is_given_out_at_last() -> None:
    front = Front()
    front.gave("mail", [*batch(7000, 10, priority=5), *batch(100, MANY)], MANY + 10)
    assert front.of("mail") == Place(0, 100)
    front.gave("mail", batch(7100, 10, priority=5), 10)
    assert front.of("mail") == Place(5, 7100)


@pytest.mark.parametrize("last", [[], batch(9000, A_BATCH - 1)], ids=["none", "few"])
def test_where_a_queue_runs_out_all_begins_anew(last) -> None:
    front = Front()
    for queue in ("mail", "other"):
        front.gave(queue, batch(0, MANY), MANY)
    front.gave("mail", last, A_BATCH)
    assert front.of("mail") is None
    assert front.of("other") == Place(0, 0)
    front.gave("mail", batch(0), A_BATCH)
    assert front.of("mail") is None


def test_all_is_forgotten_where_nobody_knows_what_was_given() -> None:
    front = Front()
    front.gave("mail", batch(0, MANY), MANY)
    front.forget_all()
    front.gave("mail", batch(0), A_BATCH)
    assert front.of("mail") is None


# -- what is found there ---------------------------------------------------------------


@pytest.fixture
def early(monkeypatch):
    """Two tasks are many, and after twelve it is looked again."""
    monkeypatch.setattr(postgres_front, "MANY", 2)
    monkeypatch.setattr(postgres_front, "LOOK_AGAIN_AFTER", 12)


class Worker:
    """One that settles what it has and takes two more, in one batch; *sent* is what was sent."""

    def __init__(self, store) -> None:
        self.store = store
        self.front = Front()
        self.held = []
        self.back = None  # what it still has when others are given out
        self.sent = []
        store.apply([register()])

    def takes(self, limit=2, reserves=1) -> list[str]:
        ops = [Settle(task.key, task.id, "w", Completed(b"")) for task in self.held]
        ops = ops or [Enqueue((new_task("along", priority=-99),))]
        ops += [Reserve("w", ("default",), limit)] * reserves
        outcomes = self.store.run(self._noted(apply_batch(ops, "sitq", self.front)), NOW)
        assert all(outcome == Settled(True) for outcome in outcomes[: len(self.held)])
        reserved = [outcome for outcome in outcomes if isinstance(outcome, Reserved)]
        self.held = [task for outcome in reserved for task in outcome.tasks]
        return [task.id for task in self.held if task.id != "along"]

    def _noted(self, program):
        rows = None
        while True:
            try:
                step = program.send(rows)
            except StopIteration as stop:
                return stop.value
            self.sent += step.queries if isinstance(step, Together) else [step]
            rows = yield step

    def looked_from_there(self) -> int:
        """How often since the last time."""
        count = sum(getattr(step, "sql", "") == RESERVE_FROM_THERE for step in self.sent)
        self.sent.clear()
        return count


def enqueue(store, *ids, **options) -> None:
    store.apply([Enqueue(tuple(new_task(id_, **options) for id_ in ids))])


@pytest.fixture
def worker(postgres, early):
    enqueue(postgres, *[f"{n:02}" for n in range(40)])
    worker = Worker(postgres)
    assert worker.takes() == ["00", "01"]
    worker.back = worker.held.pop(0)
    assert worker.looked_from_there() == 0
    assert worker.takes() == ["02", "03"]
    assert worker.looked_from_there() == 1
    return worker


def test_all_are_given_out_in_order(worker) -> None:
    given = []
    while len(given) < 36:
        given += worker.takes()
    assert given == [f"{n:02}" for n in range(4, 40)]
    assert 10 <= worker.looked_from_there() < 18


def test_what_is_more_urgent_comes_first_and_what_is_less_so_at_last(worker, postgres) -> None:
    enqueue(postgres, "later", "too", priority=-1)
    enqueue(postgres, "now", "now as well", "and now", priority=7)
    assert worker.takes() == ["now", "now as well"]
    assert worker.takes() == ["and now", "04"]
    given = []
    while len(given) < 37:
        given += worker.takes()
    assert given == [*[f"{n:02}" for n in range(5, 40)], "later", "too"]


def test_what_comes_back_is_given_at_the_latest_when_it_is_looked_again(worker, postgres) -> None:
    back = worker.back
    postgres.apply([Settle(back.key, back.id, "w", Released())])
    given = []
    while back.id not in given:
        given += worker.takes()
    assert len(given) <= postgres_front.LOOK_AGAIN_AFTER
    assert [id_ for id_ in given if id_ != back.id] == sorted({*given} - {back.id})


def test_what_comes_back_is_given_when_all_else_is(worker, postgres, monkeypatch) -> None:
    monkeypatch.setattr(postgres_front, "LOOK_AGAIN_AFTER", 1000)
    back = worker.back
    postgres.apply([Settle(back.key, back.id, "w", Released())])
    assert worker.takes(limit=34) == [f"{n:02}" for n in range(4, 38)]
    worker.sent.clear()
    assert worker.takes(limit=9) == [back.id, "38", "39"]
    assert worker.looked_from_there() == 1
    assert worker.takes() == []
    assert worker.looked_from_there() == 0


def test_two_that_reserve_in_one_batch_are_given_different_tasks(worker) -> None:
    assert worker.takes(reserves=2) == ["04", "05", "06", "07"]
    assert worker.looked_from_there() == 2
    assert worker.takes(limit=20, reserves=2) == [f"{n:02}" for n in range(8, 40)]


def test_what_has_become_due_is_found(worker, postgres) -> None:
    enqueue(postgres, "due", delay_ms=1000, priority=1)
    ops = [Enqueue((new_task("x"),)), Reserve("w", ("default",), 2)]
    (_, reserved) = postgres.run(apply_batch(ops, "sitq", worker.front), later(2.0))
    assert [task.id for task in reserved.tasks] == ["due", "04"]


def test_a_worker_that_is_gone_is_told_so(worker, postgres) -> None:
    ops = [Enqueue((new_task("x"),)), Reserve("another", ("default",), 2)]
    (_, outcome) = postgres.run(apply_batch(ops, "sitq", worker.front), NOW)
    assert outcome == Unregistered()
    assert worker.front.of("default") is None


def test_who_reserves_and_nothing_else_looks_from_the_beginning(worker, postgres) -> None:
    back = worker.back
    postgres.apply([Settle(back.key, back.id, "w", Released())])
    reserve = Reserve("w", ("default",), 2)
    (reserved,) = postgres.run(apply_batch([reserve], "sitq", worker.front), NOW)
    assert [task.id for task in reserved.tasks] == [back.id, "04"]


# -- what is forgotten -----------------------------------------------------------------


def ended(postgres, first, count, at) -> None:
    ids = [f"{n:03}" for n in range(first, first + count)]
    enqueue(postgres, *ids)
    for n, id_ in enumerate(ids):
        postgres.ask(
            "UPDATE sitq.tasks SET state = 'success', finished_ms = $2 WHERE id = $1", (id_, at + n)
        )


def test_those_that_have_ended_are_forgotten_from_where_the_last_ones_were(postgres) -> None:
    ended(postgres, 0, 25, at=1000)
    enqueue(postgres, "the last one stays")
    front = Front()
    found = []
    for _ in range(3):
        found += postgres.run(apply_batch([Prune(0.0, 10)], "sitq", front), NOW)
        found.append(front.pruned_to)
    assert found == [Pruned(10), 1009, Pruned(10), 1019, Pruned(5), BEGINNING]


def test_one_that_ended_before_those_is_forgotten_the_next_time(postgres) -> None:
    ended(postgres, 0, 20, at=1000)
    enqueue(postgres, "the last one stays")
    front = Front()
    postgres.run(apply_batch([Prune(0.0, 10)], "sitq", front), NOW)
    ended(postgres, 20, 1, at=500)  # a clock was set back
    enqueue(postgres, "this one stays as well")
    assert postgres.run(apply_batch([Prune(0.0, 11)], "sitq", front), NOW) == (Pruned(10),)
    assert postgres.run(apply_batch([Prune(0.0, 11)], "sitq", front), NOW) == (Pruned(1),)


def test_what_is_not_known_to_be_forgotten_is_looked_for_again() -> None:
    front = Front()
    front.pruned_to = 7
    front.forget_all()
    assert front.pruned_to == BEGINNING
