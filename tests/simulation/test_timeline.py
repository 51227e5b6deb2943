"""A run as a picture: well formed, the same each time, and with all that was there."""

import re
from xml.etree import ElementTree as ET

import pytest

from sitq.testing.simulation.climate import draw
from sitq.testing.simulation.history import Event, Kind
from sitq.testing.simulation.invariants import Violation
from sitq.testing.simulation.shrink import shrink
from sitq.testing.simulation.timeline import RED, WIDTH, timeline
from sitq.testing.simulation.trial import Trial, play
from tests.simulation.failing import failing_rescue


def texts(picture: str) -> list[str]:
    return [
        element.text or ""
        for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.fixture(scope="module")
def failed():
    with failing_rescue() as trial:
        return shrink(trial).trial


def test_a_run_that_failed_shows_where(failed) -> None:
    picture = timeline(failed)
    said = texts(picture)

    assert said[0] == f"seed {failed.plan.seed} breaks S6"
    assert said[1] == failed.violations[0].text
    assert {"store", "a1", "a2", failed.plan.tasks[0].id, "a1 dies"} <= set(said)
    assert picture.count(f'stroke="{RED}"') >= 3  # the line, the cross, the rings
    assert said.count("S6") == 1


def test_the_same_run_gives_the_same_picture(failed) -> None:
    assert timeline(failed) == timeline(failed)
    assert timeline(play(7)) == timeline(play(7))


@pytest.mark.parametrize("seed", range(40))
def test_a_run_that_held_is_drawn_with_all_who_were_there(seed) -> None:
    trial = play(seed)
    picture = timeline(trial)
    said = texts(picture)

    assert said[0] == f"seed {seed}: all that must hold has held"
    assert {event.who for event in trial.history if event.kind is Kind.UP} <= set(said)
    assert {event.task for event in trial.history if event.kind is Kind.ROW} <= set(said)
    assert sum(text.endswith(" dies") for text in said) == sum(
        event.kind is Kind.KILLED for event in trial.history
    )
    places = [float(x) for x in re.findall(r' (?:x|x1|x2|cx)="(-?[\d.]+)"', picture)]
    assert min(places) >= 0
    assert max(places) <= WIDTH


def test_what_was_said_is_text_and_nothing_else() -> None:
    history = [Event(0.5, Kind.UP, "a1"), Event(1.0, Kind.FAULT, "", value="<b>\x1b[31m & so on")]
    trial = Trial(draw(0), history, [Violation("S1", 'a "<script>" in it', 1)], 2, ())

    said = texts(timeline(trial))
    assert 'a "<script>" in it' in said
    assert "<b>\\x1b[31m & so on" in said


def test_a_run_without_a_past_is_drawn_too() -> None:
    assert "breaks ASSERTION" in timeline(
        Trial(draw(0), [], [Violation("ASSERTION", "at once", 0)], 0, ())
    )
