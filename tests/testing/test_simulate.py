"""`simulate`: good scenarios pass, planted mistakes are found, and a seed tells the same story."""

import pickle

import anyio
import pytest

from sitq import EnqueueUnknown, Retry, StoreError, TaskCancelled, ValidationError, testing
from sitq.adapters.base import Store
from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import (
    Completed,
    Enqueue,
    Enqueued,
    Fetch,
    Fetched,
    NewTask,
    Reservation,
    Reserve,
    Reserved,
    Settle,
    Settled,
    TaskKey,
    TaskPolicy,
    TaskRow,
)
from sitq.testing import FAULTS, SimulationBroken, simulate
from sitq.testing.storms.promises import Promises

ORDERS = 8


async def surely(queue, function, *args, task_id: str):
    """Enqueue, whatever the store says: under an id of one's own it may be asked again."""
    while True:
        try:
            return await queue.using(task_id=task_id).enqueue(function, *args)
        except (StoreError, EnqueueUnknown):
            await anyio.sleep(1)


async def careful(queue) -> dict:
    """Each task writes what is, whoever has written it before."""
    paid: dict = {}

    async def pay(order: int) -> None:
        await anyio.sleep(2)
        paid[order] = 20

    for order in range(ORDERS):
        await surely(queue, pay, order, task_id=f"pay-{order}")
        await anyio.sleep(3)
    return paid


async def careless(queue) -> dict:
    """Two tasks that run side by side read the same sum, and one of the updates is lost."""
    till = {"euros": 0}

    async def take(euros: int) -> None:
        before = till["euros"]
        await anyio.sleep(2)
        till["euros"] = before + euros

    for order in range(ORDERS):
        await surely(queue, take, 20, task_id=f"take-{order}")
    return till


def all_are_paid(paid: dict, results: dict) -> None:
    assert paid == dict.fromkeys(range(ORDERS), 20)
    assert [result.status for result in results.values()] == ["success"] * ORDERS


def nothing_is_missing(till: dict, results: dict) -> None:
    assert till == {"euros": 20 * ORDERS}


# -- what is found ---------------------------------------------------------------------


def test_a_careful_scenario_survives_all_that_goes_wrong(loop) -> None:
    report = simulate(careful, seeds=20, check=all_are_paid, backend=loop)

    assert report.runs == 20
    assert report.lasted.total_seconds() > 20 * 20
    assert set(report.faults) == set(FAULTS)
    assert str(report).startswith("20 runs, 0.")


def test_a_lost_update_is_found_and_its_seed_is_named(loop) -> None:
    with pytest.raises(AssertionError) as raised:
        simulate(careless, seeds=20, check=nothing_is_missing, backend=loop)

    broken = raised.value
    assert f"the same again: simulate(careless, ..., seed={broken.seed})" in str(broken)
    assert str(broken).startswith(f"seed {broken.seed}: check raised AssertionError")
    assert isinstance(broken.__cause__, AssertionError)

    with pytest.raises(SimulationBroken) as again:
        simulate(careless, seed=broken.seed, check=nothing_is_missing, backend=loop)
    assert again.value.happened == broken.happened
    assert str(again.value) == str(broken)


def test_without_faults_only_the_mistakes_of_the_scenario_are_left(loop) -> None:
    async def one_by_one(queue) -> dict:
        till = {"euros": 0}

        async def take(euros: int) -> None:
            till["euros"] += euros
            await anyio.sleep(2)

        for _ in range(ORDERS):
            await queue.result(await queue.enqueue(take, 20))
        return till

    check = nothing_is_missing
    assert simulate(one_by_one, seeds=5, faults=(), check=check, backend=loop).faults.total() == 0
    with pytest.raises(
        SimulationBroken, match=r"running .*, was killed, and worker 4 took its place"
    ):
        simulate(one_by_one, seeds=50, faults=["kill"], check=check, backend=loop)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_happens_by_itself(fault) -> None:
    report = simulate(careful, seeds=8, faults=[fault], check=all_are_paid)

    assert report.faults.total() == report.faults[fault]
    assert report.faults[fault] > 0


def test_what_was_paused_runs_on_beside_its_successor() -> None:
    async def scenario(queue) -> list:
        times: list = []

        async def note() -> None:
            times.append(("began", testing.now()))
            await anyio.sleep(30)
            times.append(("ended", testing.now()))

        await queue.enqueue(note)
        return times

    def once(times: list, results: dict) -> None:
        assert len(times) == 2

    with pytest.raises(SimulationBroken, match="stood still for"):
        simulate(scenario, seeds=50, faults=["pause"], check=once)


def test_nothing_of_a_killed_worker_runs_on() -> None:
    async def scenario(queue) -> list:
        ends: list = []

        async def work() -> None:
            try:
                await anyio.sleep(40)
            finally:
                ends.append(testing.now())

        await queue.enqueue(work)
        return ends

    def ended_once(ends: list, results: dict) -> None:
        assert len(ends) == 1

    report = simulate(scenario, seeds=20, faults=["kill"], check=ended_once)
    assert report.faults["kill"] > 0


# -- what the scenario does ------------------------------------------------------------


def test_a_scenario_may_wait_cancel_and_retry(loop) -> None:
    async def scenario(queue) -> list:
        async def answer(n: int) -> int:
            await anyio.sleep(1)
            return n

        async def stuck() -> None:
            await anyio.sleep_forever()

        def fail() -> None:
            raise ConnectionError("no answer")

        one = await surely(queue, answer, 1, task_id="one")
        endless = await surely(queue, stuck, task_id="endless")
        patient = queue.using(retry=Retry(attempts=3, delay=2))
        failing = await surely(patient, fail, task_id="failing")
        await anyio.sleep(10)
        while True:
            try:
                await queue.cancel(endless)
                break
            except StoreError:
                await anyio.sleep(1)
        with pytest.raises(TaskCancelled):
            await queue.result(endless)
        return [await queue.result(one), (await queue.get_result(failing)).attempt]

    def check(returned: list, results: dict) -> None:
        assert returned == [1, 3]
        assert [result.status for result in results.values()] == ["success", "cancelled", "failed"]

    simulate(scenario, seeds=15, check=check, backend=loop)


def test_a_scenario_that_does_not_expect_a_refusal_is_told_what_to_do() -> None:
    async def naive(queue) -> None:
        for _ in range(100):
            await queue.enqueue(anyio.sleep, 0)

    with pytest.raises(SimulationBroken, match="ask again, under a task_id of your own") as raised:
        simulate(naive)
    assert isinstance(raised.value.__cause__, StoreError | EnqueueUnknown)


def test_the_workers_serve_the_queues_that_they_are_told_to() -> None:
    async def scenario(queue) -> None:
        await surely(queue.using(queue="mail"), anyio.sleep, 1, task_id="mail")

    simulate(scenario, queues=["default", "mail"], seeds=3)
    with pytest.raises(SimulationBroken, match="did not end"):
        simulate(scenario, seeds=1, limit=300)


def test_a_check_may_also_return_false() -> None:
    with pytest.raises(SimulationBroken, match="check returned False"):
        simulate(careful, seeds=1, check=lambda paid, results: False)
    simulate(careful, seeds=1, check=lambda paid, results: None)


def test_what_never_ends_is_told(loop) -> None:
    async def forgets_to_cancel(queue) -> None:
        await surely(queue, anyio.sleep, 10**6, task_id="long")

    async def waits_for_ever(queue) -> None:
        await anyio.sleep_forever()

    with pytest.raises(SimulationBroken, match=r"1 tasks did not end in the limit.*as long"):
        simulate(forgets_to_cancel, seeds=1, limit=300, backend=loop)
    with pytest.raises(SimulationBroken, match="the scenario did not come to its end"):
        simulate(waits_for_ever, seeds=1, limit=300, backend=loop)


def test_a_failure_can_be_carried_to_another_process() -> None:
    with pytest.raises(SimulationBroken) as raised:
        simulate(careless, check=nothing_is_missing)
    copy = pickle.loads(pickle.dumps(raised.value))

    assert (str(copy), copy.seed, copy.happened) == (
        str(raised.value),
        raised.value.seed,
        raised.value.happened,
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "workers must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"faults": ["rain"]}, "there is no fault 'rain'; there are kill, pause"),
        ({"limit": 0}, "limit must be"),
    ],
)
def test_wrong_arguments_are_refused(options, text) -> None:
    with pytest.raises(ValidationError, match=text):
        simulate(careful, **options)


# -- sitq's own promises ---------------------------------------------------------------


class Scripted(Store):
    """Answers what it is told to; of tasks it knows *rows*."""

    def __init__(self) -> None:
        self.rows: dict = {}

    def apply(self, ops):
        return tuple(self._answer(op) for op in ops)

    def _answer(self, op):
        match op:
            case Enqueue():
                return Enqueued()
            case Settle():
                return Settled(True)
            case Reserve():
                return Reserved((Reservation(TaskKey(1, 1), "a", "work", b"", 1, TaskPolicy()),))
            case Fetch():
                return Fetched(dict(self.rows))


def row(state: TaskState, value: bytes | None = None) -> TaskRow:
    return TaskRow("a", "work", "default", state, 1, 0, 0, value=value)


def stored(store: Scripted, **options) -> Promises:
    promises = Promises(store)
    ops = [Enqueue((NewTask("a", b"", "work", **options),))]
    promises.acknowledge(ops, promises.apply(ops))
    return promises


def test_a_task_that_was_acknowledged_and_is_gone_is_lost() -> None:
    assert stored(Scripted()).look_at_all() == ["task a was acknowledged, and is lost"]


def test_a_task_that_ends_twice_is_noticed() -> None:
    store = Scripted()
    promises = stored(store)
    settle = Settle(TaskKey(1, 1), "a", "w", Completed(b"1"))
    store.rows["a"] = row(TaskState.SUCCESS, b"1")
    promises.apply([settle])
    assert promises.broken == []

    store.rows["a"] = row(TaskState.SUCCESS, b"2")
    promises.apply([settle])
    assert "ended twice" in promises.broken[0]
    store.rows["a"] = row(TaskState.QUEUED)
    assert "had ended, and has not any more" in promises.look_at_all()[1]


def test_a_task_that_starts_early_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr("sitq.adapters.clocks.wall_ms", lambda: 1000)
    promises = stored(Scripted(), delay_ms=500)
    promises.apply([Reserve("w", ("default",), 1)])

    assert promises.broken == ["task a, work, started 500 ms before its time"]
