"""A recording replayed: where this version decides otherwise, and what is refused."""

import json
import os
from pathlib import Path

import anyio
import pytest

from sitq import MemoryBackend, RecordingError, Retry, TaskQueue, Worker, testing
from sitq.protocol import lease, worker
from sitq.protocol.lease import LeaseMachine
from sitq.protocol.ops import Failed, RetryIn, Settle
from sitq.protocol.worker import Store, TurnEnded, WorkerMachine


def fail() -> None:
    raise ConnectionError("no answer")


async def shop(path) -> None:
    backend = MemoryBackend()
    queue = TaskQueue(backend)
    async with Worker(backend, record=path):
        task_id = await queue.using(retry=Retry(attempts=3, delay=2.0)).enqueue(fail)
        await queue.get_result(task_id)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "worker.rec"


@pytest.fixture
def recorded(path) -> Path:
    testing.run(shop, path)
    return path


def settles(step) -> list:
    stores = [effect for effect in step.effects or () if isinstance(effect, Store)]
    return [op.verdict for store in stores for op in store.ops if isinstance(op, Settle)]


def test_a_recording_is_replayed_step_by_step(recorded) -> None:
    recording = testing.replay(recorded)
    steps = list(recording.steps)

    assert [step.number for step in steps] == list(range(1, len(recording) + 1))
    assert all(step.agrees for step in steps)
    assert {step.machine for step in steps} == {"worker", "lease"}
    verdicts = [type(verdict) for step in steps for verdict in settles(step)]
    assert verdicts == [RetryIn, RetryIn, Failed]
    assert list(recording.steps) == steps, "each time from the beginning"
    assert steps[0].at == recording.runs[0].began


def test_the_numbers_that_were_drawn_are_drawn_again(path) -> None:
    """Else the jitter of a retry would differ each time."""
    for seed in range(3):
        testing.run(shop, path, seed=seed)

    delays = [
        verdict.delay
        for step in testing.replay(path).steps
        for verdict in settles(step)
        if isinstance(verdict, RetryIn)
    ]
    assert testing.replay(path).first_difference is None
    assert len(set(delays)) == len(delays) == 6


def test_a_recording_of_machines_that_decided_otherwise_differs_at_that_step(
    path, monkeypatch
) -> None:
    judge = worker.judge

    def once_less(task, ending, why, unit):
        if task.attempt == 2:
            return Failed(ending.failure)
        return judge(task, ending, why, unit)

    monkeypatch.setattr(worker, "judge", once_less)
    testing.run(shop, path)
    assert testing.replay(path).first_difference is None
    monkeypatch.undo()

    recording = testing.replay(path)
    step = recording.first_difference
    assert isinstance(step.event, TurnEnded)
    (verdict,) = settles(step)
    assert isinstance(verdict, RetryIn)
    before = [other for other in recording.steps if other.number < step.number]
    assert [type(verdict) for other in before for verdict in settles(other)] == [RetryIn]


def test_so_does_one_of_the_leases_machine(path, monkeypatch) -> None:
    monkeypatch.setattr(lease, "RENEWALS_PER_LEASE", 7)
    monkeypatch.setattr(lease, "CLOCK_MARGIN", 0.2)
    testing.run(shop, path)
    monkeypatch.undo()

    step = testing.replay(path).first_difference
    assert step.machine == "lease"
    assert "Hold" in [type(effect).__name__ for effect in step.effects]


def test_a_machine_that_cannot_go_on_has_no_effects_from_there(recorded, monkeypatch) -> None:
    """It asks for nothing, and is told of an answer."""
    monkeypatch.setattr(WorkerMachine, "_store", lambda *_: None)
    steps = list(testing.replay(recorded).steps)

    differs = next(step for step in steps if not step.agrees)
    assert (differs.effects, differs.raised) == ((), None)
    raised = next(step for step in steps if step.raised is not None)
    assert (raised.effects, raised.agrees, raised.raised) == (None, False, "KeyError: 1")
    later = [step for step in steps if step.number > raised.number and step.machine == "worker"]
    assert later
    assert not any(step.agrees or step.effects is not None for step in later)
    assert all(step.agrees for step in steps if step.machine == "lease")


def test_more_chance_than_was_recorded_is_none(recorded, monkeypatch) -> None:
    real = WorkerMachine._task_ended

    def draw_twice(self, event, now) -> None:
        real(self, event, now)
        assert self._unit() == 0.0

    monkeypatch.setattr(WorkerMachine, "_task_ended", draw_twice)
    assert testing.replay(recorded).first_difference is None


# -- what is refused -----------------------------------------------------------------------


def test_a_file_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(RecordingError, match=r"there is no file .*x\.rec"):
        testing.replay(tmp_path / "x.rec")
    with pytest.raises(RecordingError, match="cannot be read"):
        testing.replay(tmp_path)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"{}\n", b"\xff\n", b"[]\n"])
def test_what_is_no_recording_is_refused(path, content) -> None:
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="is no recording"):
        testing.replay(path)


def test_a_damaged_line_is_named(recorded) -> None:
    lines = recorded.read_text().splitlines()
    lines[4] = lines[4][:-3]
    recorded.write_text("\n".join(lines))

    with pytest.raises(RecordingError, match=r"worker\.rec, line 5: "):
        testing.replay(recorded)


def test_a_line_that_was_cut_off_is_left_out(recorded) -> None:
    whole = len(testing.replay(recorded))
    with recorded.open("a") as file:
        file.write('["worker", 12')

    assert len(testing.replay(recorded)) == whole


def test_wherever_a_recording_is_cut_off_the_rest_is_replayed(recorded) -> None:
    content = recorded.read_bytes()
    first = content.index(b"\n") + 1
    for end in range(first, len(content), 97):
        recorded.write_bytes(content[:end])
        assert testing.replay(recorded).first_difference is None


def test_a_state_of_another_build_is_refused(recorded) -> None:
    first, *rest = recorded.read_text().splitlines()
    begin = json.loads(first) | {"state": {"worker": {"_wisdom": 1}, "lease": {}}}
    recorded.write_text("\n".join([json.dumps(begin), *rest]))

    with pytest.raises(RecordingError, match="is built otherwise"):
        list(testing.replay(recorded).steps)


def test_a_replay_changes_nothing_and_needs_no_worker(recorded) -> None:
    before = recorded.read_bytes(), os.listdir(recorded.parent)
    anyio.run(_replay_in_a_loop, recorded)

    assert (recorded.read_bytes(), os.listdir(recorded.parent)) == before
    assert LeaseMachine.receive.__module__ == "sitq.protocol.lease"


async def _replay_in_a_loop(path) -> None:
    assert testing.replay(path).first_difference is None
