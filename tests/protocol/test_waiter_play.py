"""A waiter, a task that ends at some time, and a store that takes its time to answer.

The answer tells how the task stood when the store read it, somewhere between the question and
the answer; hints may come or be lost.
"""

from hypothesis import given, settings, strategies as st

from sitq.protocol.lifecycle import TaskState
from sitq.protocol.ops import TaskRow
from sitq.protocol.waiter import (
    SLOWEST,
    Answered,
    Ask,
    Deliver,
    GiveUp,
    Hinted,
    Tick,
    WaiterMachine,
    WaitStarted,
)

RUNNING = TaskRow("t", "f", "default", TaskState.RUNNING, 1, 0, 0)
ENDED = RUNNING._replace(state=TaskState.SUCCESS)
LONGEST_READ = 0.4


def wait(data, timeout: float | None, ends_at: float, *, hinted: bool):
    """Wait for the task's end; return how the wait ended, when, and the number of questions."""
    machine = WaiterMachine(timeout)
    now, questions = 0.0, 0
    effects = machine.receive(WaitStarted(), now)
    hint_at = ends_at if hinted else None
    while True:
        assert len(effects) <= 1
        if effects and not isinstance(effects[0], Ask):
            return effects[0], now, questions
        if effects:
            questions += 1
            asked = now
            now += data.draw(st.floats(0, LONGEST_READ), label="the answer takes")
            read = asked + (now - asked) * data.draw(st.floats(0, 1), label="and is read at")
            if hint_at is not None and hint_at <= now:
                assert machine.receive(Hinted(), now) == []  # one question at a time
                hint_at = None
            effects = machine.receive(Answered(ENDED if ends_at <= read else RUNNING), now)
            continue
        deadline = machine.next_deadline()
        assert deadline > now
        if hint_at is not None and hint_at < deadline:
            now = max(now, hint_at)
            hint_at = None
            effects = machine.receive(Hinted(), now)
        else:
            now = deadline
            effects = machine.receive(Tick(), now)


@settings(deadline=None)
@given(st.data(), st.floats(0, 3), st.floats(0, 3), st.booleans())
def test_a_result_that_was_there_when_the_time_ran_out_is_delivered(
    data, timeout, ends_at, hinted
) -> None:
    end, now, _ = wait(data, timeout, ends_at, hinted=hinted)

    if ends_at <= timeout:
        assert end == Deliver(ENDED)
    if isinstance(end, GiveUp):
        assert now >= timeout
    assert now <= timeout + 2 * LONGEST_READ, "it gives up after one last look"


@settings(deadline=None)
@given(st.data(), st.floats(0, 3), st.booleans())
def test_without_a_limit_the_result_is_delivered_soon_after_the_end(data, ends_at, hinted) -> None:
    end, now, questions = wait(data, None, ends_at, hinted=hinted)

    assert end == Deliver(ENDED)
    pause = 0.0 if hinted else SLOWEST
    assert now <= ends_at + pause + 2 * LONGEST_READ + 1e-9
    assert questions <= 20 + now / SLOWEST, "it asks ever more slowly"
