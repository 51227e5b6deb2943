"""What a caller asks for: a call, and the options that go with it.

Options never mix with the task's own arguments: they come from `using(...)`, from the
`@queue.task(...)` decorator, and from the queue's defaults, in this order.
"""

import functools
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import (
    Any,
    Final,
    Generic,
    NamedTuple,
    ParamSpec,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from sitq import validation
from sitq.exceptions import SerializationError, ValidationError
from sitq.protocol.ops import NO_POLICY, NewTask, RetryPolicy, TaskPolicy
from sitq.serialization import Serializer, seal
from sitq.validation import name_of

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a task is tried, and how long to wait in between.

    After attempt n has failed, the next starts `delay * factor ** (n - 1)` seconds later, at
    most `max_delay`, less up to the share `jitter` of that, drawn by chance. A worker's death
    is no attempt: see `max_crashes`.

    Args:
        attempts: 1 to 1,000, the first one included (default: 3).
        delay: seconds or a timedelta (default: 1).
        factor: 1 or more (default: 2).
        max_delay: seconds or a timedelta (default: 5 minutes).
        jitter: 0 to 1 (default: 0.1).
    """

    attempts: int = 3
    delay: float | timedelta = 1.0
    factor: float = 2.0
    max_delay: float | timedelta = 300.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        self.policy()

    def policy(self) -> RetryPolicy:
        """Return the same in seconds. Raises `ValidationError`."""
        return RetryPolicy(
            attempts=validation.whole("attempts", self.attempts, 1, validation.MAX_ATTEMPTS),
            delay=validation.seconds("delay", self.delay),
            factor=validation.number("factor", self.factor, 1, 1000),
            max_delay=validation.seconds("max_delay", self.max_delay),
            jitter=validation.number("jitter", self.jitter, 0, 1),
        )


class OptionFields(TypedDict, total=False):
    """What `using(...)` and `@queue.task(...)` take; `Options` says what each means."""

    queue: str
    priority: int
    delay: float | timedelta
    eta: datetime
    timeout: float | timedelta | None
    retry: Retry | None
    max_crashes: int
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a task is to be run.

    Attributes:
        queue: the queue it waits in (default: `"default"`).
        priority: larger runs sooner; equal ones in the order in which they came (default: 0).
        delay: seconds or a timedelta from now, by the store's clock.
        eta: an aware datetime; the task never starts before it. Not together with `delay`.
        timeout: seconds or a timedelta that one attempt may run (default: no limit).
        retry: how often it is tried (default: once).
        max_crashes: how many workers may die while they run it before it fails (default: 3).
        task_id: an id of your own. Enqueueing the same call again under it changes nothing; the
            same is what serialises to the same bytes.
    """

    queue: str = "default"
    priority: int = 0
    delay: float | timedelta = 0
    eta: datetime | None = None
    timeout: float | timedelta | None = None
    retry: Retry | None = None
    max_crashes: int = 3
    task_id: str | None = None

    def using(self, **changes: Unpack[OptionFields]) -> "Options":
        """Return these options with *changes*. Raises `ValidationError`."""
        unknown = sorted(changes.keys() - _NAMES)
        if unknown:
            raise ValidationError(
                f"there is no option {unknown[0]!r}; there are {', '.join(sorted(_NAMES))}"
            )
        if changes.get("eta") is not None and changes.get("delay"):
            raise ValidationError("eta and delay cannot be given together; give one of them")
        merged: dict[str, Any] = dict(changes)
        if "eta" in changes:  # the one that is said later holds
            merged.setdefault("delay", 0)
        elif "delay" in changes:
            merged["eta"] = None
        changed = replace(self, **merged)
        changed.check()
        return changed

    def check(self) -> None:
        """Raise `ValidationError` if an option is wrong."""
        validation.text("queue", self.queue)
        validation.whole(
            "priority", self.priority, -validation.MAX_PRIORITY, validation.MAX_PRIORITY
        )
        validation.seconds("delay", self.delay)
        if self.eta is not None:
            validation.eta_ms(self.eta)
        if self.task_id is not None:
            validation.text("task_id", self.task_id)
        self.policy()

    def terms(self) -> "Terms":
        """Return the same as storage takes it."""
        return Terms(
            queue=self.queue,
            priority=self.priority,
            run_at_ms=None if self.eta is None else validation.eta_ms(self.eta),
            delay_ms=-int(-validation.seconds("delay", self.delay) * 1000 // 1),
            policy=self.policy(),
        )

    def policy(self) -> TaskPolicy:
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise ValidationError(f"retry must be a Retry or None, not {self.retry!r}")
        if (
            self.timeout is None
            and self.retry is None
            and self.max_crashes == NO_POLICY.max_crashes
        ):
            return NO_POLICY
        return TaskPolicy(
            timeout=None
            if self.timeout is None
            else validation.seconds("timeout", self.timeout, zero=False),
            retry=NO_POLICY.retry if self.retry is None else self.retry.policy(),
            max_crashes=validation.whole("max_crashes", self.max_crashes, 1, 1000),
        )


class Terms(NamedTuple):
    """The fields of a `NewTask` that come of options, in its order."""

    queue: str
    priority: int
    run_at_ms: int | None
    delay_ms: int
    policy: TaskPolicy


def added(earlier: OptionFields, later: OptionFields) -> OptionFields:
    """Return *earlier* changes of options with *later* ones. Raises `ValidationError`."""
    DEFAULTS.using(**later)  # so that a mistake shows where it is made
    merged: OptionFields = {**earlier, **later}
    if "eta" in later:  # of these two, the one that is said later holds
        merged.pop("delay", None)
    elif "delay" in later:
        merged.pop("eta", None)
    return merged


_NAMES: Final = frozenset(field.name for field in fields(Options))
DEFAULTS: Final = Options()


class Task(Generic[T_co]):
    """A call that has not been enqueued yet: `Task(function, *args, **kwargs)`.

    Raises `ValidationError` if the function does not take these arguments.
    """

    @overload
    def __init__(
        self: "Task[T]",
        function: Callable[P, Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None: ...
    @overload
    def __init__(
        self: "Task[T]", function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    def __init__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._name = validation.call(function, args, kwargs)
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self._own: Options | None = getattr(function, "__sitq_options__", None)
        self._changes: OptionFields = {}

    def using(self, **options: Unpack[OptionFields]) -> Self:
        """Return the same call with these options changed."""
        same = object.__new__(type(self))
        same.__dict__.update(self.__dict__, _changes=added(self._changes, options))
        return same

    def options(self, defaults: Options) -> Options:
        """Return the options of this call, where *defaults* are those of its queue."""
        own = self._own or defaults
        return own.using(**self._changes) if self._changes else own

    @property
    def name(self) -> str:
        """The function's name, for people."""
        return self._name

    def new(self, task_id: str, terms: Terms, serializer: Serializer, max_payload: int) -> NewTask:
        """Return what is stored. Raises `SerializationError`, `ValidationError`."""
        function = self.function
        if isinstance(function, TaskFunction) and not function.is_importable:
            function = function.__sitq_function__
        try:
            payload = seal(serializer, (function, self.args, self.kwargs))
        except Exception as error:
            raise self._unserialisable(serializer, error) from error
        if len(payload) > max_payload:
            raise ValidationError(
                f"the call of {self.name} has {len(payload):,} bytes once serialised, more than"
                f" the backend's max_payload of {max_payload:,}: pass a path or a key instead"
            )
        return NewTask._make((task_id, payload, self._name, *terms))

    def _unserialisable(self, serializer: Serializer, error: Exception) -> SerializationError:
        """Return an error that names the argument at fault."""
        for path, value in (
            *((f"args[{i}]", value) for i, value in enumerate(self.args)),
            *((f"kwargs[{key!r}]", value) for key, value in self.kwargs.items()),
        ):
            try:
                serializer.encode(value)
            except Exception as cause:  # noqa: BLE001
                where, what = _deepest(serializer, path, value)
                return SerializationError(
                    f"{where} of {self.name} cannot be serialised: it is a"
                    f" {type(what).__qualname__} ({cause}). Pass what it was made from, and make it"
                    " again inside the task"
                )
        return SerializationError(f"{self.name} cannot be serialised: {error}")


class TaskFunction(Generic[P, R_co, T_co]):
    """A function that knows its options: what `@queue.task` makes. Calling it just calls it."""

    __qualname__: str

    def __init__(self, function: Callable[P, R_co], options: Options) -> None:
        validation.function(function)
        functools.update_wrapper(self, function)
        self.__sitq_function__ = function
        self.__sitq_options__ = options

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.__sitq_function__(*args, **kwargs)

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Task[T_co]:
        """Return the call without enqueueing it, for `enqueue_many`."""
        make: Any = Task
        task: Task[T_co] = make(self, *args, **kwargs)
        return task

    @functools.cached_property
    def is_importable(self) -> bool:
        """Whether a worker finds this very object by its module and name."""
        if self.__module__ == "__main__" or "<locals>" in self.__qualname__:
            return False
        found: Any = sys.modules.get(self.__module__)
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        return found is self

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.is_importable:
            return self.__qualname__  # pickle's way to write a global by reference
        return _restored, (type(self), self.__dict__)

    def __repr__(self) -> str:
        return f"<task {name_of(self.__sitq_function__)}>"


def _restored(kind: type[TaskFunction[..., Any, Any]], state: dict[str, Any]) -> Any:
    """Make a `TaskFunction` again that could not be pickled by its name."""
    function = object.__new__(kind)
    function.__dict__.update(state)
    return function


def _deepest(serializer: Serializer, path: str, value: Any) -> tuple[str, Any]:
    """Follow what cannot be serialised into containers and attributes, a few steps down."""
    for _ in range(5):
        for step, inner in _parts(value):
            try:
                serializer.encode(inner)
            except Exception:  # noqa: BLE001
                path, value = path + step, inner
                break
        else:
            break
    return path, value


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", inner) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", inner) for i, inner in enumerate(value)]
    inside = getattr(value, "__dict__", None)
    if isinstance(inside, dict) and not isinstance(value, type) and not callable(value):
        return [(f".{key}", inner) for key, inner in inside.items()]
    return []
