"""`sitq sim`: what it prints, what it exits with, and what it refuses."""

import re
import signal
import time
from collections import Counter
from xml.etree import ElementTree as ET

import pytest

from sitq.cli import sim
from sitq.testing.simulation import mutants, runs
from sitq.testing.simulation.marks import MARKS
from sitq.testing.simulation.runs import Found, Tally

BUG = "rescue keeps the token"


@pytest.fixture
def with_a_bug():
    """Have a bug in this process, as a developer would."""
    with mutants.MUTANTS[BUG].planted():
        yield


@pytest.fixture
def came_of_it(monkeypatch):
    """Have a set of runs come to what a test says."""

    def become(tally: Tally) -> None:
        def play_all(*_, tell, **__) -> Tally:
            tell(tally)
            return tally

        monkeypatch.setattr(sim, "play_all", play_all)

    return become


def first_failing(typed) -> int:
    out = typed("sim", "--seeds", 100, "--workers", 1, "--stop", code=1)
    return int(re.search(r"^seed (\d+) breaks S6: ", out, re.MULTILINE)[1])


# -- many seeds ---------------------------------------------------------------------------


def test_it_plays_seeds_and_says_that_all_has_held(typed) -> None:
    out = typed("sim", "--seeds", 30, "--from", 5, "--workers", 1, "--digest").splitlines()

    assert out[0] == "seeds from 5 to 34, workers: 1"
    assert re.match(r"30 runs with [\d,]+ events in \d+\.\d s: a second, \d+ runs and ", out[1])
    assert re.match(rf"marks reached: \d+ of {len(MARKS)}; the rarest is '", out[2])
    assert out[3] == f"digest: {runs.play_all(range(5, 35), runs.Ask(digest=True)).digest}"
    assert out[4:] == ["all that must hold has held"]


def test_a_violation_is_named_with_its_seed(typed, with_a_bug) -> None:
    out = typed("sim", "--seeds", 60, "--workers", 1, code=1)
    seeds = re.findall(r"^seed (\d+) breaks S6: t.* kept its token$", out, re.MULTILINE)

    assert f"`sitq sim --seed {seeds[0]}` tells what happened" in out
    assert f"runs that failed: {len(seeds)};" in out


def test_it_ends_with_the_first_violation_if_it_is_told_to(typed, with_a_bug) -> None:
    out = typed("sim", "--seeds", 1000, "--workers", 1, "--stop", code=1)

    assert len(re.findall(r"^seed \d+ breaks", out, re.MULTILINE)) == 1
    assert "runs that failed: 1;" in out


def test_a_mark_that_was_never_reached_is_a_failure(typed, came_of_it) -> None:
    came_of_it(Tally(runs=1000, marks=Counter(list(MARKS)[1:])))
    out = typed("sim", code=1)

    (missing, *_) = MARKS
    assert f"never reached: {missing!r}: {MARKS[missing]}" in out
    assert out.endswith("a set of runs as mild as this proves nothing\n")


def test_what_a_violation_says_does_nothing_to_the_terminal(typed, came_of_it) -> None:
    came_of_it(Tally(runs=5, failed=1, found=[Found(3, "S1", "[bold]t0\x1b[31m")]))

    assert "seed 3 breaks S1: [bold]t0\\x1b[31m" in typed("sim", "--seeds", 5, code=1)


def test_fresh_seeds_are_printed(typed, came_of_it) -> None:
    came_of_it(Tally(runs=5))
    starts = {
        re.match(r"seeds from (\d+) to \d+,", typed("sim", "--seeds", 5, "--fresh"))[1]
        for _ in range(3)
    }

    assert len(starts) == 3


def test_it_goes_on_for_so_many_hours(typed) -> None:
    began = time.monotonic()
    out = typed("sim", "--hours", 0.5 / 3600, "--workers", 1)

    assert re.match(r"seeds from \d+ on, workers: 1\n", out)
    assert 0.4 < time.monotonic() - began < 20


def test_a_ctrl_c_ends_it_with_what_was_found_so_far(shell) -> None:
    process = shell.start("sim", "--hours", 1, "--workers", 2)
    process.stdout.readline()
    assert " runs, " in process.stdout.readline()  # so all workers are up
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)

    assert (process.returncode, errors) == (130, "")
    assert "marks reached: " in out
    assert out.endswith("all that must hold has held\n")


# -- the canary ---------------------------------------------------------------------------


def test_the_canary_is_caught(typed) -> None:
    out = typed("sim", "--seeds", 5, "--workers", 1, "--canary")

    assert re.search(r"^the canary was caught by seed \d+, which breaks S\d+$", out, re.MULTILINE)


def test_a_canary_that_lives_is_a_failure(typed, monkeypatch) -> None:
    monkeypatch.setattr(mutants, "hunt", lambda *_: None)

    out = typed("sim", "--seeds", 5, "--workers", 1, "--canary", code=1)
    assert "the canary lives: nobody noticed this bug: " in out


# -- one seed -----------------------------------------------------------------------------


def test_one_seed_is_told_in_brief(typed) -> None:
    out = typed("sim", "--seed", 3)

    assert out == typed("sim", "--seed", 3)
    assert out.startswith("who was there, on a store in ")
    assert "\nwhat happened: " in out
    assert "\nseed 3: all that must hold has held\n" in out
    assert re.search(r"^digest: [0-9a-f]{32}$", out, re.MULTILINE)


def test_all_events_are_told_if_that_is_asked(typed) -> None:
    out = typed("sim", "--seed", 0, "--all")  # 0 is a seed as well

    assert re.search(r"^what happened \((\d+) of \1 events\)$", out, re.MULTILINE)
    assert "once more, bit for bit: sitq sim --seed 0\n" in out


def test_a_seed_that_fails_is_made_small_and_told(typed, with_a_bug) -> None:
    seed = first_failing(typed)
    out = typed("sim", "--seed", seed, code=1)

    assert out == typed("sim", "--seed", seed, code=1)
    assert out.startswith(f"seed {seed} breaks S6: ")
    assert "\nmade small: " in out
    assert "\n >> " in out
    assert f"once more, bit for bit: sitq sim --seed {seed}\n" in out
    whole = typed("sim", "--seed", seed, "--whole", code=1)
    assert "made small: " not in whole
    assert f"once more, bit for bit: sitq sim --seed {seed} --whole\n" in whole


def test_a_picture_is_drawn(typed, tmp_path) -> None:
    path = tmp_path / "run.svg"
    out = typed("sim", "--seed", 3, "--picture", path)

    assert f"picture: {path}" in out
    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "cannot be written: " in typed(
        "sim", "--seed", 3, "--picture", tmp_path / "no" / "run.svg", code=1
    )


# -- bugs planted on purpose --------------------------------------------------------------


def test_a_mutant_is_hunted_and_the_story_told(typed, tmp_path) -> None:
    path = tmp_path / "run.svg"
    out = typed("sim", "--mutant", BUG, "--picture", path)

    assert out.startswith(f"{BUG}: {mutants.MUTANTS[BUG].what}\ncaught after ")
    again = re.search(
        r"^once more, bit for bit: sitq sim (--seed \d+) --mutant '(.*)'$", out, re.MULTILINE
    )
    told = typed("sim", *again[1].split(), "--mutant", again[2], code=1)
    assert told.splitlines()[0] in out.splitlines()
    assert "breaks S6" in path.read_text()
    assert typed("sim", *again[1].split()).count("has held") == 1  # it is gone


def test_a_mutant_that_survives_is_a_failure(typed, monkeypatch) -> None:
    monkeypatch.setattr(mutants, "hunt", lambda *_: None)

    assert "it has survived 7 seeds" in typed("sim", "--mutant", BUG, "--seeds", 7, code=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_mutants_are_hunted(typed, monkeypatch, workers) -> None:
    some = {name: mutants.MUTANTS[name] for name in (BUG, "dbos#541")}
    monkeypatch.setattr(mutants, "MUTANTS", some)
    out = typed("sim", "--mutants", "--workers", workers)

    for mutant in some.values():
        caught = mutants.hunt(mutant)
        row = rf"│ {mutant.name} +│ .* │ +{caught.seed} │ +{caught.runs} │ {caught.invariant} "
        assert re.search(row, out)
    assert out.endswith("all 2 were caught\n")
    monkeypatch.setattr(mutants, "hunt", lambda *_: None)
    assert "survived 7 seeds: " in typed("sim", "--mutants", "--seeds", 7, "--workers", 1, code=1)


# -- wrong usage --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed_in", "says"),
    [
        (("--seed", 1, "--seeds", 5), "--seeds does not go with --seed"),
        (("--seed", 0, "--canary"), "--canary does not go with --seed"),
        (("--picture", "x.svg"), "--picture needs --seed"),
        (("--all",), "--all needs --seed"),
        (("--fresh", "--from", 0), "--from does not go with --fresh"),
        (("--hours", 1, "--seeds", 5), "--seeds does not go with --hours"),
        (("--mutants", "--seed", 1), "--seed does not go with --mutants"),
        (("--mutant", "nobody"), "there is no mutant 'nobody'"),
        (("--mutant", "nobody", "--workers", 2), "--workers does not go with --mutant"),
        (("--seed", "x"), "is not a valid integer"),
        (("--hours", 0), "is not in the range"),
    ],
)
def test_wrong_usage_is_refused(typed, typed_in, says) -> None:
    assert says in typed("sim", *typed_in, code=2)


# -- many hosts ---------------------------------------------------------------------------


def test_each_run_has_as_many_hosts_as_are_asked_for(typed) -> None:
    out = typed("sim", "--seeds", 2, "--workers", 1, "--hosts", 40).splitlines()
    assert out[0] == "seeds from 0 to 1, workers: 1, hosts in each run: 40"
    assert out[-1] == "all that must hold has held"

    told = typed("sim", "--seed", 1, "--hosts", 40)
    assert re.search(r"^    an  \d slots?, .*; lives: an1", told, re.MULTILINE)
    assert "    ao " not in told


def test_a_fleet_that_fails_is_told_of_by_the_command_that_is_named(typed, with_a_bug) -> None:
    out = typed("sim", "--seeds", 20, "--workers", 1, "--hosts", 12, "--stop", code=1)
    seed = re.search(r"`sitq sim --seed (\d+) --hosts 12` tells what happened", out)[1]

    told = typed("sim", "--seed", seed, "--hosts", 12, "--whole", code=1)
    assert f"once more, bit for bit: sitq sim --seed {seed} --hosts 12 --whole" in told
    assert f"seed {seed} breaks S6" in told


@pytest.mark.parametrize("args", [["--mutants"], ["--mutant", BUG], ["--mutant", BUG, "--seed", 1]])
def test_planted_bugs_are_hunted_in_small_runs_alone(typed, args) -> None:
    assert "--hosts does not go with --mutant" in typed("sim", "--hosts", 5, *args, code=2)
