"""What becomes of a transaction: it is stored, refused, doubted, slow, or cut short by a death.

Transactions of all processes follow one another, as SQLite's write lock has it. A process that is
paused within one holds that lock; the others wait, and lose patience.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sitq.protocol.commit import Blame
from sitq.protocol.lifecycle import FINAL
from sitq.protocol.ops import Count, Enqueue, Fetch, Op, Outcome, Watch
from sitq.testing.simulation.chance import Chance
from sitq.testing.simulation.history import Batch, Change, Event, Kind, made
from sitq.testing.simulation.process import Process
from sitq.testing.simulation.store import ModelSimStore, SqliteSimStore

if TYPE_CHECKING:
    from sitq.testing.simulation.world import World

BUSY_TIMEOUT: Final = 5.0
"""Seconds that a process waits for a store that another one keeps locked."""
TAKES: Final = 0.004
"""Seconds, about, that a transaction takes."""
READS: Final = frozenset({Watch, Fetch, Count})

_BATCH, _ROW = Kind.BATCH, Kind.ROW


class Disk:
    """The store of all processes of a run."""

    def __init__(
        self, world: "World", chance: Chance, kind: str, sqlite: SqliteSimStore | None
    ) -> None:
        self.out_until = 0.0
        self.locked_until = 0.0
        self.open: set[str] = set()
        """The ids of tasks that have not ended."""
        self._world = world
        self._chance = chance
        climate = self._climate = world.climate
        self._may_fail = bool(
            climate.kill_in_program or climate.refused or climate.doubted or climate.poisonous
        )
        self._may_be_slow = bool(climate.slow)
        self._may_stop = bool(climate.pause)
        self._rows: list[tuple[str, Change]] = []
        self._poisoned: set[int] = set()
        self._spoilt: list[Op] = []  # kept, so that no other op gets its id()
        self._store: SqliteSimStore | ModelSimStore
        if kind == "sqlite":
            self._store = sqlite or SqliteSimStore()
            self._store.begin(self._saw)
        else:
            self._store = ModelSimStore(self._saw)

    def heal(self) -> None:
        """Nothing goes wrong any more; but what could not be stored still cannot."""
        self.out_until = self.locked_until = self._world.now
        self._may_fail = bool(self._poisoned)
        self._may_be_slow = self._may_stop = False

    def close(self) -> None:
        """Let go of the store."""
        self._store.end()

    def is_sound(self) -> bool:
        """Say whether the store is whole, as far as it can tell."""
        return not isinstance(self._store, SqliteSimStore) or self._store.is_sound()

    def apply(
        self,
        process: Process,
        ops: tuple[Op, ...],
        reply: Callable[[Any], None],
        *,
        thread: bool = False,
    ) -> None:
        """Apply *ops* in a while; *reply* is given the outcomes, or whose fault it was.

        It is called in the event loop; or at once, by a *thread* that does nothing but wait.
        """
        world = self._world
        now, takes = world.now, self._chance.about(TAKES)
        if self._may_be_slow:
            takes += self._delay(process)
        transact = partial(self._transact, process, ops, reply, now, thread)
        world.on_thread(process, now + takes, transact)

    def _delay(self, process: Process) -> float:
        """Return for how long a slow disk keeps one waiting, before a transaction or behind it."""
        if self._world.strikes(self._climate.slow * 0.5, self._chance):
            takes = self._chance.about(1.0)
            self._world.note(Kind.FAULT, process.name, value=f"waits for the disk, {takes:.3f} s")
            return takes
        return 0.0

    def _transact(
        self,
        process: Process,
        ops: tuple[Op, ...],
        reply: Callable[[Any], None],
        began: float,
        thread: bool,
    ) -> None:
        world = self._world
        answer: tuple[Outcome, ...] | Blame | None = None
        if self.locked_until > world.now and _writes(ops):
            if world.now < began + BUSY_TIMEOUT:
                until = min(self.locked_until, began + BUSY_TIMEOUT)
                again = partial(self._transact, process, ops, reply, began, thread)
                world.on_thread(process, until, again)
                return
            answer = Blame.STORE
        elif self.out_until > world.now or process.cut_off_until > world.now:
            answer = Blame.STORE
        elif self._may_fail:
            answer = self._fault(process, ops)
        if answer is None:
            answer = self._commit(process, ops)
            if self._may_stop and _writes(ops):
                self._stop_within(process)
        self._answer(process, ops, answer, reply, thread)

    def _answer(
        self,
        process: Process,
        ops: tuple[Op, ...],
        answer: tuple[Outcome, ...] | Blame,
        reply: Callable[[Any], None],
        thread: bool,
    ) -> None:
        world = self._world
        delay = self._delay(process) if self._may_be_slow else 0.0
        if thread:
            if delay or process.frozen_until > world.now:
                world.on_thread(process, world.now + delay, partial(reply, answer))
            else:
                reply(answer)
        else:
            heard = partial(process.hear, ops, answer, reply)
            world.on_loop(process, world.now + delay + self._chance.about(0.001), heard)

    def _fault(self, process: Process, ops: tuple[Op, ...]) -> Blame | None:
        """Return what goes wrong with a transaction, if something does. Raises `Died`."""
        world, climate, chance = self._world, self._climate, self._chance
        if climate.poisonous and self._spoils(ops):
            return Blame.OP
        if world.healed:
            return None
        if climate.kill_in_program and world.strikes(climate.kill_in_program, chance):
            statements = chance.whole(1, 12)
            if statements > 8:
                self._commit(process, ops)
                world.note(Kind.FAULT, process.name, value="never hears of this transaction")
            else:
                world.note(Kind.FAULT, process.name, value="is cut short in a transaction")
                self._begin_only(ops, statements)
            world.die()
        if climate.refused and world.strikes(climate.refused, chance):
            world.note(Kind.FAULT, process.name, value="has a transaction refused")
            self._begin_only(ops, chance.whole(1, 6))
            return Blame.STORE
        if climate.doubted and _writes(ops) and world.strikes(climate.doubted, chance):
            if chance.happens(0.5):
                self._commit(process, ops)
                world.note(Kind.FAULT, process.name, value="sees a COMMIT fail that was made")
            else:
                world.note(Kind.FAULT, process.name, value="sees a COMMIT fail")
            return Blame.UNKNOWN
        return None

    def _stop_within(self, process: Process) -> None:
        """Have the process stop within the transaction that follows, with the lock held."""
        if self._world.strikes(self._climate.pause * 0.1, self._chance):
            self._world.pause(process, self._chance.about(3.0))
            self.locked_until = process.frozen_until

    def _spoils(self, ops: tuple[Op, ...]) -> bool:
        """Say whether one of the ops cannot be stored; one that could not never can."""
        enqueues = [op for op in ops if isinstance(op, Enqueue)]
        if not enqueues:
            return False
        if self._world.strikes(self._climate.poisonous, self._chance):
            bad = self._chance.pick(enqueues)
            self._poisoned.add(id(bad))
            self._spoilt.append(bad)
            what = f"{bad.tasks[0].id} cannot be stored by any means"
            self._world.note(Kind.FAULT, value=what)
        return any(id(op) in self._poisoned for op in enqueues)

    def _begin_only(self, ops: tuple[Op, ...], statements: int) -> None:
        self._store.die_within(ops, self._world.moment(), statements)
        self._rows.clear()

    def _commit(self, process: Process, ops: tuple[Op, ...]) -> tuple[Outcome, ...]:
        world = self._world
        now = world.moment()
        outcomes = self._store.apply(ops, now)
        # As `World.note` does it: most of a history is made here.
        at, who, tell = world.now, process.name, world.history.append
        tell(made(Event, (at, _BATCH, who, "", 0, made(Batch, (ops, outcomes, now)))))
        if self._rows:
            for task_id, change in self._rows:
                tell(made(Event, (at, _ROW, who, task_id, change.token, change)))
                if change.new is None or change.new in FINAL:
                    self.open.discard(task_id)
                else:
                    self.open.add(task_id)
            self._rows.clear()
        return outcomes

    def _saw(self, task_id: str, change: Change) -> None:
        self._rows.append((task_id, change))


def _writes(ops: tuple[Op, ...]) -> bool:
    return not READS.issuperset(map(type, ops))
