"""Whether a loop answers, as seen by a watcher that looks now and then."""

from sitq.protocol.heartbeat import ASK_EVERY, Ask, Blocked, Freed, HeartbeatMachine, Looked


def looks(machine: HeartbeatMachine, until: float, now: float = 0.0) -> list:
    """Look at each deadline, unanswered, until *until*; return what was said, and when."""
    said = []
    while now <= until:
        said += [(now, effect) for effect in machine.receive(Looked(None), now)]
        now = machine.next_deadline()
    return said


def test_a_loop_that_answers_is_asked_again_and_never_reported() -> None:
    machine = HeartbeatMachine(2.0)
    assert machine.next_deadline() is None
    assert machine.receive(Looked(None), 10.0) == (Ask(),)
    for now in (11.0, 12.0, 13.0):
        assert machine.next_deadline() == now
        assert machine.receive(Looked(now - 0.9), now) == (Ask(),)


def test_one_that_does_not_is_reported_after_its_time_and_each_time_that_has_doubled() -> None:
    assert looks(HeartbeatMachine(2.0), 20.0) == [
        (0.0, Ask()),
        (2.0, Blocked(2.0)),
        (4.0, Blocked(4.0)),
        (8.0, Blocked(8.0)),
        (16.0, Blocked(16.0)),
    ]


def test_a_time_that_is_no_multiple_of_the_looks_is_kept_all_the_same() -> None:
    assert looks(HeartbeatMachine(1.5), 2.0) == [(0.0, Ask()), (1.5, Blocked(1.5))]


def test_that_it_answers_again_is_reported_if_it_was_reported_before() -> None:
    machine = HeartbeatMachine(2.0)
    looks(machine, 2.5)
    assert machine.receive(Looked(2.9), 3.0) == (Freed(2.9), Ask())
    assert machine.receive(Looked(3.1), 4.0) == (Ask(),)

    machine = HeartbeatMachine(2.0)
    looks(machine, 1.0)
    assert machine.receive(Looked(1.5), 2.0) == (Ask(),)


def test_a_watcher_that_was_itself_held_up_blames_nobody() -> None:
    machine = HeartbeatMachine(2.0)
    machine.receive(Looked(None), 0.0)
    assert machine.receive(Looked(None), 2.5 * ASK_EVERY) == (Ask(),)
    assert looks(machine, 5.0, now=3.5) == [(4.5, Blocked(2.0))]
