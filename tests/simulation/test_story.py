"""A run that failed can be read: who was there, what happened, and where it showed."""

import pytest

from sitq.testing.simulation.history import Kind
from sitq.testing.simulation.invariants import INVARIANTS
from sitq.testing.simulation.shrink import shrink
from sitq.testing.simulation.story import in_brief, sentence_of, story
from sitq.testing.simulation.trial import play
from sitq.testing.simulation.words import sentences
from tests.simulation.failing import failing, failing_rescue


@pytest.fixture(scope="module")
def told():
    """A trial that failed, what was made of it, and its story."""
    with failing_rescue() as trial:
        small = shrink(trial)
        return trial, small, story(trial, small=small)


def test_it_says_what_was_broken_and_how_to_see_it_again(told) -> None:
    trial, _, lines = told

    assert lines[0] == f"seed {trial.plan.seed} breaks S6: {INVARIANTS['S6']}"
    assert lines[1].strip().endswith("and kept its token")
    assert lines[-1] == f"once more, bit for bit: sitq sim --seed {trial.plan.seed}"


def test_it_says_how_small_it_was_made(told) -> None:
    _, small, lines = told
    line = next(line for line in lines if line.startswith("made small: "))

    assert line.startswith(f"made small: {len(small.plan.tasks)} task, 1 process, 0 faults, ")


def test_it_says_who_was_there(told) -> None:
    _, small, lines = told
    at = next(n for n, line in enumerate(lines) if line.startswith("who was there"))

    assert lines[at + 1].startswith("    a   1 slot, looks every 1 s, lease of 3 s; lives: a1")
    assert lines[at + 2].startswith(f"    {small.plan.tasks[0].id}  asked for at ")


def test_the_events_are_in_words_and_end_where_it_showed(told) -> None:
    _, small, lines = told
    task = small.plan.tasks[0].id
    text = "\n".join(lines)

    assert f"a1   starts {task} (token 1), as a1.1" in text
    assert "a1   dies" in text
    marked = [line for line in lines if line.startswith(" >>")]
    assert len(marked) == 1
    assert marked[0].endswith(f"rescues {task} from a1.1: running -> queued, token 1")
    after = lines[lines.index(marked[0]) + 1 :]
    assert after[0].strip().startswith("here it shows: S6, ")
    assert after[1] == ""


def test_what_does_not_concern_it_is_left_out_unless_all_is_asked_for(told) -> None:
    trial, _, _ = told
    short, long = story(trial), story(trial, everything=True)

    assert len(short) < len(long)
    for number in range(len(trial.history)):
        assert any(f" {number:>4}  " in line for line in long)


def test_the_same_run_is_told_in_the_same_words(told) -> None:
    trial, small, lines = told

    assert story(trial, small=small) == lines


def test_every_event_of_every_kind_has_words() -> None:
    kinds = set()
    for seed in range(150):
        for event, said in sentences(play(seed).history):
            kinds.add(event.kind)
            assert said or event.kind is Kind.BATCH
            assert all(sentence.text and "\n" not in sentence.text for sentence in said)

    assert set(Kind) - kinds <= {Kind.CONFLICT, Kind.STUCK, Kind.STANDS}


@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_held_can_be_told_too(seed) -> None:
    trial = play(seed)
    lines = story(trial)

    assert lines[0].startswith("who was there")
    assert in_brief(trial)[0].startswith(f"what happened: {len(trial.history)} events")


def test_an_assertion_of_a_machine_has_a_sentence_too() -> None:
    with failing("tasks of an earlier life") as trial:
        assert trial.violations[0].invariant == "ASSERTION"
        lines = story(trial)

    assert lines[0] == f"seed {trial.plan.seed} breaks ASSERTION: {sentence_of('ASSERTION')}"
    assert any(line.startswith(" >>") for line in lines)
