"""`sitq replay`: what a worker heard and did, and where this version would do otherwise."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from sitq.cli.replay_words import Words
from sitq.cli.terminal import console, shown
from sitq.exceptions import RecordingError
from sitq.protocol import lease, worker
from sitq.protocol.retry import Why
from sitq.testing.replaying import Replay, Step, replay

LAST: Final = 40
"""Steps that are told where nobody asks for more."""


@dataclass
class Tally:
    """What happened in the steps so far."""

    steps: int = 0
    lives: int = 0
    lost: int = 0
    timeouts: int = 0
    failed_store: int = 0
    started: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def add(self, step: Step) -> None:
        self.steps += 1
        match step.event:
            case lease.Entered():
                self.lives += 1
            case worker.StoreFailed() | lease.ApplyFailed():
                self.failed_store += 1
            case worker.TaskEnded(_, ending):
                self.ended[type(ending).__name__.lower()] += 1
            case _:
                pass
        for effect in step.effects or ():
            match effect:
                case worker.Execute():
                    self.started += 1
                case lease.LetGo():
                    self.lost += 1
                case worker.Interrupt(_, Why.TIMEOUT):
                    self.timeouts += 1
                case _:
                    pass

    def lines(self) -> Iterator[str]:
        endings = ", ".join(f"{kind} {number:,}" for kind, number in sorted(self.ended.items()))
        yield f"tasks started: {self.started:,}; ended: {endings or 'none'}"
        yield (
            f"lives begun: {self.lives:,}, leases lost: {self.lost:,}, timeouts: {self.timeouts:,},"
            f" failures of the store: {self.failed_store:,}"
        )


def show(path: Path, *, until: int | None, task: str | None, everything: bool) -> int:
    """Replay the recording and tell of it; return the exit code."""
    try:
        recording = replay(path)
        return _told(console(), recording, until=until, task=task, everything=everything)
    except RecordingError as error:
        raise click.UsageError(shown(error)) from None


def _told(
    out: Console, recording: Replay, *, until: int | None, task: str | None, everything: bool
) -> int:
    _print(out, *_runs(recording))
    words, tally = Words(recording.under_way), Tally()
    last: deque[Step] = deque(maxlen=LAST)
    differs: Step | None = None
    for step in recording.steps:
        if until is not None and step.number > until:
            break
        words.learn(step)
        tally.add(step)
        if not step.agrees and differs is None:
            differs = step
        if task is not None and task not in words.tasks(step):
            continue
        if everything:
            _print(out, *_step(step, words))
        else:
            last.append(step)
    _print(out, *tally.lines())
    if last:
        about = "" if task is None else f" about {task}"
        _print(out, "", f"the last {len(last)} of {tally.steps:,} steps{about} (times are UTC):")
        for step in last:
            _print(out, *_step(step, words))
    if differs is None:
        out.print(f"this version decides all {tally.steps:,} steps alike", style="bold green")
        return 0
    out.print(
        f"step {differs.number}: here the {differs.machine}'s machine of this version decides"
        " otherwise than the one that was recorded:",
        style="bold red",
        soft_wrap=True,
    )
    _print(out, *_step(differs, words))
    return 1


def _runs(recording: Replay) -> Iterator[str]:
    first, *_ = recording.runs
    if not first.is_whole:
        yield "the beginning is not there any more: step 1 is in the midst of the first run"
    for number, run in enumerate(recording.runs, 1):
        match run.ended:
            case None:
                end = "its end is not recorded"
            case "":
                end = "it was stopped"
            case error:
                end = f"it was ended by {error}"
        began = f"{run.began:%Y-%m-%d %H:%M:%S}"
        yield f"run {number}: pid {run.pid} on {run.host}, sitq {run.sitq}, from {began} UTC; {end}"


def _step(step: Step, words: Words) -> Iterator[str]:
    """Tell of the event, and below it of the effects."""
    differs = "" if step.agrees else "  (differs)"
    at = f"{step.at:%H:%M:%S.%f}"[:-3]
    yield f"{step.number:>6} {at} {step.machine:<6} {words.event(step.event)}{differs}"
    for effect in step.effects or ():
        yield f"{'':>26}-> {words.effect(effect)}"
    if step.raised is not None:
        yield f"{'':>26}-> raises {step.raised}"
    elif step.effects is None:
        yield f"{'':>26}-> not replayed: the machine has raised an exception before"


def _print(out: Console, *lines: str) -> None:
    for text in lines:
        out.print(shown(text), soft_wrap=True)
