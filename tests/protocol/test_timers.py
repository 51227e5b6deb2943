from enum import IntEnum

from sitq.protocol.timers import Timers, growing_pause


class Name(IntEnum):
    A = 1
    B = 2


def test_timers_expire_in_the_order_of_their_names_and_only_once() -> None:
    timers: Timers[Name] = Timers()
    timers.set(Name.B, 1.0)
    timers.set(Name.A, 2.0)

    assert timers.next_deadline() == 1.0
    assert list(timers.expire(0.5)) == []
    assert list(timers.expire(2.0)) == [Name.A, Name.B]
    assert list(timers.expire(9.0)) == []
    assert timers.next_deadline() is None


def test_a_timer_can_be_pulled_in_but_not_pushed_out() -> None:
    timers: Timers[Name] = Timers()
    timers.pull_in(Name.A, 5.0)
    timers.pull_in(Name.A, 7.0)
    assert timers.next_deadline() == 5.0
    timers.pull_in(Name.A, 3.0)
    assert timers.next_deadline() == 3.0
    timers.stop(Name.A)
    assert not timers.is_set(Name.A)


def test_a_timer_that_another_one_stops_or_moves_does_not_expire() -> None:
    timers: Timers[Name] = Timers()
    timers.set(Name.A, 1.0)
    timers.set(Name.B, 1.0)
    expired = []
    for name in timers.expire(1.0):
        expired.append(name)
        timers.set(Name.B, 2.0)
    assert expired == [Name.A]
    timers.clear()
    assert timers.next_deadline() is None


def test_pauses_double_up_to_the_longest_however_many_failures_there_are() -> None:
    assert [growing_pause(n, 0.5, 4.0) for n in range(6)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert growing_pause(1_000_000, 0.5, 4.0) == 4.0
