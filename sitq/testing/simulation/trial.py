"""One run from beginning to end: drawn, played and judged.

The promise: the same seed gives the same history and the same digest, on every machine and Python.
"""

import hashlib
from typing import NamedTuple

from sitq.protocol.ahead import PATIENCE
from sitq.testing.simulation.climate import CALM, Climate, Plan, draw
from sitq.testing.simulation.history import History
from sitq.testing.simulation.invariants import Checker, Violation
from sitq.testing.simulation.naming import node_name
from sitq.testing.simulation.store import SqliteSimStore
from sitq.testing.simulation.world import World


class Trial(NamedTuple):
    plan: Plan
    history: History
    violations: list[Violation]
    events: int
    """How many things happened in the world; the history tells of the greater ones."""
    fired: tuple[int, ...]
    """The numbers of the faults that happened."""

    @property
    def failed(self) -> bool:
        return bool(self.violations)

    def digest(self) -> str:
        """Return a name for all that happened: equal for equal histories only."""
        digest = hashlib.blake2b(digest_size=16)
        for event in self.history:
            digest.update(repr(tuple(event)).encode())
        return digest.hexdigest()


def play(
    plan: int | Plan, sqlite: SqliteSimStore | None = None, muted: frozenset[int] = frozenset()
) -> Trial:
    """Play *plan*, or the one of a seed; return what came of it.

    A bug that a machine's own assertion finds is a violation of `ASSERTION`, and ends the run.
    """
    if isinstance(plan, int):
        plan = draw(plan)
    world = World(plan, sqlite, muted)
    broken: list[Violation] = []
    try:
        world.run()
    except Exception as error:  # noqa: BLE001  # whatever a bug in a machine may raise
        text = f"{type(error).__name__}: {error}"
        broken.append(Violation("ASSERTION", text, max(0, len(world.history) - 1)))
    finally:
        world.close()
    checker = Checker(
        calm=plan.climate == CALM,
        presence=plan.presence,
        polls={node_name(n): node.poll_interval for n, node in enumerate(plan.nodes)},
        patience={node_name(n): PATIENCE * node.horizon for n, node in enumerate(plan.nodes)},
        recovers_within=recovery(plan.climate),
        undisturbed=not disturbed(plan.climate),
    )
    found = checker.check(world.history)
    return Trial(plan, world.history, found + broken, world.events, tuple(world.fired))


def recovery(climate: Climate) -> float:
    """Return for how many seconds the pauses that follow a fault may last once all is well."""
    return 6.0 if disturbed(climate) else 0.0


def disturbed(climate: Climate) -> bool:
    """Say whether the store may fail a process, or keep it waiting."""
    return any(
        (
            climate.refused,
            climate.doubted,
            climate.outage,
            climate.cut_off,
            climate.slow,
            climate.late_news,
            climate.pause,
        )
    )
