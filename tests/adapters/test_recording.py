"""What is written of a message comes back as a message that decides alike; and what is not to be
written is not."""

import json
import typing
from dataclasses import is_dataclass

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sitq.adapters import recording
from sitq.adapters.recording import Begin, Ended, Heard, Hidden, encoded, read_line
from sitq.exceptions import RecordingError
from sitq.protocol.lease import LeaseConfig, LeaseEvent
from sitq.protocol.ops import Failure, TaskRow
from sitq.protocol.worker import Running, TaskEnded, TurnEnded, WorkerConfig, WorkerEvent

WORDS = {"worker": recording.worker_words(), "lease": recording.lease_words()}
EVENTS = [
    *(("worker", kind) for kind in typing.get_args(WorkerEvent)),
    *(("lease", kind) for kind in typing.get_args(LeaseEvent)),
]
THINGS = [
    (machine, kind)
    for machine, words in WORDS.items()
    for kind in words
    if hasattr(kind, "_fields") or is_dataclass(kind)
]
WORKER, LEASE = (
    WorkerConfig(poll_interval=float("inf")),
    LeaseConfig(host="here", pid=1, queues=("a", "b"), max_concurrency=1),
)
BEGIN = Begin(
    "9.9", "the run", 5, {"worker": 1.0, "lease": 2.0}, {"worker": WORKER, "lease": LEASE}, {}
)

st.register_type_strategy(Exception, st.builds(Hidden, st.text()))
st.register_type_strategy(float, st.floats(allow_nan=False))


def written(machine, value) -> typing.Any:
    """Write *value*, and read it."""
    return WORDS[machine].decoded(json.loads(json.dumps(encoded(value), allow_nan=False)))


@pytest.mark.parametrize(("machine", "kind"), THINGS, ids=lambda it: getattr(it, "__name__", it))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_message_comes_back(machine, kind, data) -> None:
    value = data.draw(st.from_type(kind))
    once = written(machine, value)

    assert type(once) is kind
    assert encoded(once) == encoded(value)
    assert repr(written(machine, once)) == repr(once)


def test_all_events_are_among_them() -> None:
    assert set(EVENTS) <= set(THINGS)
    assert len(EVENTS) >= 19


def texts(kind) -> set[str]:
    return {name for name, hint in typing.get_type_hints(kind).items() if has_text(hint)}


def has_text(hint) -> bool:
    return hint is str or any(map(has_text, typing.get_args(hint)))


def test_of_every_field_with_a_text_it_is_known_whether_it_may_be_kept() -> None:
    """A field that is added must be thought of: it is in `KEPT`, or it is in this list."""
    hidden = {name for _, kind in THINGS for name in texts(kind)} - recording.KEPT

    assert hidden == {"error", "traceback", "text", "stamp", "rows"}


def test_of_what_is_hidden_the_size_is_kept() -> None:
    failure = Failure("secret", "ValueError", "a secret place", None)
    row = TaskRow("t", "f", "q", "success", 1, 0, 5, value=b"secret", error="secret")

    assert written("worker", failure) == Failure("?" * 6, "ValueError", "?" * 14, None)
    assert "secret" not in json.dumps(encoded((failure, row, ValueError("secret"))))
    assert written("worker", row).value == bytes(6)


def test_a_bug_is_recorded_by_its_type() -> None:
    assert str(written("lease", ConnectionError("secret"))) == "ConnectionError"


# -- lines ---------------------------------------------------------------------------------


def begin_line(**changes) -> str:
    begin = BEGIN._replace(config={name: encoded(it) for name, it in BEGIN.config.items()})
    return recording.begin_line(begin._replace(**changes))


def test_lines_come_back() -> None:
    assert read_line(begin_line(), WORDS) == BEGIN
    for heard in (
        Heard("worker", 1.25, TurnEnded()),
        Heard("worker", 1.25, TurnEnded(), "", (0.5, 0.25)),
        Heard("lease", 1.25, next(iter(typing.get_args(LeaseEvent)))(), "ab"),
    ):
        assert read_line(recording.heard_line(heard), WORDS) == heard
    assert read_line('"KeyError"', WORDS) == Ended("KeyError")


def test_what_has_no_effects_has_no_digest() -> None:
    assert recording.digest([]) == ""
    assert recording.digest([TurnEnded()]) != recording.digest([TurnEnded(), TurnEnded()])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '["worker", 1.0]',
        '["nobody", 1.0, {"TurnEnded": []}]',
        '["worker", -1, {"TurnEnded": []}]',
        '["worker", NaN, {"TurnEnded": []}]',
        '["worker", 1e300, {"TurnEnded": []}]',
        '["worker", 1.0, {"TurnEnded": [1, 2, 3]}]',
        '["worker", 1.0, {"TurnBegan": []}]',
        '["worker", 1.0, {"TurnEnded": [], "Started": []}]',
        '["worker", 1.0, {"bytes": 1e9}]',
        '["worker", 1.0, {"bytes": -1}]',
        '["worker", 1.0, {"text": 99999999999}]',
        '["worker", 1.0, ' + '{"list": [' * 5000 + "]}" * 5000 + "]",
        '{"sitq_recording": 1}',
        begin_line(clocks={}),
        begin_line(wall_ms="then"),
        begin_line(config={}),
        begin_line(config={"worker": 1, "lease": 2}),
        begin_line(state={"worker": {}}),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_line_of_a_recording_is_refused(text) -> None:
    with pytest.raises(RecordingError, match="no line of a recording"):
        read_line(text, WORDS)


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(RecordingError, match=r"format 2 by sitq 9\.9, .* reads up to 1"):
        read_line(begin_line().replace('"sitq_recording":1', '"sitq_recording":2'), WORDS)


# -- states --------------------------------------------------------------------------------


def test_a_machine_of_another_build_is_not_given_the_state() -> None:
    from sitq.protocol.worker import WorkerMachine

    machine = WorkerMachine(WORKER, lambda: 0.5)
    state = dict.fromkeys(recording.known_names(machine))
    recording.restore(machine, state)
    with pytest.raises(RecordingError, match="WorkerMachine of this version is built otherwise"):
        recording.restore(WorkerMachine(WORKER, lambda: 0.5), {"_unheard_of": 1} | state)


def test_what_runs_is_part_of_the_state() -> None:
    assert Running in set(WORDS["worker"])
    assert TaskEnded in set(WORDS["worker"])
