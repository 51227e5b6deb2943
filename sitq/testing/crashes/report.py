"""What came of each crash, compared with what a task does undisturbed; and how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sitq.core import Result, TaskStatus
from sitq.exceptions import CheckFailed
from sitq.testing.crashes.effects import in_words
from sitq.testing.crashes.point import CrashPoint


@dataclass(frozen=True, slots=True)
class Crash:
    """One crash, and what it has broken: nothing, if *broken* is empty."""

    point: CrashPoint
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CrashReport:
    """All crashes of one task, in the order of its points. Printed, it is a list of them."""

    call: str
    undisturbed: str
    crashes: tuple[Crash, ...]

    @property
    def broken(self) -> tuple[Crash, ...]:
        """The crashes that the task did not survive."""
        return tuple(crash for crash in self.crashes if crash.broken)

    def __str__(self) -> str:
        count = len(self.crashes)
        lines = [
            f"{self.call}, killed at {count} {'point' if count == 1 else 'points'}"
            " and run again from the beginning"
        ]
        lines.append(f"undisturbed: {self.undisturbed}")
        for crash in self.crashes:
            lines.append(f"  {'BROKEN' if crash.broken else 'ok':<6}  {crash.point}")
            lines += [f"          {broken}" for broken in crash.broken]
        return "\n".join(lines)


class CrashBroken(CheckFailed):
    """A task does not survive every crash; `report` has all of them."""

    def __init__(self, report: CrashReport) -> None:
        count = len(report.broken)
        super().__init__(f"{count} of {len(report.crashes)} crashes broke a promise\n{report}")
        self.report = report

    def __reduce__(self) -> tuple[type, tuple[CrashReport]]:
        return type(self), (self.report,)


def differences(before: object, after: object) -> tuple[str, ...]:
    """Say in what the effects of a crashed task differ from the undisturbed ones.

    Of lists, in whatever order: a task that does two things side by side may be killed between.
    """
    if not isinstance(before, list) or not isinstance(after, list):
        return () if before == after else (f"{after!r} instead of {before!r}",)
    found = []
    distinct: list[Any] = []
    for effect in (*before, *after):
        if effect not in distinct:
            distinct.append(effect)
    for effect in distinct:
        once, now = before.count(effect), after.count(effect)
        if once != now:
            found.append(f"{words(effect)}: {_times(now)} instead of {_times(once)}")
    return tuple(found)


def other_end(result: Result) -> tuple[str, ...]:
    """Say how a task ended that succeeds when it is undisturbed."""
    if result.status is TaskStatus.SUCCESS:
        return ()
    return (f"run again, it ended as {result.status}: {result.error or result.reason}",)


def all_words(effects: object) -> str:
    """Return effects as a line."""
    if not isinstance(effects, list):
        return repr(effects)
    return ", ".join(map(words, effects)) or "no effects"


def words(effect: object) -> str:
    return in_words(effect) if isinstance(effect, tuple) else str(effect)


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def shown(calls: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """Return a call as it would be written."""
    arguments = [repr(value) for value in args]
    arguments += [f"{name}={value!r}" for name, value in kwargs.items()]
    return f"{calls}({', '.join(arguments)})"
