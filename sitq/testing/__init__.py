"""For your tests: your program in virtual time, in one known order.

    from sitq import testing

    result = testing.run(main, seed=7)

Each name is loaded when it is first asked for, from the module that defines it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees of the table below
    from sitq.testing.virtual_time import now as now, run as run

_NAMES = {
    "sitq.testing.virtual_time": ("now", "run"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # to a type checker, the imports above say it
    __all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'sitq.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
