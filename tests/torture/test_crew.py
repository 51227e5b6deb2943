"""What is noted of the things that are done to a process."""

import signal

from sitq.testing.simulation.history import Kind
from torture.crew import Process


class Popen:
    """A process that is there, or has died by itself."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        self.sent: list[int] = []

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, number: int) -> None:
        self.sent.append(number)


def asked_three_times(code: int | None) -> Process:
    process = Process("w0", "worker", Popen(code), 0.0)
    for _ in range(3):
        process.ask_to_stop(signal.SIGTERM, 2.0)
    return process


def test_the_third_signal_is_its_death() -> None:
    process = asked_three_times(None)
    assert process.popen.sent == [signal.SIGTERM] * 3
    kinds = [record.kind for record in process.done_to_it]
    assert kinds == [Kind.STOP_ASKED, Kind.STOP_ASKED, Kind.KILLED]


def test_what_has_died_by_itself_is_not_killed_once_more() -> None:
    """Its death would be written down after the rescue of its tasks, and not explain it."""
    process = asked_three_times(-signal.SIGKILL)
    assert (process.popen.sent, process.done_to_it) == ([], [])
