"""Where a task may be killed, in words that lead to a line of its author's.

The promise: the innermost frame of a chain of awaits that is not Python's, nor a library's, is
named; and the task's own, if that is another.
"""

import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import sitq


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """What had just happened, and where: the point at which a worker is killed."""

    what: str
    """Such as `the await` or `charged 7`."""
    function: str
    file: str
    line: int
    caller: str = ""
    """The task's own function and line, if it awaits others that lead there."""

    def __str__(self) -> str:
        if not self.file:
            return self.what
        where = f"{self.function}(), {self.file} line {self.line}"
        return f"after {self.what} in {where}" + (f", from {self.caller}" if self.caller else "")


AT_ITS_END: Final = CrashPoint("after its last line, before its end was stored", "", "", 0)


def after_await(coroutine: Any) -> CrashPoint:
    """Return the point at which *coroutine*, now suspended, will go on."""
    places = list(_places(coroutine))
    own = [place for place in places if not _is_a_library(place[0].co_filename)] or places[:1]
    (inner, line), (outer, first) = own[-1], own[0]
    caller = f"{_name(outer)}() line {first}" if inner is not outer else ""
    return CrashPoint("the await", _name(inner), _short(inner.co_filename), line, caller)


def after_effect(effect: str, frame: FrameType) -> CrashPoint:
    """Return the point at which *effect* has been recorded by *frame*."""
    code = frame.f_code
    return CrashPoint(effect, _name(code), _short(code.co_filename), frame.f_lineno)


def _places(awaited: Any) -> Iterator[tuple[CodeType, int]]:
    """Yield code and line of each frame from a coroutine down to what it waits for."""
    while awaited is not None:
        frame: FrameType | None = None
        for kind in ("cr", "gi", "ag"):
            if hasattr(awaited, f"{kind}_frame"):
                frame = getattr(awaited, f"{kind}_frame")
                inner = "gi_yieldfrom" if kind == "gi" else f"{kind}_await"
                awaited = getattr(awaited, inner)
                break
        if frame is None:
            return
        yield frame.f_code, frame.f_lineno


def _is_a_library(file: str) -> bool:
    return file.startswith((*_LIBRARIES, "<"))


def _name(code: CodeType) -> str:
    return code.co_qualname.rpartition("<locals>.")[2]


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


_LIBRARIES: Final = tuple(
    {
        os.path.join(folder, "")  # noqa: PTH118  # with a slash at its end
        for folder in (
            *(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib")),
            str(Path(sitq.__file__).parent),
        )
    }
)
