"""Time, clocks, processes and faults: what happens when, as the seed says.

The promises: nothing here depends on anything but the plan; a run has a safety phase, in which
anything may go wrong, and then a liveness phase, in which nothing does any more and all that was
acknowledged has to end within `PATIENCE`.
"""

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any, Final, NoReturn

from sitq.protocol.ops import Moment, NewTask
from sitq.protocol.worker import StopRequested
from sitq.testing.simulation.chance import Chance
from sitq.testing.simulation.climate import CALM, STAMPS, Plan, TaskPlan
from sitq.testing.simulation.disk import Disk
from sitq.testing.simulation.history import ANSWERED_TWICE, Event, History, Kind, made
from sitq.testing.simulation.naming import node_name
from sitq.testing.simulation.process import Process
from sitq.testing.simulation.store import SqliteSimStore

PATIENCE: Final = 200.0
"""Seconds of virtual time in which everything must have ended after the last fault."""
BUSY_TIMEOUT: Final = 5.0
"""Seconds that a process waits for a store that another one keeps locked."""
MOST_EVENTS: Final = 20_000
"""A run of three hosts that takes more is stuck in a loop; one of more hosts may take more."""
UPTIME: Final = 1000.0
"""Seconds since the last boot at which a run begins: longer than any lease."""
SOUND_EVERY: Final = 8
"""Runs: to ask whether the store is whole takes as long as a dozen transactions."""
WEATHER_EVERY: Final = 0.5
EPOCH_S: Final = 1_800_000_000
"""Seconds since 1970 at which every run begins."""

ANYWHERE, THREAD, LOOP = 0, 1, 2


class Died(BaseException):
    """The process that runs has just died."""


class World:
    """One run. *muted* are faults that do not happen, by number: see `shrink`."""

    # So many are quicker to reach in slots: a dict of a class is made for thirty.
    __slots__ = (
        "_asleep_until", "_boot", "_booted_at", "_callers", "_chance", "_dead_locks", "_epoch",
        "_failures", "_faults", "_heap", "_kills", "_lives", "_muted", "_number", "_pids",
        "_processes", "_rate", "_stopping", "_streams", "_tasks", "_to_come", "_wall_offset",
        "_wall_stands", "_weather_chance", "climate", "disk", "events", "fired", "healed",
        "history", "now", "over", "plan",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        sqlite: SqliteSimStore | None = None,
        muted: frozenset[int] = frozenset(),
    ) -> None:
        self.plan = plan
        self.climate = plan.climate
        self.now = 0.0
        self.history: History = []
        self.events = 0
        self.fired: list[int] = []
        """The numbers of the faults that happened."""
        self.healed = False
        self.over = False
        self._muted = muted
        self._faults = 0
        chance = Chance(plan.seed)
        self._chance = chance.stream(1)
        self._weather_chance = chance.stream(2)
        self._streams = chance.stream(3)
        self._heap: list[tuple[float, int, int, Process | None, Callable[[], None]]] = []
        self._number = 0
        self._pids = 0
        self._wall_offset = 0.0
        self._wall_stands: tuple[float, float] | None = None  # since when, and until when
        self._boot = 1
        self._epoch = "boot-1"
        self._booted_at = -UPTIME
        self._rate = 1 + plan.climate.drift  # of the store's clock
        self._asleep_until = 0.0
        self._dead_locks: set[str] = set()
        self._tasks = {task.id: task for task in plan.tasks}
        self._kills: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._lives = [0] * len(plan.nodes)
        self._processes: list[Process | None] = [None] * len(plan.nodes)
        self._callers: list[list[Callable[[Process], None]]] = [[] for _ in plan.nodes]
        self._to_come = 0  # callers that have not spoken yet
        self._stopping = False
        self.disk = Disk(self, self._chance, plan.store, sqlite)

    # -- the run -------------------------------------------------------------------------

    def run(self) -> History:
        """Run to the end; return what happened."""
        plan = self.plan
        for number, node in enumerate(plan.nodes):
            self._later(node.starts_at, partial(self._bring_up, number))
        groups: dict[int, list[TaskPlan]] = {}
        for task in plan.tasks:
            groups.setdefault(task.group, []).append(task)
        for group in groups.values():
            self._call(group[0].at, group[0].node, partial(Process.enqueue, tasks=group))
        for task in plan.tasks:
            if task.cancelled_at is not None:
                self._call(task.cancelled_at, task.node, partial(Process.cancel, task_id=task.id))
            if task.awaited_at is not None:
                self._call(
                    task.awaited_at,
                    task.node,
                    partial(Process.wait, task_id=task.id, timeout=task.timeout),
                )
        if plan.climate is not CALM:
            self._later(WEATHER_EVERY, self._weather)
        self._later(plan.heals_at, self._heal)
        self._loop(plan.heals_at + PATIENCE)
        return self.history

    def close(self) -> None:
        """Let go of all parts, which know each other: so no collector has to look for them."""
        for process in self._processes:
            if process is not None:
                process.close()
        self._heap.clear()
        self._callers.clear()
        self._processes.clear()
        self.disk.close()
        del self.disk

    def _loop(self, until: float) -> None:
        heap, disk = self._heap, self.disk
        most = MOST_EVENTS * max(1, len(self.plan.nodes) // 3)
        while heap:
            at, _, where, process, function = heappop(heap)
            if at > until or self.events > most:
                break
            self.now = at
            if process is not None:
                if not process.alive:
                    continue
                if process.frozen_until > at:
                    process.held_up.append((where, function))
                    continue
                if process.blocked_until > at and where == LOOP:
                    self.push(process.blocked_until, LOOP, process, function)
                    continue
            self.events += 1
            try:
                function()
            except Died:
                assert process is not None
                self.kill(process)
            if self.healed and not disk.open and not self._to_come:
                self._wind_up()
                if self.over:
                    break
        if not self.over:
            self.note(Kind.STUCK, value=self._what_is_left())

    def _wind_up(self) -> None:
        """Nothing is left to run: stop everybody, and end."""
        up = [process for process in self._processes if process is not None]
        if not self._stopping:
            if any(process.is_busy() for process in up):
                return
            self._stopping = True
            for process in up:
                self.ask_to_stop(process, None)
        elif not up:
            self.over = True
            if self.plan.seed % SOUND_EVERY == 0:
                self.note(Kind.SOUND, value=self.disk.is_sound())
            self.note(Kind.QUIET)

    def _what_is_left(self) -> tuple[str, ...]:
        left = [f"task {id_}" for id_ in sorted(self.disk.open)]
        left += [
            f"{process.name}: {process.leftovers()}"
            for process in self._processes
            if process is not None and process.is_busy()
        ]
        return tuple(left)

    # -- time ----------------------------------------------------------------------------

    # The next three are one in three forms: nothing is called more often.

    def push(
        self, at: float, where: int, process: Process | None, function: Callable[[], None]
    ) -> None:
        self._number += 1
        heappush(self._heap, (at, self._number, where, process, function))

    def _later(self, at: float, function: Callable[[], None]) -> None:
        self.push(max(at, self.now), ANYWHERE, None, function)

    def at(self, process: Process, at: float, function: Callable[[], None]) -> None:
        """Call *function* at a time, however the process fares, if it lives then."""
        self.push(at, ANYWHERE, process, function)

    def on_loop(self, process: Process, at: float, function: Callable[[], None]) -> None:
        """Call *function* in the event loop, once nothing blocks it any more."""
        self._number += 1
        heappush(self._heap, (at, self._number, LOOP, process, function))

    def on_thread(self, process: Process, at: float, function: Callable[[], None]) -> None:
        """Call *function* in another thread of the process."""
        self._number += 1
        heappush(self._heap, (at, self._number, THREAD, process, function))

    def note(
        self, kind: Kind, who: str = "", task: str = "", token: int = 0, value: Any = None
    ) -> None:
        self.history.append(made(Event, (self.now, kind, who, task, token, value)))

    def moment(self) -> Moment:
        """Return what the store's clocks say."""
        now = self.now
        since_boot = (now - self._booted_at) * self._rate
        wall_runs = now if self._wall_stands is None else self._wall_runs()
        wall = EPOCH_S + wall_runs + self._wall_offset
        return made(Moment, (round(wall * 1000), round(since_boot * 1000), self._epoch))

    def _wall_runs(self) -> float:
        if self._wall_stands is not None:
            since, until = self._wall_stands
            if self.now < until and not self.healed:
                return since
            self._wall_stands = None
        return self.now

    # -- faults --------------------------------------------------------------------------

    def strikes(self, probability: float, chance: Chance) -> bool:
        """Say whether a fault happens here; each has a number by which it can be muted."""
        if probability == 0.0 or self.healed or not chance.happens(probability):
            return False
        self._faults += 1
        if self._faults in self._muted:
            return False
        self.fired.append(self._faults)
        return True

    def may_die(self, process: Process) -> None:
        """Raise `Died` if the process that runs dies right here."""
        if self.climate.kill and self.strikes(self.climate.kill, process.chance):
            self.die()

    @staticmethod
    def die() -> NoReturn:
        raise Died

    def hint_is_lost(self, process: Process) -> bool:
        if self.strikes(self.climate.lost_hint, self._chance):
            self.note(Kind.FAULT, process.name, value="misses a hint")
            return True
        return False

    def answers_again_in(self, process: Process) -> float | None:
        """Return the seconds until an answer comes once more, None if it does not."""
        if self.strikes(self.climate.doubled_answer, self._chance):
            self.note(Kind.FAULT, process.name, value=ANSWERED_TWICE)
            return self._chance.about(0.5)
        return None

    def news_takes(self, process: Process) -> float:
        """Return the seconds that a word of the lease's thread takes to reach the loop."""
        if self.strikes(self.climate.late_news, self._chance):
            takes = self._chance.about(1.0)
            self.note(Kind.FAULT, process.name, value=f"is to hear of its lease in {takes:.3f} s")
            return takes
        return 0.0

    def _weather(self) -> None:
        """What goes wrong by itself, now and then."""
        if self.healed:
            return
        climate, chance = self.climate, self._weather_chance

        def strikes(rate: float) -> bool:
            return self.strikes(rate * WEATHER_EVERY, chance)

        if climate.outage and strikes(climate.outage):
            self.disk.out_until = self.now + chance.about(2.0)
            self.note(Kind.FAULT, value="the store is out")
        if climate.wall_jump and strikes(climate.wall_jump):
            if chance.happens(0.3):
                self._wall_stands = self.now, self.now + chance.about(3.0)
                self.note(Kind.FAULT, value="the wall clock stands still")
            else:
                self._wall_offset += chance.between(-30.0, 30.0)
                self.note(Kind.FAULT, value="the wall clock was set")
        if climate.sleep and strikes(climate.sleep):
            self._sleep(chance.about(5.0))
        if climate.reboot and strikes(climate.reboot):
            self._reboot()
        for process in list(self._processes):
            if process is None:
                continue
            if climate.cut_off and strikes(climate.cut_off):
                process.cut_off_until = self.now + chance.about(2 * process.plan.lease_for)
                self.note(Kind.FAULT, process.name, value="is cut off from the store")
            if climate.pause and strikes(climate.pause):
                self.pause(process, chance.about(2 * process.plan.lease_for))
            if climate.restart and strikes(climate.restart):
                self.ask_to_stop(process, chance.pick((None, 0.0, 0.5)))
        self._later(self.now + WEATHER_EVERY, self._weather)

    def pause(self, process: Process, seconds: float) -> None:
        self.note(Kind.PAUSED, process.name, value=seconds)
        process.frozen_until = max(process.frozen_until, self.now + seconds)
        self._later(process.frozen_until, lambda: self._thaw(process))

    def _thaw(self, process: Process) -> None:
        """Let a process run on, unless it is to be paused for longer."""
        if process.frozen_until <= self.now:
            held_up, process.held_up = process.held_up, []
            # Either thread may come first.
            after = {LOOP: self._chance.about(0.01), THREAD: self._chance.about(0.01)}
            for where, function in held_up:
                self.push(self.now + after.get(where, 0.0), where, process, function)

    def _sleep(self, seconds: float) -> None:
        if self._asleep_until > self.now:
            return
        self._asleep_until = self.now + seconds
        for process in self._processes:
            if process is not None:
                self.pause(process, seconds)
                process.slept += seconds
                process.asleep_until = self.now + seconds

    def _reboot(self) -> None:
        self.note(Kind.FAULT, value="the power failed")
        for process in list(self._processes):
            if process is not None:
                self.kill(process)
        self._boot += 1
        self._epoch = f"boot-{self._boot}"
        self._booted_at = self.now

    def _heal(self) -> None:
        self.healed = True
        self.disk.heal()
        self.note(Kind.HEALED)
        for process in self._processes:
            if process is None:
                continue
            process.cut_off_until = self.now
            process.frozen_until = min(process.frozen_until, self.now)
            process.slept -= max(0.0, process.asleep_until - self.now)  # it is woken early
            self._thaw(process)
            process.hurry()
            if self.climate.restart and self._chance.happens(0.5):
                self.ask_to_stop(process, self._chance.pick((None, 0.0, 0.5)))
            elif process.plan.reads != STAMPS:  # the last old workers make place for new ones
                self.ask_to_stop(process, None)

    # -- processes -----------------------------------------------------------------------

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def _bring_up(self, node: int) -> None:
        if self._stopping:
            return
        plan = self.plan.nodes[node]
        if node == 0:
            plan = plan._replace(queues=("default", "mail"))  # somebody serves them all
        if self.healed or (self._lives[node] and self._streams.happens(0.3)):
            plan = plan._replace(reads=STAMPS)  # the new version
        self._lives[node] += 1
        name = f"{node_name(node)}{self._lives[node]}"
        stream = self._streams.stream(node * 1000 + self._lives[node])
        process = self._processes[node] = Process(self, node, name, plan, stream)
        try:
            process.start()
        except Died:
            self.kill(process)
            return
        callers, self._callers[node] = self._callers[node], []
        for caller in callers:
            self._speak(process, caller)

    def kill(self, process: Process) -> None:
        if not process.alive:
            return
        self.note(Kind.KILLED, process.name)
        self._dead_locks |= process.locks
        self._gone(process, 0.5)

    def _gone(self, process: Process, pause: float) -> None:
        process.alive = False
        process.close()
        self._to_come -= process.to_come  # they have died with it
        node = process.node
        self._processes[node] = None
        if not self._stopping:
            self._later(self.now + self._chance.about(pause), lambda: self._bring_up(node))

    def ask_to_stop(self, process: Process, grace: float | None, *, first: bool = False) -> None:
        """Ask the worker of *process* to stop; before anything else that it hears, if *first*."""
        if process.stopping and grace is None:
            return
        process.stopping = True
        self.note(Kind.STOP_ASKED, process.name, value=grace)
        if first:
            process.post(StopRequested(grace))
        else:
            self.on_loop(process, self.now, lambda: process.post(StopRequested(grace)))

    def stops_at_once(self) -> bool:
        """Say whether a process is asked to stop before it has started."""
        return self.strikes(self.climate.restart * 0.5, self._chance)

    def has_stopped(self, process: Process) -> None:
        """Take note that a process has left, by its own will."""
        self.note(Kind.STOPPED, process.name, value=process.leftovers())
        self._gone(process, 0.2)

    def free_locks(self, worker_ids: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of these workers whose liveness lock no process holds."""
        if not self.plan.presence:
            return ()
        return tuple(id_ for id_ in worker_ids if id_ in self._dead_locks)

    # -- callers and tasks ---------------------------------------------------------------

    def _call(self, at: float, node: int, caller: Callable[[Process], None]) -> None:
        """Have somebody in the process of *node* do something, once there is one."""
        self._to_come += 1

        def arrive() -> None:
            process = self._processes[node]
            if process is None or process.stopping:
                self._callers[node].append(caller)
            else:
                self._speak(process, caller)

        self._later(at, arrive)

    def _speak(self, process: Process, caller: Callable[[Process], None]) -> None:
        self._to_come -= 1  # it counts with the process from here on
        self.speak_later(process, self.now, lambda: caller(process))

    def speak_later(self, process: Process, at: float, speak: Callable[[], None]) -> None:
        """Have somebody in *process* speak, who is to be waited for."""
        process.to_come += 1
        self._to_come += 1

        def spoken() -> None:
            process.to_come -= 1
            self._to_come -= 1
            speak()

        self.on_loop(process, at, spoken)

    def task_plan(self, task_id: str) -> TaskPlan:
        return self._tasks[task_id]

    def adopt(self, task: TaskPlan) -> None:
        """Take note of a task that a task enqueues."""
        self._tasks[task.id] = task

    def new_task(self, plan: TaskPlan) -> NewTask:
        child = plan.id.partition(".")[2]
        return NewTask(
            id=plan.id,
            payload=f"{plan.stamp}|{child}".encode(),
            name="f",
            queue=plan.queue,
            priority=plan.priority,
            delay_ms=round(plan.delay * 1000),
            policy=plan.policy,
        )

    def kills_process(self, plan: TaskPlan) -> bool:
        """Say whether this run of the task takes its process down."""
        done = self._kills.get(plan.id, 0)
        if done >= plan.kills:
            return False
        self._kills[plan.id] = done + 1
        return True

    def still_fails(self, plan: TaskPlan) -> bool:
        """Say whether this run of the task raises."""
        done = self._failures.get(plan.id, 0)
        if done >= plan.fails:
            return False
        self._failures[plan.id] = done + 1
        return True
