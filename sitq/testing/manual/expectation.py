"""What a test says of the tasks that wait: which are meant, and what to say if there are none.

The promise: a message shows what does wait, names the task that comes nearest, and in what it
differs; and it tells if the one that was meant has run already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict

from sitq.testing.manual.witness import EnqueuedTask

SHOWN: Final = 10
"""Tasks in a message; more are counted."""


class Asked(TypedDict, total=False):
    """What a test may say of a task; what it does not say may be anything."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    queue: str
    priority: int
    eta: datetime
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A call of *name*, with whatever else is not None."""

    name: str
    args: tuple[Any, ...] | None = None
    kwargs: Mapping[str, Any] | None = None
    queue: str | None = None
    priority: int | None = None
    eta: datetime | None = None
    task_id: str | None = None

    def among(self, tasks: Sequence[EnqueuedTask]) -> list[EnqueuedTask]:
        """Return those of *tasks* that are meant."""
        return [task for task in tasks if not self.differences(task)]

    def differences(self, task: EnqueuedTask) -> list[str]:
        """Say in what *task* is another one."""
        asked = {field: getattr(self, field) for field in self.__slots__}
        return [
            f"{field}: {_value(getattr(task, field))}, not {_value(value)}"
            for field, value in asked.items()
            if value is not None and getattr(task, field) != value
        ]

    def why_none(self, tasks: Sequence[EnqueuedTask], now: datetime) -> str:
        """Say why none of *tasks*, all that were ever enqueued, is meant."""
        lines = [f"no task that waits is {self}"]
        ended = self.among([task for task in tasks if not task.waits])
        waiting = [task for task in tasks if task.waits]
        if ended:
            last = ended[-1]
            error = f": {last.error}" if last.error else ""
            lines.append(f"there was one, and it waits no more: it is {last.state}{error}")
        elif waiting:
            nearest = min(waiting, key=self._distance)
            lines.append(f"the nearest is {described(nearest, now)}")
            lines += [f"  {difference}" for difference in self.differences(nearest)]
        return "\n".join([*lines, _list(waiting, now)])

    def why_some(self, found: Sequence[EnqueuedTask], now: datetime) -> str:
        """Say which tasks are meant, where none should be."""
        lines = [f"{self} waits, and should not:"]
        return "\n".join([*lines, *(f"  {described(task, now)}" for task in found[:SHOWN])])

    def _distance(self, task: EnqueuedTask) -> tuple[bool, int]:
        return task.name != self.name, len(self.differences(task))

    def __str__(self) -> str:
        asked = [
            f"{field}={_value(getattr(self, field))}"
            for field in self.__slots__
            if field != "name" and getattr(self, field) is not None
        ]
        return f"{self.name} with {', '.join(asked)}" if asked else f"a call of {self.name}"


def described(task: EnqueuedTask, now: datetime) -> str:
    """Return *task* as a line: the call, and what is not as usual."""
    arguments = [repr(value) for value in task.args]
    arguments += [f"{name}={value!r}" for name, value in task.kwargs.items()]
    parts = [f"{task.name}({', '.join(arguments)})"]
    if task.queue != "default":
        parts.append(f"queue {task.queue!r}")
    if task.priority:
        parts.append(f"priority {task.priority}")
    if task.eta > now:
        parts.append(f"due in {task.eta - now}, at {task.eta}")
    if task.error:
        parts.append(f"to be tried again after: {task.error}")
    return ", ".join(parts)


def _list(waiting: Sequence[EnqueuedTask], now: datetime) -> str:
    if not waiting:
        return "nothing waits"
    lines = [f"  {described(task, now)}" for task in waiting[:SHOWN]]
    if len(waiting) > SHOWN:
        lines.append(f"  and {len(waiting) - SHOWN} more")
    count = "1 task waits" if len(waiting) == 1 else f"{len(waiting)} tasks wait"
    return "\n".join([f"{count}:", *lines])


def _value(value: object) -> str:
    return str(value) if isinstance(value, datetime) else repr(value)
