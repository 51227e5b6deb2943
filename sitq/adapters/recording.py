"""What a recording says: how the messages and the state of a machine become JSON, and come back.

The promises:
- No payload, no result and no text of an error is in it. Of bytes the number is kept, of a text
  the length, of an exception the type. A text is kept only if its field is in `KEPT`.
- What comes back makes a machine decide as it did: all it decides on is kept as it was.
- Nothing is listed by hand: the messages' own fields and annotations say how each is written.

Each line is one JSON value. An object begins a run or a segment (`Begin`), an array is one event
that a machine has received (`Heard`), a string says how the run ended.
"""

import json
import math
import typing
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from sitq.exceptions import RecordingError
from sitq.protocol.ahead import Ahead
from sitq.protocol.lease import LeaseConfig, LeaseEffect, LeaseEvent, LeaseState, LeaseTimer
from sitq.protocol.time_limits import TimeLimits
from sitq.protocol.timers import Timers
from sitq.protocol.worker import (
    Running,
    WorkerConfig,
    WorkerEffect,
    WorkerEvent,
    WorkerState,
    WorkerTimer,
)

VERSION: Final = 1
"""Of the format. A recording of a newer one is refused."""
MARK: Final = "sitq_recording"
"""The first word of every file."""
KEPT: Final = frozenset(
    {
        "dead", "error_type", "holder", "host", "id", "left_behind", "name", "over", "peers",
        "queue", "queues", "reason", "stamps", "task_id", "task_ids", "worker_id", "worker_ids",
        "workers",
    }
)  # fmt: skip
"""Fields whose texts are kept: names that sitq or its caller gave. All others are hidden."""
MOST_BYTES: Final = 2**31
MOST_CHARACTERS: Final = 2**20
"""Of what was hidden: a recording that speaks of more is not believed."""
LATEST: Final = 1e11
"""Seconds on any clock: some 3,000 years."""


class Hidden(Exception):
    """An exception of which only the type was kept."""

    @property
    def kind(self) -> str:
        return str(self.args[0])


class Begin(NamedTuple):
    """Where a replay can begin: a run's start, or all that its machines knew at a later moment.

    *clocks* says what each machine's clock showed at *wall_ms*, when the run began. *state* is
    empty at a run's start.
    """

    sitq: str
    run: str
    wall_ms: int
    clocks: dict[str, float]
    config: dict[str, Any]
    state: dict[str, dict[str, Any]]
    segment: int = 0


class Heard(NamedTuple):
    """One event of one machine; *did* names the effects that followed, "" if there were none."""

    machine: str
    now: float
    event: Any
    did: str = ""
    chance: tuple[float, ...] = ()


class Ended(NamedTuple):
    """The end of a run; *error* is the type of what ended it, "" if it was stopped."""

    error: str


# -- writing -------------------------------------------------------------------------------


def encoded(value: Any, kept: bool = False) -> Any:
    """Return *value* as JSON has it; a text in it stands as it is only if it is *kept*."""
    kind = type(value)
    if kind in _AS_IT_IS:
        return value
    if kind is str:
        return value if kept else {"text": len(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is tuple:
        return [encoded(item, kept) for item in value]
    flags = _flags.get(kind)
    if flags is None:
        names = getattr(kind, "_fields", None)
        if names is None:
            return _encoded_thing(kind, value, kept)
        flags = _flags[kind] = tuple(name in KEPT for name in names)
    return {kind.__name__: list(map(encoded, value, flags))}


_AS_IT_IS: Final = frozenset({int, bool, type(None)})
_flags: Final[dict[type, tuple[bool, ...]]] = {}
"""By kind of message: which of its fields may keep their texts. This is done for every event."""


def _encoded_thing(kind: type, value: Any, kept: bool) -> Any:
    """Return what is no message: it is in a configuration or a state, or it is rare."""
    if kind is bytes:
        return {"bytes": len(value)}
    if isinstance(value, Enum):
        return {kind.__name__: value.value}
    if isinstance(value, Exception):
        return {"error": value.kind if isinstance(value, Hidden) else kind.__name__}
    if isinstance(value, Mapping):
        return {"dict": [[encoded(k, True), encoded(v, kept)] for k, v in value.items()]}
    if kind in (list, set, deque):
        return {kind.__name__: [encoded(item, kept) for item in value]}
    if is_dataclass(value):
        return {
            kind.__name__: encoded_fields({f.name: getattr(value, f.name) for f in fields(value)})
        }
    assert kind in _PARTS, f"a recording has no words for a {kind.__name__}"
    return {kind.__name__: encoded_fields(vars(value))}


_PARTS: Final = frozenset({Ahead, TimeLimits, Timers})
"""What machines are made of, besides messages: their attributes are all there is to them."""


def encoded_fields(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: encoded(item, name.lstrip("_") in KEPT) for name, item in named.items()}


_json: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def line(value: Any) -> str:
    """Return a line of the file."""
    return f"{_json(value)}\n"


def begin_line(begin: Begin) -> str:
    return line({MARK: VERSION} | begin._asdict())


def heard_line(heard: Heard) -> str:
    row = [heard.machine, heard.now, encoded(heard.event), heard.did, heard.chance]
    while not row[-1]:  # the event at least is never empty
        row.pop()
    return line(row)


def digest(effects: Iterable[Any]) -> str:
    """Return a name for *effects*, as far as a recording would tell them apart; "" for none."""
    said = [encoded(effect) for effect in effects]
    if not said:
        return ""
    return blake2b(line(said).encode(), digest_size=4).hexdigest()


def raised(error: BaseException) -> str:
    """Return what stands for effects where there are none: the machine has a bug."""
    return f"raised {type(error).__name__}"


# -- reading -------------------------------------------------------------------------------


class Words:
    """The classes that one machine speaks in, by name.

    The two machines share some names: each has a `Started` of its own.
    """

    def __init__(self, *roots: Any) -> None:
        self._classes: dict[str, type] = {}
        for root in roots:
            self._learn(root)

    def __iter__(self) -> typing.Iterator[type]:
        return iter(self._classes.values())

    def decoded(self, said: Any) -> Any:
        """Return what `encoded` was given; zeros and question marks stand for what is hidden."""
        if isinstance(said, list):
            return tuple(self.decoded(item) for item in said)
        if not isinstance(said, dict):
            return said
        ((name, inside),) = said.items()
        match name:
            case "bytes":
                return bytes(
                    _size(inside, MOST_BYTES)
                )  # zeros take no memory while nobody reads them
            case "text":
                return "?" * _size(inside, MOST_CHARACTERS)
            case "float":
                return float(inside)
            case "error":
                return Hidden(inside)
            case "dict":
                return {self.decoded(key): self.decoded(item) for key, item in inside}
            case "list":
                return [self.decoded(item) for item in inside]
            case "set":
                return {self.decoded(item) for item in inside}
            case "deque":
                return deque(self.decoded(item) for item in inside)
            case _:
                return self._thing(self._classes[name], inside)

    def decoded_fields(self, said: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.decoded(item) for name, item in said.items()}

    def _thing(self, kind: type, inside: Any) -> Any:
        if issubclass(kind, Enum):
            return kind(inside)
        if kind in _PARTS:
            part: Any = object.__new__(kind)
            vars(part).update(self.decoded_fields(inside))
            return part
        if is_dataclass(kind):
            return kind(**self.decoded_fields(inside))
        return kind(*(self.decoded(item) for item in inside))

    def _learn(self, hint: Any) -> None:
        """Learn a class, and all that its fields may hold."""
        for inner in typing.get_args(hint):
            self._learn(inner)
        kind = typing.get_origin(hint) or hint
        if not isinstance(kind, type) or self._classes.get(kind.__name__) is kind:
            return
        if issubclass(kind, Enum) or kind in _PARTS:
            self._classes[kind.__name__] = kind
        elif hasattr(kind, "_fields") or is_dataclass(kind):
            assert kind.__name__ not in self._classes, f"two classes are called {kind.__name__}"
            self._classes[kind.__name__] = kind
            for inner in typing.get_type_hints(kind).values():
                self._learn(inner)


def worker_words() -> Words:
    said = (WorkerEvent, WorkerEffect, WorkerConfig, WorkerState, WorkerTimer, Running)
    return Words(*said, *_PARTS)


def lease_words() -> Words:
    return Words(LeaseEvent, LeaseEffect, LeaseConfig, LeaseState, LeaseTimer, Timers)


def read_line(text: str, words: Mapping[str, Words]) -> Begin | Heard | Ended:
    """Return what a line says.

    Raises:
        RecordingError: it says nothing, or in words that this version does not know.
    """
    try:
        said = json.loads(text)
        match said:
            case str():
                return Ended(said)
            case [str(machine), float() | int() as now, event, *rest]:
                heard = words[machine].decoded(event)
                did, chance = _answer(*rest)
                return Heard(machine, _moment(now), heard, did, chance)
            case {"sitq_recording": int(version)} if version <= VERSION:
                return _begin(said, words)
            case {"sitq_recording": version}:
                raise RecordingError(
                    f"it was recorded in format {version} by sitq {said.get('sitq')}, and this"
                    f" version reads up to {VERSION}: replay it with that one"
                )
            case _:
                raise RecordingError("it is no line of a recording")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RecordingError(
            f"it is no line of a recording that this version can read: {error!r}"
        ) from error


def _answer(did: str = "", chance: Iterable[float] = ()) -> tuple[str, tuple[float, ...]]:
    """Return the rest of a line, of which what is empty was left out."""
    return did, tuple(chance)


def _begin(said: dict[str, Any], words: Mapping[str, Words]) -> Begin:
    begin = Begin(**{name: item for name, item in said.items() if name != MARK})
    _moment(begin.wall_ms / 1000)
    config = {name: words[name].decoded(begin.config[name]) for name in words}
    if not isinstance(config["worker"], WorkerConfig) or not isinstance(
        config["lease"], LeaseConfig
    ):
        raise TypeError("these are no configurations")
    return begin._replace(
        clocks={name: _moment(begin.clocks[name]) for name in words},
        config=config,
        state={name: words[name].decoded_fields(begin.state[name]) for name in words}
        if begin.state
        else {},
    )


def _moment(seconds: float) -> float:
    if not 0 <= seconds <= LATEST:
        raise ValueError(f"{seconds!r} is no time")
    return seconds


def _size(said: Any, most: int) -> int:
    if not isinstance(said, int) or not 0 <= said <= most:
        raise ValueError(f"{said!r} is no size")
    return said


# -- the state of a machine ----------------------------------------------------------------


def state_of(machine: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return what *machine* knows: its attributes *names*, as JSON has them."""
    return encoded_fields({name: getattr(machine, name) for name in names})


def restore(machine: Any, state: Mapping[str, Any]) -> None:
    """Give *machine*, which is new, what another knew.

    Raises:
        RecordingError: the machines of this version keep their knowledge otherwise.
    """
    if set(state) != set(known_names(machine)):
        raise RecordingError(
            f"the {type(machine).__name__} of this version is built otherwise than the one that was"
            " recorded; replay it with the version that recorded it"
        )
    vars(machine).update(state)


def known_names(machine: Any) -> tuple[str, ...]:
    """Return the attributes that make up the state of *machine*, which is new."""
    return tuple(name for name in vars(machine) if name not in {"config", "_unit"})
