"""Many runs: played in this process or in several, added up, and judged as a set.

The promises: what comes out depends on the seeds alone, not on how many workers played them or
which was the quickest. A set of `ENOUGH` runs that lacks a mark has failed, as one with a violation
has: it was too mild to prove anything.
"""

import gc
import hashlib
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING, Final, NamedTuple

from sitq.testing.simulation.climate import draw
from sitq.testing.simulation.marks import MARKS, marks
from sitq.testing.simulation.store import SqliteSimStore
from sitq.testing.simulation.trial import play

if TYPE_CHECKING:
    from sitq.testing.simulation.mutants import Caught, Mutant

ENOUGH: Final = 1000
"""Runs in which every mark must have been reached."""
KEEP: Final = 10
BLOCK: Final = 25
"""Seeds that are handed to a worker at once: about a tenth of a second of work."""


class Found(NamedTuple):
    """The first violation of a run that failed."""

    seed: int
    invariant: str
    text: str


class Ask(NamedTuple):
    """What is wanted besides the judgement."""

    keep: int = KEEP
    """How many of the runs that failed are kept; all are counted."""
    stop: bool = False
    """The first violation ends it all."""
    digest: bool = False
    hosts: int | None = None
    """How many hosts each run has, if their number is not to be drawn."""
    mutant: str | None = None
    """Play them with this bug planted: see `mutants`."""


class Block(NamedTuple):
    """What came of some seeds."""

    runs: int
    events: int
    failed: int
    found: tuple[Found, ...]
    marks: Counter[str]
    digests: bytes
    cpu_seconds: float


@dataclass(slots=True)
class Tally:
    """What came of all the runs so far, in the order of their seeds."""

    runs: int = 0
    events: int = 0
    failed: int = 0
    found: list[Found] = field(default_factory=list[Found])
    marks: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """The time of all cores together."""
    _digest: "hashlib.blake2b" = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    @property
    def missing(self) -> tuple[str, ...]:
        """The marks that so many runs should have reached, and have not."""
        if self.runs < ENOUGH:
            return ()
        return tuple(name for name in MARKS if name not in self.marks)

    @property
    def passed(self) -> bool:
        return not self.failed and not self.missing

    @property
    def digest(self) -> str:
        """A name for all that happened in all runs, if it was asked for."""
        return self._digest.hexdigest()

    def add(self, block: Block, keep: int) -> None:
        self.runs += block.runs
        self.events += block.events
        self.failed += block.failed
        self.found += block.found[: keep - len(self.found)]
        self.marks += block.marks
        self.cpu_seconds += block.cpu_seconds
        self._digest.update(block.digests)


def _nothing(_tally: Tally) -> None:
    """Tell nobody."""


def play_all(
    seeds: Iterable[int],
    ask: Ask = Ask(),  # noqa: B008  # it is a value
    *,
    workers: int = 1,
    tell: Callable[[Tally], None] = _nothing,
) -> Tally:
    """Play *seeds* to their end; *tell* is told how it goes, now and then.

    *seeds* may be endless, if the first violation is to stop it; or may end when it likes.
    """
    tally, began = Tally(), time.monotonic()
    parts = _blocks(seeds, BLOCK if ask.hosts is None else max(1, BLOCK // ask.hosts))
    blocks = _played_here(parts, ask) if workers == 1 else _played_there(parts, ask, workers)
    with closing(blocks):
        for block in blocks:
            tally.add(block, ask.keep)
            tally.seconds = time.monotonic() - began
            tell(tally)
            if ask.stop and tally.failed:
                break
    return tally


def _blocks(seeds: Iterable[int], size: int) -> Iterator[tuple[int, ...]]:
    rest = iter(seeds)
    while block := tuple(islice(rest, size)):
        yield block


def _played(seeds: tuple[int, ...], ask: Ask, sqlite: SqliteSimStore) -> Block:
    runs = events = failed = 0
    found: list[Found] = []
    reached: Counter[str] = Counter()
    digests: list[str] = []
    began = time.process_time()
    with _uncollected():
        for seed in seeds:
            trial = play(draw(seed, ask.hosts), sqlite)
            runs += 1
            events += trial.events
            reached.update(marks(trial.history))
            if ask.digest:
                digests.append(trial.digest())
            if trial.failed:
                failed += 1
                if len(found) < ask.keep:
                    first = trial.violations[0]
                    found.append(Found(seed, first.invariant, first.text))
                if ask.stop:
                    break
    seconds = time.process_time() - began
    return Block(runs, events, failed, tuple(found), reached, "".join(digests).encode(), seconds)


@contextmanager
def _uncollected() -> Generator[None]:
    """Have nobody look for garbage: a run leaves none that is not freed by itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _played_here(parts: Iterator[tuple[int, ...]], ask: Ask) -> Generator[Block]:
    sqlite = SqliteSimStore()
    with nullcontext() if ask.mutant is None else _mutant(ask.mutant).planted():
        for seeds in parts:
            yield _played(seeds, ask, sqlite)


# -- in processes of their own -------------------------------------------------------------


def _played_there(parts: Iterator[tuple[int, ...]], ask: Ask, workers: int) -> Generator[Block]:
    waiting: deque[Future[Block]] = deque()
    with pool(workers, ask.mutant) as processes:
        try:
            for seeds in parts:
                waiting.append(processes.submit(_played_in_worker, seeds, ask))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def pool(workers: int, mutant: str | None = None) -> ProcessPoolExecutor:
    """Return worker processes that simulate, all with the bug *mutant* in them if it is given.

    They leave Ctrl-C to the process that started them, and end with it.
    """
    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(mutant,)
    )


def _mutant(name: str) -> "Mutant":
    from sitq.testing.simulation.mutants import MUTANTS  # it is at home in the code under test

    return MUTANTS[name]


_PLANTED: Final = ExitStack()
"""Never left: a process of a pool plays nothing else."""


def _begin(mutant: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    if mutant is not None:
        _PLANTED.enter_context(_mutant(mutant).planted())


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@cache
def _store_of_this_process() -> SqliteSimStore:
    return SqliteSimStore()


def _played_in_worker(seeds: tuple[int, ...], ask: Ask) -> Block:
    return _played(seeds, ask, _store_of_this_process())


# -- bugs planted on purpose ---------------------------------------------------------------


def hunt_all(most: int = ENOUGH, *, workers: int = 1) -> "Iterator[tuple[Mutant, Caught | None]]":
    """Hunt every mutant through the first *most* seeds; yield how each was caught, in their order.

    None is for one that has survived.
    """
    from sitq.testing.simulation.mutants import MUTANTS, hunt

    if workers == 1:
        for mutant in MUTANTS.values():
            yield mutant, hunt(mutant, most)
        return
    with pool(workers) as processes:
        try:
            hunts = [processes.submit(_hunted, name, most) for name in MUTANTS]
            for mutant, caught in zip(MUTANTS.values(), hunts, strict=True):
                yield mutant, caught.result()
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def _hunted(name: str, most: int) -> "Caught | None":
    from sitq.testing.simulation.mutants import MUTANTS, hunt

    return hunt(MUTANTS[name], most)
