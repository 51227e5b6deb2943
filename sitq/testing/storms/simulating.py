"""`simulate`: your own scenario, many times, while things go wrong for its workers and its store.

Each run is a virtual one, and its seed decides all of it. The scenario hands over its tasks while
workers are killed, paused and restarted, and the store refuses, loses answers and is slow. Then the
storm is over, the rest is worked off, and what was promised is looked at: by sitq for its own
promises, and by `check` for those of the scenario.

Workers are the real ones. Each is a program of its own, as far as it can tell: what was killed does
not run on, and the others have to find out.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import anyio
from anyio.abc import TaskGroup

from sitq import validation
from sitq.adapters import clocks
from sitq.adapters.inline import MemoryStore
from sitq.core import Result
from sitq.exceptions import EnqueueUnknown, StoreError
from sitq.queue import TaskQueue
from sitq.testing.processes.killable import InProcess, Process, beside_its_parent, process_of_caller
from sitq.testing.processes.quiet import quiet
from sitq.testing.processes.spawning import change_what_tasks_run
from sitq.testing.storms.faults import FAULTS, Fault, Happening, Storm, checked_faults
from sitq.testing.storms.faulty_backend import FaultyBackend, Sea
from sitq.testing.storms.live_functions import LiveFunctions
from sitq.testing.storms.postponed import Postponed
from sitq.testing.storms.promises import Promises
from sitq.testing.storms.report import SimulationBroken, SimulationReport
from sitq.testing.virtual.running import LoopName, run
from sitq.worker import Worker

T = TypeVar("T")

LEASE: Final = 10.0
LIMIT: Final = timedelta(hours=6)


def simulate(
    scenario: Callable[[TaskQueue], Awaitable[T]],
    *,
    workers: int = 3,
    queues: Sequence[str] = ("default",),
    seeds: int = 100,
    seed: int | None = None,
    faults: Iterable[Fault] = tuple(FAULTS),
    check: Callable[[T, dict[str, Result]], object] | None = None,
    backend: LoopName = "asyncio",
    limit: timedelta | float = LIMIT,
) -> SimulationReport:
    """Run *scenario* under *workers* that fail, once for each seed from 0 on.

    Args:
        scenario: an async function. It is given a `TaskQueue`, and enqueues, waits, cancels. The
            store may refuse it as well: it must expect what `enqueue` may raise.
        workers: how many there are at a time.
        queues: the queues that they serve.
        seeds: how many runs.
        seed: the one run to make instead, to see a failure again.
        faults: what may go wrong: the keys of `FAULTS`, or some of them.
        check: called after each run with what the scenario has returned, and the result of each
            task by its id. It raises, or returns False, if something is wrong.
        backend: the event loop, `"asyncio"` or `"trio"`.
        limit: how much virtual time a run may take (default: six hours).

    Raises:
        SimulationBroken: the scenario or *check* has raised, or a task was lost, ended twice, or
            came too early, or the run did not come to its end. It is an `AssertionError`.
        ValidationError: an argument is wrong.
    """
    __tracebackhide__ = True
    chosen = checked_faults(faults)
    orders = _Orders(validation.whole("workers", workers, 1, 100), validation.queues(queues))
    last = validation.whole("seeds", seeds, 1, 10**9)
    seconds = validation.seconds("limit", limit, zero=False)
    names: Counter[str] = Counter()
    lasted = 0.0
    for number in range(last) if seed is None else [seed]:
        played = _Run(scenario, orders, number, chosen, check)
        with quiet():
            try:
                run(played.play, seconds, seed=number, backend=backend)
            except Exception as error:  # noqa: BLE001  # told with its seed
                played.broke(f"the run was ended by {type(error).__name__}: {error}", error)
        if played.broken:
            name = getattr(scenario, "__name__", repr(scenario))
            failure = SimulationBroken(played.broken, name, number, played.happened)
            raise failure from played.cause
        names.update(happening.fault for happening in played.happened)
        lasted += played.lasted
    runs = last if seed is None else 1
    return SimulationReport(runs, timedelta(seconds=lasted), names)


class _Orders(NamedTuple):
    """How many workers there are at a time, and whom they serve."""

    workers: int
    queues: tuple[str, ...]


class _Run:
    """One run, and what came of it."""

    def __init__(
        self,
        scenario: Callable[[TaskQueue], Awaitable[Any]],
        orders: _Orders,
        seed: int,
        faults: frozenset[Fault],
        check: Callable[[Any, dict[str, Result]], object] | None,
    ) -> None:
        self.broken = ""
        self.cause: BaseException | None = None
        self.happened: list[Happening] = []
        self.lasted = 0.0
        self._scenario = scenario
        self._orders = orders
        self._seed = seed
        self._faults = faults
        self._check = check
        self._serializer = LiveFunctions()
        self._returned: list[Any] = []

    async def play(self, limit: float) -> None:
        storm = Storm(self._seed, self._faults)
        self.happened = storm.happened
        store = Promises(MemoryStore(clocks.moment))
        change_what_tasks_run(partial(beside_its_parent, counts=False))
        postponed = Postponed()
        sea = Sea(store, storm, postponed.later)
        async with anyio.create_task_group() as group:
            group.start_soon(postponed.run)
            crew = _Crew(sea, group, self._serializer, self._orders.queues)
            try:
                with anyio.move_on_after(limit):
                    await self._through_the_storm(sea, crew)
                    while store.unfinished():  # noqa: ASYNC110  # it has no event to wait for
                        await anyio.sleep(1)
                if not self.broken:
                    self._look(store)
            finally:
                crew.dismiss()
                group.cancel_scope.cancel()
        self.lasted = clocks.monotonic()

    async def _through_the_storm(self, sea: Sea, crew: "_Crew") -> None:
        async def scenario() -> None:
            queue = TaskQueue(FaultyBackend(sea, "the scenario"), self._serializer)
            try:
                self._returned.append(await self._scenario(queue))
            except Exception as error:  # noqa: BLE001  # told as what broke the run
                self.broke(_why_it_ended(error), error)

        for _ in range(self._orders.workers):
            crew.hire()
        async with anyio.create_task_group() as both:
            both.start_soon(scenario)
            both.start_soon(crew.suffer)

    def _look(self, store: Promises) -> None:
        left = store.unfinished()
        if not self._returned:
            self.broke("the scenario did not come to its end in the limit of the run")
        elif left:
            self.broke(f"{len(left)} tasks did not end in the limit of the run, as {left[0]}")
        elif broken := store.look_at_all():
            self.broke("; ".join(broken))
        elif self._check is not None:
            try:
                verdict = self._check(self._returned[0], store.results())
            except Exception as error:  # noqa: BLE001  # told as what broke the run
                self.broke(f"check raised {type(error).__name__}: {error}", error)
            else:
                if verdict is False:
                    self.broke("check returned False")

    def broke(self, why: str, cause: BaseException | None = None) -> None:
        self.broken, self.cause = why, cause


class _Crew:
    """The workers of one run, and what happens to them."""

    def __init__(
        self, sea: Sea, group: TaskGroup, serializer: LiveFunctions, queues: tuple[str, ...]
    ) -> None:
        self._sea = sea
        self._queues = queues
        self._group = group
        self._serializer = serializer
        self._working: dict[str, tuple[Worker, Process]] = {}
        self._processes: list[Process] = []

    def hire(self) -> str:
        """Start a worker, as a program of its own; return its name."""
        name, process = f"worker {len(self._processes) + 1}", Process()
        worker = Worker(
            FaultyBackend(self._sea, name),
            self._serializer,
            max_concurrency=self._sea.storm.dice.randint(1, 3),
            poll_interval=self._sea.storm.dice.uniform(0.5, 5.0),
            queues=self._queues,
            lease_for=LEASE,
        )
        self._working[name] = worker, process
        self._processes.append(process)
        self._group.start_soon(_live, process, worker)
        return name

    async def suffer(self) -> None:
        """Have the workers killed, paused and restarted until the storm is over."""
        storm = self._sea.storm
        with anyio.move_on_after(storm.lasts):
            while True:
                await anyio.sleep(storm.dice.expovariate(1 / 8))
                fault = storm.next_blow()
                victims = [
                    name for name, (_, process) in self._working.items() if not process.is_held
                ]
                if fault is not None and victims:
                    await self._strike(fault, storm.dice.choice(victims))
        storm.end()
        for _, process in self._working.values():
            process.go_on()

    def dismiss(self) -> None:
        """Let go of the dead, now that nothing counts any more."""
        for process in self._processes:
            process.end_run()

    async def _strike(self, fault: Fault, name: str) -> None:
        storm = self._sea.storm
        worker, process = self._working[name]
        whom = name + self._sea.work_of(name)
        if fault == "pause":
            seconds = storm.dice.uniform(LEASE, 3 * LEASE)
            storm.tell("pause", f"{whom} stood still for {seconds:.1f} s")
            process.pause()
            self._sea.later(seconds, process.go_on)
            return
        del self._working[name]
        if fault == "kill":
            process.die()
            storm.tell("kill", f"{whom} was killed, and {self.hire()} took its place")
            return
        grace = storm.dice.uniform(0, 5)
        successor = self.hire()
        storm.tell("restart", f"{whom} was stopped with {grace:.1f} s of grace, for {successor}")
        await worker.stop(grace=grace)


async def _live(process: Process, worker: Worker) -> None:
    process_of_caller.set(process)
    await InProcess(process, worker.start(), counts=False)


def _why_it_ended(error: Exception) -> str:
    why = f"the scenario raised {type(error).__name__}: {error}"
    if isinstance(error, StoreError | EnqueueUnknown):
        why += (
            ". That can happen to any program: ask again, under a task_id of your own. Or leave"
            " the faults 'refuse' and 'unknown' out"
        )
    return why
