"""One awaited result, event by event."""

import pytest
from hypothesis import given, strategies as st

from sitq.protocol.lifecycle import FINAL, TaskState
from sitq.protocol.ops import TaskRow
from sitq.protocol.waiter import (
    SLOWEST,
    Answered,
    Ask,
    Deliver,
    GiveUp,
    Hinted,
    Miss,
    Tick,
    WaiterMachine,
    WaitStarted,
)


def row(state=TaskState.RUNNING) -> TaskRow:
    return TaskRow("t", "f", "default", state, 1, 0, 0)


def asking(timeout=None, now=0.0) -> WaiterMachine:
    machine = WaiterMachine(timeout)
    assert machine.receive(WaitStarted(), now) == [Ask()]
    return machine


def test_a_task_that_has_ended_is_delivered_at_once() -> None:
    for state in FINAL:
        assert asking().receive(Answered(row(state)), 0.0) == [Deliver(row(state))]


def test_it_looks_again_after_pauses_that_grow_up_to_the_slowest() -> None:
    machine = asking()
    now, pauses = 0.0, []
    for _ in range(20):
        assert machine.receive(Answered(row()), now) == []
        deadline = machine.next_deadline()
        assert machine.receive(Tick(), (now + deadline) / 2) == []  # a spurious tick
        pauses.append(deadline - now)
        now = deadline
        assert machine.receive(Tick(), now) == [Ask()]
        assert machine.next_deadline() is None
    grown = [min(0.005 * 1.5**n, SLOWEST) for n in range(20)]
    assert pauses == pytest.approx(grown)


def test_a_hint_makes_it_look_at_once() -> None:
    machine = asking()
    machine.receive(Answered(row()), 0.0)

    assert machine.receive(Hinted(), 0.001) == [Ask()]
    assert machine.receive(Answered(row(TaskState.SUCCESS)), 0.002) == [
        Deliver(row(TaskState.SUCCESS))
    ]


def test_a_hint_between_a_question_and_its_answer_is_not_lost() -> None:
    machine = asking()

    assert machine.receive(Hinted(), 0.0) == []
    assert machine.receive(Answered(row()), 0.0) == [Ask()]
    assert machine.receive(Answered(row()), 0.0) == []


def test_with_no_time_limit_an_unknown_id_is_a_miss() -> None:
    assert asking().receive(Answered(None), 0.0) == [Miss()]


def test_a_task_that_was_there_and_is_gone_is_not_waited_for() -> None:
    machine = asking(timeout=60.0)
    assert machine.receive(Answered(row()), 0.0) == []
    machine.receive(Hinted(), 1.0)
    assert machine.receive(Answered(None), 1.0) == [Miss(was_there=True)]


def test_with_a_time_limit_an_unknown_id_is_waited_for() -> None:
    machine = asking(timeout=1.0)

    assert machine.receive(Answered(None), 0.0) == []
    assert machine.receive(Tick(), 0.5) == [Ask()]
    assert machine.receive(Answered(row(TaskState.FAILED)), 0.5) == [Deliver(row(TaskState.FAILED))]


def test_a_timeout_of_zero_looks_once() -> None:
    assert asking(timeout=0.0).receive(Answered(row()), 0.0) == [GiveUp()]
    assert asking(timeout=0.0).receive(Answered(row(TaskState.SUCCESS)), 0.0) == [
        Deliver(row(TaskState.SUCCESS))
    ]


def test_it_gives_up_only_after_an_answer() -> None:
    machine = asking(timeout=1.0)
    machine.receive(Answered(row()), 0.9999)
    assert machine.next_deadline() == 1.0

    assert machine.receive(Tick(), 1.0) == [Ask()]  # a last look, at the very end
    assert machine.receive(Hinted(), 7.0) == []
    assert machine.receive(Answered(row(TaskState.SUCCESS)), 9.0) == [
        Deliver(row(TaskState.SUCCESS))
    ]


@given(
    st.one_of(st.none(), st.floats(0, 10)),
    st.lists(st.tuples(st.sampled_from(["hint", "tick", "answer"]), st.floats(0, 1))),
)
def test_whatever_comes_there_is_one_question_at_a_time_and_one_end(timeout, steps) -> None:
    machine = asking(timeout)
    waiting, over, now = True, False, 0.0
    for step, passed in steps:
        now += passed
        if over:
            break
        if step == "answer" and not waiting:
            continue
        event = {"hint": Hinted(), "tick": Tick(), "answer": Answered(row())}[step]
        effects = machine.receive(event, now)
        if step == "answer":
            waiting = False
        for effect in effects:
            assert not waiting
            waiting = isinstance(effect, Ask)
            over = isinstance(effect, GiveUp)
        if over:
            assert timeout is not None
            assert now >= timeout
        elif not waiting:
            assert machine.next_deadline() > now
