"""For your tests: your program in virtual time, in one known order.

    from sitq import testing

    result = testing.run(main, seed=7)

Each name is loaded when it is first asked for, from the module that defines it.

virtual      virtual time: `run`, on asyncio and on trio
manual       the queue that a test moves by hand: the fixture `sitq_queue`
crashes      `crash_everywhere`
storms       `simulate`: a scenario of your own while things go wrong
processes    tasks that are processes as far as they can tell, and can be killed
replaying    a recording of a worker, step by step
conformance  the suite for backends of others
simulation   the simulator of sitq itself: `sitq sim`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees of the table below
    from sitq.testing.crashes.crashing import crash_everywhere as crash_everywhere
    from sitq.testing.crashes.effects import Effects as Effects
    from sitq.testing.crashes.point import CrashPoint as CrashPoint
    from sitq.testing.crashes.report import (
        Crash as Crash,
        CrashBroken as CrashBroken,
        CrashReport as CrashReport,
    )
    from sitq.testing.manual.clock import ManualClock as ManualClock
    from sitq.testing.manual.queue import ManualQueue as ManualQueue
    from sitq.testing.manual.witness import EnqueuedTask as EnqueuedTask
    from sitq.testing.replaying import Replay as Replay, replay as replay
    from sitq.testing.storms.faults import FAULTS as FAULTS, Happening as Happening
    from sitq.testing.storms.report import (
        SimulationBroken as SimulationBroken,
        SimulationReport as SimulationReport,
    )
    from sitq.testing.storms.simulating import simulate as simulate
    from sitq.testing.virtual.running import now as now, run as run

_NAMES = {
    "sitq.testing.crashes.crashing": ("crash_everywhere",),
    "sitq.testing.crashes.point": ("CrashPoint",),
    "sitq.testing.crashes.report": ("Crash", "CrashBroken", "CrashReport"),
    "sitq.testing.crashes.effects": ("Effects",),
    "sitq.testing.storms.faults": ("FAULTS", "Happening"),
    "sitq.testing.manual.clock": ("ManualClock",),
    "sitq.testing.manual.queue": ("ManualQueue",),
    "sitq.testing.replaying": ("Replay", "replay"),
    "sitq.testing.storms.simulating": ("simulate",),
    "sitq.testing.storms.report": ("SimulationBroken", "SimulationReport"),
    "sitq.testing.virtual.running": ("now", "run"),
    "sitq.testing.manual.witness": ("EnqueuedTask",),
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
