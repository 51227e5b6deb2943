"""Making a run that fails small: what is left in the end is what the bug needs.

A piece is taken away, and the run is played again: does it still break the same invariant? Faults
are silenced, many at once or one by one; tasks and processes are left out; and what is odd about
the rest is made plain. The promises: the result breaks the same invariant; it is never larger than
what came in; the same run always shrinks to the same; and it takes `MOST_PLAYS` at most.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from sitq.protocol.ops import TaskPolicy
from sitq.testing.simulation.climate import CALM, QUEUES, STAMPS, NodePlan, Plan, TaskPlan
from sitq.testing.simulation.store import SqliteSimStore
from sitq.testing.simulation.trial import Trial, play

T = TypeVar("T")

MOST_PLAYS: Final = 500
MOST_FAULTS: Final = 10_000
"""More than any run can have."""
PLAIN_TASK: Final[Mapping[str, Any]] = {
    "queue": QUEUES[0],
    "priority": 0,
    "delay": 0.0,
    "policy": TaskPolicy(),
    "stamp": STAMPS[0],
    "takes": 0.1,
    "style": "async",
    "fails": 0,
    "hopeless": False,
    "kills": 0,
    "enqueues": False,
    "named": False,
    "cancelled_at": None,
    "awaited_at": None,
    "timeout": None,
}
"""A task about which nothing is odd."""
PLAIN_NODE: Final[Mapping[str, Any]] = {
    "slots": 1,
    "poll_interval": 1.0,
    "lease_for": 3.0,
    "queues": QUEUES,
    "reads": STAMPS,
    "max_batch": 500,
    "starts_at": 0.0,
    "retention": None,
    "horizon": 0.0,
    "quick": 0.0,
}


class Shrunk(NamedTuple):
    plan: Plan
    muted: frozenset[int]
    """The numbers of the faults that do not happen: all but a few."""
    trial: Trial
    """The run, and of its violations those of the one invariant."""
    plays: int
    """How many runs it took to find it."""


def shrink(failing: Trial, sqlite: SqliteSimStore | None = None, most: int = MOST_PLAYS) -> Shrunk:
    """Return a small run that breaks the invariant which *failing* broke first."""
    shrinking = _Shrinking(failing, sqlite or SqliteSimStore(), most)
    shrinking.run()
    return Shrunk(shrinking.plan, shrinking.muted, shrinking.trial, shrinking.plays)


class _Shrinking:
    def __init__(self, failing: Trial, sqlite: SqliteSimStore, most: int) -> None:
        self._invariant = failing.violations[0].invariant
        self._sqlite = sqlite
        self._most = most
        self._longest = len(failing.history)
        self.plays = 0
        self.plan = failing.plan
        self.muted: frozenset[int] = frozenset()
        self.trial = failing

    def run(self) -> None:
        """Go round until nothing more can be taken away."""
        before = None
        while before != _size(self.trial) and self.plays < self._most:
            before = _size(self.trial)
            self._calm_down()
            _reduce(self.plan.tasks, lambda tasks: bool(tasks) and self._keeps(tasks=tasks))
            self._drop_nodes()
            _reduce(self.trial.fired, self._mute_all_but)
            self._make_plain()

    def _holds(self, plan: Plan, muted: frozenset[int]) -> bool:
        """Say whether this run fails as well, and is smaller; if so, it takes the other's place."""
        if self.plays >= self._most or (plan, muted) == (self.plan, self.muted):
            return False
        self.plays += 1
        trial = play(plan, self._sqlite, muted)
        same = [found for found in trial.violations if found.invariant == self._invariant]
        longer = len(trial.history) > self._longest
        if not same or longer or _size(trial) >= _size(self.trial):
            return False
        self.plan, self.muted, self.trial = plan, muted, trial._replace(violations=same)
        return True

    def _keeps(self, **changes: Any) -> bool:
        return self._holds(self.plan._replace(**changes), self.muted)

    def _mute_all_but(self, heard: tuple[int, ...]) -> bool:
        """Faults that came only because others did not are silenced as well."""
        return self._holds(self.plan, frozenset(range(1, MOST_FAULTS)).difference(heard))

    def _calm_down(self) -> None:
        if self._keeps(climate=CALM):
            return
        for name in CALM._fields:
            rate: dict[str, Any] = {name: 0.0}
            self._keeps(climate=self.plan.climate._replace(**rate))

    def _drop_nodes(self) -> None:
        for number in reversed(range(len(self.plan.nodes))):
            nodes = self.plan.nodes[:number] + self.plan.nodes[number + 1 :]
            if nodes:
                tasks = (
                    task._replace(node=max(0, task.node - (task.node >= number)))
                    for task in self.plan.tasks
                )
                self._keeps(nodes=nodes, tasks=tuple(tasks))

    def _make_plain(self) -> None:
        self._keeps(store="model")
        self._keeps(presence=True)
        for seconds in (0.5, 1.0, 2.0):
            if seconds < self.plan.heals_at:
                self._keeps(heals_at=seconds)
        for number in range(len(self.plan.tasks)):
            self._make_task_plain(number)
        for number in range(len(self.plan.nodes)):
            self._make_node_plain(number)

    def _make_task_plain(self, number: int) -> None:
        def keeps(changes: Mapping[str, Any]) -> bool:
            tasks = list(self.plan.tasks)
            tasks[number] = tasks[number]._replace(**changes)
            return self._keeps(tasks=tuple(tasks))

        if not keeps(PLAIN_TASK):
            for name, value in PLAIN_TASK.items():
                keeps({name: value})
        task = self.plan.tasks[number]
        keeps({"at": round(task.at, 1), "takes": round(task.takes, 1)})

    def _make_node_plain(self, number: int) -> None:
        def keeps(changes: Mapping[str, Any]) -> bool:
            nodes = list(self.plan.nodes)
            nodes[number] = nodes[number]._replace(**changes)
            return self._keeps(nodes=tuple(nodes))

        if not keeps(PLAIN_NODE):
            for name, value in PLAIN_NODE.items():
                keeps({name: value})


def _size(trial: Trial) -> tuple[int, int, int]:
    """Return what is to become small: the things in a run, what is odd about them, its length."""
    plan = trial.plan
    odd = sum(_odd(task, PLAIN_TASK) + _ragged(task) for task in plan.tasks)
    odd += sum(_odd(node, PLAIN_NODE) for node in plan.nodes)
    odd += sum(rate != 0.0 for rate in plan.climate)
    odd += (plan.store != "model") + (not plan.presence)
    return len(plan.tasks) + len(plan.nodes) + len(trial.fired), odd, len(trial.history)


def _odd(what: TaskPlan | NodePlan, plain: Mapping[str, Any]) -> int:
    return sum(getattr(what, name) != value for name, value in plain.items())


def _ragged(task: TaskPlan) -> int:
    """Times are read more easily with one digit."""
    return sum(time != round(time, 1) for time in (task.at, task.takes))


def _reduce(items: tuple[T, ...], holds: Callable[[tuple[T, ...]], bool]) -> None:
    """Leave out of *items* all at once, then halves, quarters and single ones, as long as it holds.

    That is the delta debugging of Zeller and Hildebrandt.
    """
    size = len(items)
    while size:
        start = 0
        while start < len(items):
            rest = items[:start] + items[start + size :]
            if holds(rest):
                items = rest
            else:
                start += size
        size //= 2
