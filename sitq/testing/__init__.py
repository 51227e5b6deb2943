"""For your tests: your program in virtual time, in one known order.

    from sitq import testing

    result = testing.run(main, seed=7)

Each name is loaded when it is first asked for, from the module that defines it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees of the table below
    from sitq.testing.crash_point import CrashPoint as CrashPoint
    from sitq.testing.crash_report import (
        Crash as Crash,
        CrashBroken as CrashBroken,
        CrashReport as CrashReport,
    )
    from sitq.testing.crashing import crash_everywhere as crash_everywhere
    from sitq.testing.effects import Effects as Effects
    from sitq.testing.faults import FAULTS as FAULTS, Happening as Happening
    from sitq.testing.manual_clock import ManualClock as ManualClock
    from sitq.testing.manual_queue import ManualQueue as ManualQueue
    from sitq.testing.replaying import Replay as Replay, replay as replay
    from sitq.testing.simulating import simulate as simulate
    from sitq.testing.simulation_report import (
        SimulationBroken as SimulationBroken,
        SimulationReport as SimulationReport,
    )
    from sitq.testing.virtual_time import now as now, run as run
    from sitq.testing.witness import EnqueuedTask as EnqueuedTask

_NAMES = {
    "sitq.testing.crashing": ("crash_everywhere",),
    "sitq.testing.crash_point": ("CrashPoint",),
    "sitq.testing.crash_report": ("Crash", "CrashBroken", "CrashReport"),
    "sitq.testing.effects": ("Effects",),
    "sitq.testing.faults": ("FAULTS", "Happening"),
    "sitq.testing.manual_clock": ("ManualClock",),
    "sitq.testing.manual_queue": ("ManualQueue",),
    "sitq.testing.replaying": ("Replay", "replay"),
    "sitq.testing.simulating": ("simulate",),
    "sitq.testing.simulation_report": ("SimulationBroken", "SimulationReport"),
    "sitq.testing.virtual_time": ("now", "run"),
    "sitq.testing.witness": ("EnqueuedTask",),
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
