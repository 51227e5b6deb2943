"""`Effects`: what a task has done to the world, as its test records it."""

import itertools
import os
import sys
import weakref
from collections.abc import Iterator
from typing import Any, Final

from sitq.exceptions import ValidationError
from sitq.testing.crashes.point import after_effect
from sitq.testing.processes.killable import process_of_caller


class Effects:
    """A list of what has happened: `effects.add("charged", order)`.

    Put it into the stand-ins of what your tasks speak to: the bank, the mail. It is the same one
    wherever it is carried to, also in the arguments of a task.
    """

    def __init__(self) -> None:
        self._done: list[tuple[Any, ...]] = []
        self._number = next(_numbers)
        _live[self._number] = self

    def add(self, what: str, *details: Any) -> None:
        """Record that *what* has just been done, to what the *details* say."""
        effect = (what, *details)
        process = process_of_caller.get()
        if process is not None and not process.may_record():
            return
        self._done.append(effect)
        if process is not None:
            process.recorded(after_effect(in_words(effect), sys._getframe(1)))  # noqa: SLF001

    def clear(self) -> None:
        """Forget all."""
        self._done.clear()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(tuple(self._done))

    def __len__(self) -> int:
        return len(self._done)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (os.getpid(), self._number)

    def __repr__(self) -> str:
        return f"<Effects: {', '.join(map(in_words, self)) or 'none'}>"


def in_words(effect: tuple[Any, ...]) -> str:
    """Return *effect* as a test's author would say it."""
    return " ".join(map(str, effect))


_numbers: Final = itertools.count(1)
_live: "weakref.WeakValueDictionary[int, Effects]" = weakref.WeakValueDictionary()


def _again(pid: int, number: int) -> Effects:
    """Return the very one that was pickled."""
    effects = _live.get(number) if pid == os.getpid() else None
    if effects is None:
        raise ValidationError("Effects are recorded in one process, and exist in no other")
    return effects
