"""The callers in a simulated process: who enqueues, and who waits for a task's end."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final, assert_never

from sitq.protocol import waiter as wt
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Conflict, Enqueue, Fetch, Fetched, Outcome
from sitq.protocol.waiter import WaiterMachine
from sitq.testing.simulation.climate import TaskPlan
from sitq.testing.simulation.history import Kind

if TYPE_CHECKING:
    from sitq.testing.simulation.process import Process

TICK: Final = 1e-6
"""Seconds: no timer fires sooner than this, however sums of times are rounded."""


class SimError(Exception):
    """What the simulated store fails with."""


class Asking:
    """A caller who enqueues, and asks again where it is told that this is safe."""

    def __init__(self, process: "Process", tasks: list[TaskPlan]) -> None:
        self._process = process
        self._tasks = tasks
        self._again = any(task.named for task in tasks)
        self._more = int(self._again)

    def ask(self) -> None:
        process, world = self._process, self._process.world
        ids = tuple(task.id for task in self._tasks)
        world.note(Kind.ENQUEUE, process.name, value=ids)
        op = Enqueue(tuple(world.new_task(task) for task in self._tasks), self._again)
        process.submit((op,), self._answered)
        process._end_turn()  # noqa: SLF001

    def _answered(self, answer: Any) -> None:
        process, world = self._process, self._process.world
        ids = tuple(task.id for task in self._tasks)
        if isinstance(answer, SimError):
            unknown = str(answer) == "doubt"
            world.note(Kind.UNKNOWN if unknown else Kind.REFUSED, process.name, value=ids)
            if unknown or process.chance.happens(0.5):
                self._again = True
                pause = process.chance.about(0.5)
                world.speak_later(process, world.now + pause, self.ask)
        elif isinstance(answer[0], Conflict):
            world.note(Kind.CONFLICT, process.name, value=ids)
        else:
            world.note(Kind.ENQUEUED, process.name, value=ids)
            if self._more:  # two callers, say, who were told of the same thing
                self._more -= 1
                world.speak_later(process, world.now + process.chance.about(0.5), self.ask)


class Waiting:
    """A caller who waits for a task's end."""

    def __init__(self, process: "Process", task_id: str, timeout: float | None) -> None:
        self.task_id = task_id
        self._process = process
        self._timeout = timeout
        self._machine = WaiterMachine(timeout)

    def start(self) -> None:
        process = self._process
        process.world.note(Kind.WAIT, process.name, self.task_id, value=self._timeout)
        self._receive(wt.WaitStarted())

    def hint(self) -> None:
        self._receive(wt.Hinted())

    def _receive(self, event: wt.WaiterEvent) -> None:
        process, world = self._process, self._process.world
        for effect in self._machine.receive(event, process.loop_time()):
            match effect:
                case wt.Ask():
                    world.disk.apply(process, (Fetch((self.task_id,)),), self._answered)
                case wt.Deliver(row):
                    world.note(Kind.READ, process.name, self.task_id, value=(row.state, row.value))
                    process.waiting_has_ended(self)
                case wt.GiveUp() | wt.Miss():
                    world.note(Kind.GAVE_UP, process.name, self.task_id)
                    process.waiting_has_ended(self)
                case _:
                    assert_never(effect)
        self._set_alarm()

    def _set_alarm(self) -> None:
        process, world = self._process, self._process.world
        deadline = self._machine.next_deadline()
        if deadline is not None:
            at = max(deadline + process.slept, world.now + TICK)
            world.on_loop(process, at, partial(self._tick, deadline))

    def _tick(self, deadline: float) -> None:
        if self._machine.next_deadline() != deadline:
            return  # a hint came first
        if deadline <= self._process.loop_time():
            self._receive(wt.Tick())
        else:  # the machine has slept meanwhile
            self._set_alarm()

    def _answered(self, answer: "tuple[Outcome, ...] | Blame") -> None:
        if isinstance(answer, Blame):
            process = self._process
            process.waiting_has_ended(self)  # its caller is told of the error
            return
        (outcome,) = answer
        assert isinstance(outcome, Fetched)
        self._receive(wt.Answered(outcome.rows.get(self.task_id)))
