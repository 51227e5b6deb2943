"""What a caller may ask for: one function for each kind of argument.

The promise: whatever is wrong is refused here, by name, before anything is stored. Each
message says which value, which rule, and what to do instead.
"""

import contextlib
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from sitq.exceptions import ValidationError

MAX_TEXT: Final = 255
"""Characters in an id or a queue's name."""
MAX_CONCURRENCY: Final = 1000
MAX_QUEUES: Final = 100
MAX_PRIORITY: Final = 2**31 - 1
MAX_ATTEMPTS: Final = 1000
MAX_SECONDS: Final = 100 * 365 * 86400.0
"""A hundred years: whatever is longer is a mistake in units."""


def whole(name: str, value: object, least: int, most: int) -> int:
    """Return *value*, an int from *least* to *most*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValidationError(
            f"{name} must be a whole number from {least} to {most}, not {value!r}"
        )
    if not least <= value <= most:
        raise ValidationError(f"{name} must be from {least} to {most}, not {value!r}")
    return value


def seconds(name: str, value: object, *, zero: bool = True) -> float:
    """Return *value* as seconds: a finite number or a timedelta, not negative."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValidationError(f"{name} must be seconds or a timedelta, not {value!r}")
    if not math.isfinite(value) or value > MAX_SECONDS:
        raise ValidationError(
            f"{name} must be finite and at most 100 years ({MAX_SECONDS:.0f} s), not {value!r}"
        )
    if value < 0 or (value == 0 and not zero):
        rule = "0 or more" if zero else "more than 0"
        raise ValidationError(f"{name} must be {rule} seconds, not {value!r}")
    return float(value)


def number(name: str, value: object, least: float, most: float) -> float:
    """Return *value*, a number from *least* to *most*."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValidationError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}")
    return float(value)


def queues(value: object) -> tuple[str, ...]:
    """Return *value*, one or more names of queues, without repeats."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValidationError(f"queues must be a list of names, not {value!r}")
    given: Iterable[object] = value
    names = tuple(dict.fromkeys(text("a queue", name) for name in given))
    if not 1 <= len(names) <= MAX_QUEUES:
        raise ValidationError(f"queues must have 1 to {MAX_QUEUES} names, not {len(names)}")
    return names


def text(name: str, value: object) -> str:
    """Return *value*, a printable string of 1 to 255 characters."""
    if not isinstance(value, str):
        raise ValidationError(f"{name} must be a string, not {value!r}")
    if not value or len(value) > MAX_TEXT:
        raise ValidationError(
            f"{name} must have 1 to {MAX_TEXT} characters, not {len(value)}: {value[:40]!r}"
        )
    if not value.isprintable():
        raise ValidationError(f"{name} must be printable, without control characters: {value!r}")
    return value


def path(name: str, value: object) -> str:
    """Return *value*, the path of a file, as an absolute one."""
    given = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(given, str) or not given or "\0" in given:
        raise ValidationError(f"{name} must be the path of a file, a str or a Path, not {value!r}")
    return os.path.abspath(given)  # noqa: PTH100  # a text is what the caller gets back


def eta_ms(value: object) -> int:
    """Return *value*, an aware datetime, as milliseconds since the epoch, rounded up.

    Rounded up, because a task never starts early. The past is allowed: it is due at once.
    """
    if not isinstance(value, datetime):
        raise ValidationError(
            f"eta must be an aware datetime, not {value!r}; for a time from now use delay="
        )
    if value.utcoffset() is None:
        raise ValidationError(
            f"eta must be aware, not {value!r}: add a time zone, as in"
            " datetime.now(timezone.utc) or datetime(..., tzinfo=ZoneInfo('Europe/Berlin'))"
        )
    try:
        since = value.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except OverflowError:
        raise ValidationError(f"eta lies outside of the calendar: {value!r}") from None
    if since > timedelta(days=366 * 200):
        raise ValidationError(f"eta must lie before the year 2170, not {value!r}")
    return -(-since // timedelta(milliseconds=1))


def function(value: Any) -> None:
    """Refuse *value* if it is nothing that a worker can call and wait for."""
    if inspect.iscoroutine(value):
        value.close()  # else Python warns that it was never awaited
        raise ValidationError(
            f"enqueue takes the function, not a call of it: enqueue({value.__name__}, ...),"
            f" not enqueue({value.__name__}(...))"
        )
    if not callable(value):
        raise ValidationError(f"enqueue takes a function or another callable first, not {value!r}")
    called = value
    while isinstance(called, functools.partial):
        called = called.func
    if not inspect.isroutine(called):
        called = getattr(called, "__call__", called)  # noqa: B004
    if inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        raise ValidationError(
            f"{_name(value)} is a generator function: a task returns one value; collect the"
            " items in a list"
        )


class _Looked(NamedTuple):
    """What was found of a function that is fit.

    It takes *least* to *most* arguments where none is named; the *signature* knows of the others.
    It is without values and types: they may lead to the function, and would keep it for ever.
    """

    name: str
    least: float
    most: float
    signature: inspect.Signature | None


_looked_at: Final[WeakKeyDictionary[Any, _Looked]] = WeakKeyDictionary()
"""To look costs more than all else that an enqueue does before the store has it."""


def call(value: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Refuse a call that no worker can make: of no function, or with arguments it does not take.

    Return the name of the function.
    """
    try:
        found = _looked_at[value]
    except (KeyError, TypeError):  # a TypeError if it cannot be hashed or weakly referenced
        function(value)
        found = _look_at(value)
        with contextlib.suppress(TypeError):
            _looked_at[value] = found
    name, least, most, signature = found
    if signature is None or (not kwargs and least <= len(args) <= most):
        return name
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        whole_one = _signature(value)
        raise ValidationError(f"{_name(value)}{whole_one} cannot be called so: {error}") from None
    return name


def _look_at(value: Callable[..., Any]) -> _Looked:
    signature = _signature(value)
    least = most = 0.0
    for parameter in () if signature is None else signature.parameters.values():
        match parameter.kind:
            case parameter.POSITIONAL_ONLY | parameter.POSITIONAL_OR_KEYWORD:
                most += 1
                least += parameter.default is parameter.empty
            case parameter.VAR_POSITIONAL:
                most = math.inf
            case parameter.KEYWORD_ONLY if parameter.default is parameter.empty:
                least = math.inf
            case _:
                pass
    return _Looked(name_of(value), least, most, None if signature is None else _bare(signature))


def _bare(signature: inspect.Signature) -> inspect.Signature:
    """Return *signature* with None for each default, and without annotations."""
    empty = inspect.Parameter.empty
    return inspect.Signature(
        [
            parameter.replace(
                default=empty if parameter.default is empty else None, annotation=empty
            )
            for parameter in signature.parameters.values()
        ]
    )


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of *function* for people, in at most 255 printable characters."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    name = f"{named.__module__}.{named.__qualname__}"
    if not name.isprintable():
        name = "".join(c if c.isprintable() else "?" for c in name)
    return name[:MAX_TEXT]


def _signature(value: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of *value*, None for the builtins that have none."""
    try:
        return inspect.signature(value)
    except (ValueError, TypeError):
        return None


def _name(value: object) -> str:
    return str(getattr(value, "__qualname__", None) or repr(value))
