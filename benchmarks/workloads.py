"""The table of workloads, and of the figures that each has."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from benchmarks import cost, pickup, throughput
from benchmarks.bench import Bench


class Figure(NamedTuple):
    words: str
    unit: str
    more_is_better: bool = True


class Workload(NamedTuple):
    words: str
    run: Callable[[Bench], Awaitable[dict[str, float]]]
    figures: Mapping[str, Figure]
    needs: tuple[str, ...] = ()
    """what a peer may lack"""
    rounds: int = 1_000
    """at most: what takes long, or is always the same, is not measured in every round"""
    needs_store: bool = True


def _less(words: str, unit: str) -> Figure:
    return Figure(words, unit, more_is_better=False)


RATE: Final = {"rate": Figure("", "tasks/s")}
LATENCIES: Final = {
    "p50": _less("to its first line, p50", "ms"),
    "p99": _less("p99", "ms"),
    "trip p50": _less("to its result, p50", "ms"),
    "trip p99": _less("p99", "ms"),
}

WORKLOADS: Final[Mapping[str, Workload]] = {
    "enqueue": Workload("Enqueue, one after the other", throughput.enqueue_one, RATE),
    "enqueue-100": Workload(
        "Enqueue, from 100 callers", throughput.enqueue_100, RATE, needs=("many callers",)
    ),
    "enqueue-bulk": Workload(
        "Enqueue, 1,000 at once", throughput.enqueue_bulk, RATE, needs=("bulk",)
    ),
    "drain": Workload(
        "Drain a backlog, with one process", throughput.drain, RATE, needs=("worker",)
    ),
    "drain-2": Workload(
        "Drain, with two processes", partial(throughput.drain, processes=2), RATE, needs=("worker",)
    ),
    "drain-4": Workload(
        "Drain, with four processes",
        partial(throughput.drain, processes=4),
        RATE,
        needs=("worker",),
    ),
    "drain-serial": Workload(
        "Drain, with one process and one task at a time",
        throughput.drain_serial,
        RATE,
        needs=("worker",),
    ),
    "compute": Workload(
        "Tasks that compute for a millisecond",
        throughput.compute,
        {
            "one": Figure("one process", "tasks/s"),
            "two": Figure("two", "tasks/s"),
            "scaling": Figure("two / one", ""),
        },
        needs=("worker",),
    ),
    "pickup": Workload(
        "From `enqueue` to another process and back", pickup.across, LATENCIES, needs=("worker",)
    ),
    "pickup-inside": Workload(
        "From `enqueue` to a worker in the same event loop",
        pickup.inside,
        LATENCIES,
        needs=("worker", "beside"),
    ),
    "backlog": Workload(
        "Drain when little waits, and when much does",
        throughput.backlog,
        {
            "few": Figure("little", "tasks/s"),
            "many": Figure("much", "tasks/s"),
            "kept": Figure("much / little", ""),
            "long": Figure("much, for 3 s", "tasks/s"),
        },
        rounds=3,
        needs=("worker", "deep"),
    ),
    "history": Workload(
        "Enqueue when nothing has ended, and when much has",
        throughput.history,
        {
            "none": Figure("nothing", "tasks/s"),
            "many": Figure("much", "tasks/s"),
            "kept": Figure("much / nothing", ""),
        },
        rounds=3,
        needs=("history",),
    ),
    "stalls": Workload(
        "Drain while finished tasks are pruned and the WAL is checkpointed",
        throughput.stalls,
        {
            "gap": _less("longest pause", "ms"),
            "quiet": _less("while no sync took 20 ms", "ms"),
            "disk": _less("longest sync of a file beside it", "ms"),
            "rate": Figure("", "tasks/s"),
            "pruned": Figure("pruned", "tasks/s"),
        },
        rounds=3,
        needs=("history", "worker"),
    ),
    "idle": Workload(
        "A worker with nothing to do",
        cost.idle,
        {
            "worker": _less("worker", "% of a core"),
            "server": _less("server", "% of a core"),
            "memory": _less("memory", "MiB"),
        },
        rounds=3,
        needs=("worker",),
    ),
    "import": Workload(
        "Import", cost.importing, {"time": _less("", "ms")}, rounds=3, needs_store=False
    ),
    "waiting": Workload(
        "Memory of a task that waits",
        cost.waiting,
        {"memory": _less("", "KiB")},
        rounds=3,
        needs=("worker", "many waits"),
    ),
    "callers": Workload(
        "Memory of a caller that waits for a result",
        cost.callers,
        {"memory": _less("", "KiB")},
        rounds=3,
        needs=("result", "many waits"),
    ),
}
