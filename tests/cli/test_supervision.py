"""What a supervisor decides, told by plain calls."""

import signal

import pytest

from sitq.cli.supervision import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    STEADY_AFTER,
    BecameReady,
    Began,
    End,
    Exited,
    Heard,
    Launch,
    Launched,
    LaunchFailed,
    Say,
    Send,
    Stage,
    SupervisionMachine,
    TimePassed,
    how_it_ended,
)

TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL


class Crew:
    """A machine, and processes that are numbers: 100, 101, ... in the order of their start."""

    def __init__(self, processes=2, *, drain=False, hangup_replaces=True, chance=0.0) -> None:
        self.machine = SupervisionMachine(
            processes, lambda: chance, drain=drain, hangup_replaces=hangup_replaces
        )
        self.now = 0.0
        self.started: list[int] = []
        self.fails_to_start = False

    def tell(self, event) -> list:
        """Tell the machine; start what it wants started; return everything else."""
        rest = []
        for effect in self.machine.receive(event, self.now):
            if not isinstance(effect, Launch):
                rest.append(effect)
            elif self.fails_to_start:
                rest += self.tell(LaunchFailed(effect.slot, "no memory"))
            else:
                pid = 100 + len(self.started)
                self.started.append(pid)
                rest += self.tell(Launched(effect.slot, pid))
        return rest

    def began(self) -> "Crew":
        """All are started, and ready."""
        self.tell(Began())
        self.ready(*range(100, 100 + len(self.machine._slots)))
        return self

    def ready(self, *pids) -> list:
        return [effect for pid in pids for effect in self.tell(BecameReady(pid))]

    def wait(self) -> float:
        """Let time pass until the deadline; return how long that was."""
        deadline = self.machine.next_deadline()
        assert deadline is not None
        waited, self.now = deadline - self.now, deadline
        self.tell(TimePassed())
        return waited


def without_words(effects) -> list:
    return [effect for effect in effects if not isinstance(effect, Say)]


def words(effects) -> str:
    return "; ".join(effect.text for effect in effects if isinstance(effect, Say))


# -- starting -----------------------------------------------------------------------------


def test_the_others_are_started_once_the_first_is_ready() -> None:
    crew = Crew(3)
    crew.tell(Began())
    assert crew.started == [100]
    assert crew.machine.next_deadline() is None  # nothing to do but to wait for it

    crew.ready(100)
    assert crew.started == [100, 101, 102]
    assert crew.machine.next_deadline() is None


def test_one_that_cannot_be_loaded_ends_it_at_once_with_its_code() -> None:
    crew = Crew(3)
    crew.tell(Began())
    effects = crew.tell(Exited(100, 2))

    assert crew.started == [100]
    assert without_words(effects) == [End(2)]
    assert "worker 100 ended with exit code 2, and would again" in words(effects)
    assert crew.machine.next_deadline() is None


def test_a_module_that_was_spoilt_since_does_no_harm_to_those_that_run() -> None:
    crew = Crew(2).began()
    crew.tell(Exited(100, -9))
    crew.wait()
    assert without_words(crew.tell(Exited(102, 2))) == []
    assert crew.machine.next_deadline() is not None

    # ... until nobody runs any more: there is no sense in going on.
    assert without_words(crew.tell(Exited(101, -9))) == []
    crew.wait()
    assert without_words(crew.tell(Exited(103, 2))) == [End(2)]


def test_a_ready_worker_that_ends_with_2_was_loaded_and_is_started_again() -> None:
    crew = Crew(1).began()
    assert without_words(crew.tell(Exited(100, 2))) == []
    crew.wait()
    assert crew.started == [100, 101]


def test_one_that_is_starting_is_stopped_when_another_cannot_be_loaded() -> None:
    crew = Crew(2).began()
    crew.tell(Exited(100, -9))
    crew.wait()  # 102 is starting
    crew.tell(Exited(101, -9))
    crew.now += 1.0
    crew.tell(TimePassed())
    assert crew.started == [100, 101, 102]
    assert without_words(crew.tell(Exited(102, 2))) == [End(2)]


# -- starting again -----------------------------------------------------------------------


def test_what_dies_is_started_again_after_a_pause_that_doubles_up_to_a_limit() -> None:
    crew = Crew(1).began()
    pauses = []
    for pid in range(100, 109):
        effects = crew.tell(Exited(pid, -9))
        assert f"worker {pid} was killed by SIGKILL; another one is started in" in words(effects)
        pauses.append(crew.wait())
        crew.ready(pid + 1)

    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    assert crew.started == list(range(100, 110))


def test_a_pause_is_cut_by_up_to_a_half_by_chance() -> None:
    crew = Crew(1, chance=0.999999).began()
    crew.tell(Exited(100, 1))
    assert crew.wait() == pytest.approx(FIRST_PAUSE / 2, rel=1e-3)


@pytest.mark.parametrize(("lived", "pause"), [(STEADY_AFTER - 1, 4), (STEADY_AFTER, 1)])
def test_a_life_that_was_long_enough_forgives_the_deaths_before(lived, pause) -> None:
    crew = Crew(1).began()
    for pid in (100, 101):
        crew.tell(Exited(pid, -9))
        crew.wait()
        crew.ready(pid + 1)
    crew.now += lived
    crew.tell(Exited(102, -9))
    assert crew.wait() == pytest.approx(pause * FIRST_PAUSE)


def test_one_that_never_was_ready_is_not_steady_however_long_it_took() -> None:
    crew = Crew(1)
    crew.tell(Began())
    for pid, times in ((100, 1), (101, 2), (102, 4)):
        crew.now += 2 * STEADY_AFTER
        crew.tell(Exited(pid, 1))
        assert crew.wait() == pytest.approx(times * FIRST_PAUSE)


def test_a_system_that_starts_no_process_is_asked_again() -> None:
    crew = Crew(1)
    crew.fails_to_start = True
    assert words(crew.tell(Began())) == "no worker can be started: no memory; tried again in 0.5 s"
    assert crew.wait() == FIRST_PAUSE
    crew.fails_to_start = False
    assert crew.wait() == 2 * FIRST_PAUSE
    assert crew.started == [100]


def test_a_worker_that_somebody_has_stopped_by_hand_is_replaced() -> None:
    crew = Crew(2).began()
    assert "worker 100 ended with exit code 0; another one" in words(crew.tell(Exited(100, 0)))
    crew.wait()
    assert crew.started == [100, 101, 102]


# -- stopping -----------------------------------------------------------------------------


def test_the_first_signal_drains_the_second_hastens_the_third_kills() -> None:
    crew = Crew(2).began()

    assert without_words(crew.tell(Heard(INT))) == [Send(100, TERM), Send(101, TERM)]
    # Another one: two of a kind that are pending at once would be one.
    assert without_words(crew.tell(Heard(INT))) == [Send(100, INT), Send(101, INT)]
    assert without_words(crew.tell(Heard(TERM))) == [
        Send(100, KILL),
        Send(101, KILL),
        End(128 + TERM),
    ]
    assert crew.tell(Heard(TERM)) == crew.tell(Exited(100, -9)) == []


def test_it_ends_with_0_when_all_have_drained() -> None:
    crew = Crew(2).began()
    crew.tell(Heard(TERM))
    assert crew.tell(Exited(100, 0)) == []
    assert crew.machine.stage is Stage.DRAINING
    assert crew.tell(Exited(101, 0)) == [End(0)]
    assert crew.started == [100, 101]


@pytest.mark.parametrize("code", [1, -9, 137])
def test_it_ends_with_1_when_one_did_not_stop_as_it_should(code) -> None:
    crew = Crew(2).began()
    crew.tell(Heard(TERM))
    assert words(crew.tell(Exited(100, code))) == f"worker 100 {how_it_ended(code)}"
    assert crew.tell(Exited(101, 0)) == [End(1)]


def test_one_that_is_stopped_before_it_hears_signals_counts_as_stopped() -> None:
    crew = Crew(2)
    crew.tell(Began())
    assert without_words(crew.tell(Heard(TERM))) == [Send(100, TERM)]
    assert crew.tell(Exited(100, -TERM)) == [End(0)]


def test_one_that_waits_to_be_started_again_is_not_once_it_stops() -> None:
    crew = Crew(2).began()
    crew.tell(Exited(100, -9))
    assert without_words(crew.tell(Heard(TERM))) == [Send(101, TERM)]
    assert crew.machine.next_deadline() is None
    assert crew.tell(Exited(101, 0)) == [End(0)]


def test_a_signal_while_nobody_lives_ends_it() -> None:
    crew = Crew(1).began()
    crew.tell(Exited(100, -9))
    assert without_words(crew.tell(Heard(TERM))) == [End(0)]


# -- draining -----------------------------------------------------------------------------


def test_with_drain_it_ends_when_each_has_found_nothing_due() -> None:
    crew = Crew(2, drain=True).began()
    assert crew.tell(Exited(100, 0)) == []
    assert crew.tell(Exited(101, 0)) == [End(0)]
    assert crew.started == [100, 101]


def test_with_drain_what_dies_before_is_started_again() -> None:
    crew = Crew(2, drain=True).began()
    crew.tell(Exited(100, -9))
    assert crew.tell(Exited(101, 0)) == []
    crew.wait()
    assert crew.started == [100, 101, 102]
    assert crew.tell(Exited(102, 0)) == [End(0)]


# -- replacing ----------------------------------------------------------------------------


def test_a_hangup_replaces_the_workers_one_after_the_other() -> None:
    crew = Crew(2).began()
    assert without_words(crew.tell(Heard(HUP))) == [Send(100, TERM)]
    assert crew.tell(TimePassed()) == []  # it is not told twice

    assert crew.tell(Exited(100, 0)) == []
    assert crew.started == [100, 101, 102]  # at once
    assert without_words(crew.ready(102)) == [Send(101, TERM)]
    crew.tell(Exited(101, 0))
    assert without_words(crew.ready(103)) == []
    assert crew.started == [100, 101, 102, 103]


def test_the_others_are_left_alone_where_the_successor_does_not_come_up() -> None:
    crew = Crew(3).began()
    crew.tell(Heard(HUP))
    crew.tell(Exited(100, 0))
    effects = crew.tell(Exited(103, 2))
    assert "the other workers are not replaced, since that one failed" in words(effects)

    crew.wait()  # it is tried again all the same
    assert without_words(crew.ready(104)) == []
    assert crew.machine.stage is Stage.RUNNING


def test_one_that_dies_while_it_is_to_leave_is_replaced_like_any_and_the_rest_follow() -> None:
    crew = Crew(2).began()
    crew.tell(Heard(HUP))
    assert "worker 100 was killed by SIGKILL" in words(crew.tell(Exited(100, -9)))
    crew.wait()
    assert without_words(crew.ready(102)) == [Send(101, TERM)]


def test_a_second_hangup_begins_anew_with_those_that_came_up_since() -> None:
    crew = Crew(2).began()
    crew.tell(Heard(HUP))
    crew.tell(Exited(100, 0))
    crew.tell(Heard(HUP))
    left = []
    for starting in (102, 103, 104):
        sent = without_words(crew.ready(starting))
        left += sent
        for effect in sent:
            crew.tell(Exited(effect.pid, 0))
    assert left == [Send(102, TERM), Send(101, TERM)]


def test_with_drain_one_that_is_replaced_has_not_found_nothing_due() -> None:
    crew = Crew(1, drain=True).began()
    crew.tell(Heard(HUP))
    assert crew.tell(Exited(100, 0)) == []
    assert crew.started == [100, 101]


def test_a_hangup_while_it_stops_changes_nothing() -> None:
    crew = Crew(2).began()
    crew.tell(Heard(TERM))
    assert crew.tell(Heard(HUP)) == []


def test_on_a_terminal_a_hangup_stops() -> None:
    crew = Crew(2, hangup_replaces=False).began()
    assert without_words(crew.tell(Heard(HUP))) == [Send(100, TERM), Send(101, TERM)]


def test_a_stop_in_the_middle_of_it_leaves_the_one_that_drains_its_grace() -> None:
    crew = Crew(2).began()
    crew.tell(Heard(HUP))
    assert without_words(crew.tell(Heard(TERM))) == [Send(101, TERM)]
    assert without_words(crew.tell(Heard(TERM))) == [Send(100, INT), Send(101, INT)]


# -- words --------------------------------------------------------------------------------


def test_an_end_is_told_in_words() -> None:
    assert how_it_ended(3) == "ended with exit code 3"
    assert how_it_ended(-9) == "was killed by SIGKILL"
    assert how_it_ended(-99) == "was killed by signal 99"
