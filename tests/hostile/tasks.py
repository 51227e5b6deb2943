"""Tasks that do what no task should."""

import builtins
import contextvars
import weakref

import anyio

# -- errors that lie, or fail, when they are asked ---------------------------------------


class HostileString(str):
    """A string that cannot be measured, joined or cut."""

    __slots__ = ()

    def __len__(self):
        raise SystemExit("from __len__")

    def __bool__(self):
        raise SystemExit("from __bool__")

    def __radd__(self, other):
        raise SystemExit("from __radd__")

    def __getitem__(self, index):
        raise SystemExit("from __getitem__")

    def encode(self, *args):
        raise SystemExit("from encode")


class HostileStringAsText(Exception):
    def __str__(self) -> str:
        return HostileString("kept")

    __repr__ = __str__


class NamedByAHostileString(type):
    @property
    def __name__(cls) -> str:
        return HostileString("Kept")


class OddName(Exception, metaclass=NamedByAHostileString):
    pass


class HostileClass(Exception):
    @property
    def __class__(self):
        raise SystemExit("from __class__")


class Liar(Exception):
    """Says that it is a cancellation."""

    @property
    def __class__(self):
        return anyio.get_cancelled_exc_class()


class HostileGroup(BaseExceptionGroup):
    def split(self, condition):
        raise SystemExit("from split")

    def derive(self, errors):
        raise SystemExit("from derive")


class HostileCause(Exception):
    @property
    def __cause__(self):
        raise SystemExit("from __cause__")

    @property
    def __traceback__(self):
        raise SystemExit("from __traceback__")


def groups_in_groups() -> Exception:
    error: Exception = ValueError("inner")
    for _ in range(5_000):
        error = ExceptionGroup("outer", [error])
    return error


def a_long_chain() -> Exception:
    error = ValueError("first")
    for number in range(10_000):
        later = ValueError(f"number {number}")
        later.__cause__ = error
        error = later
    return error


def a_cancellation() -> BaseException:
    """Make one that nobody asked for; trio lets nobody call its class."""
    kind = anyio.get_cancelled_exc_class()
    return kind.__new__(kind)


ERRORS = {
    "a string of its own kind": lambda: HostileStringAsText("x"),
    "a name of its own kind": lambda: OddName("kept"),
    "hostile class": lambda: HostileClass("kept"),
    "a liar": lambda: Liar("kept"),
    "hostile group": lambda: HostileGroup("kept", [KeyboardInterrupt()]),
    "groups in groups": groups_in_groups,
    "a long chain": a_long_chain,
    "hostile cause": lambda: HostileCause("kept"),
    "a hundred megabytes": lambda: ValueError("x" * 100_000_000),
    "a cancellation": a_cancellation,
}

BUILTIN = sorted(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)


def builtin_error(name: str) -> BaseException:
    kind = getattr(builtins, name)
    if issubclass(kind, BaseExceptionGroup):
        inner = ValueError if issubclass(kind, Exception) else SystemExit
        return kind("kept", [inner("inner")])
    if kind is UnicodeDecodeError:
        return kind("utf-8", b"\xff", 0, 1, "kept")
    if kind is UnicodeEncodeError:
        return kind("ascii", "\xff", 0, 1, "kept")
    if kind is UnicodeTranslateError:
        return kind("\xff", 0, 1, "kept")
    return kind("kept")


def throw(name: str):
    raise ERRORS[name]() if name in ERRORS else builtin_error(name)


async def throw_async(name: str):
    throw(name)


async def throw_when_interrupted(name: str):
    try:
        await anyio.sleep(60)
    except BaseException:
        throw(name)


# -- results -----------------------------------------------------------------------------


class HostileNames(type):
    def __getattribute__(cls, name):
        if name in {"__qualname__", "__name__", "__module__"}:
            raise SystemExit(f"from {name}")
        return super().__getattribute__(name)


class Unpicklable(metaclass=HostileNames):
    def __reduce__(self):
        raise KeyboardInterrupt("from __reduce__")


class WithoutClass:
    @property
    def __class__(self):
        raise SystemExit("from __class__")


def lists_in_lists() -> list:
    value: list = []
    for _ in range(100_000):
        value = [value]
    return value


RESULTS = {
    "names that raise": Unpicklable,
    "a class that raises": WithoutClass,
    "lists in lists": lists_in_lists,
    "a weak reference": lambda: weakref.ref(Unpicklable),
}


def give(name: str):
    return RESULTS[name]()


async def give_async(name: str):
    return RESULTS[name]()


# -- what stays behind -------------------------------------------------------------------

label = contextvars.ContextVar("label", default="untouched")


async def set_label() -> None:
    label.set("touched")


def set_label_in_thread() -> None:
    label.set("touched")


async def read_label() -> str:
    return label.get()


def read_label_in_thread() -> str:
    return label.get()


attempts = []


async def spoil(items: list, options: dict) -> list:
    """Change the arguments; fail the first time."""
    items.append("spoilt")
    options.clear()
    attempts.append(list(items))
    if len(attempts) == 1:
        raise LookupError("once more")
    return items


async def swallow(times: int) -> str:
    """Go on through so many interrupts."""
    swallowed = 0
    while swallowed < times:
        try:
            await anyio.sleep(60)
        except BaseException:
            swallowed += 1
    return "had enough"


async def pass_by() -> str:
    return "passed"


def repeat(value: str, *, times: int) -> str:
    return value * times
