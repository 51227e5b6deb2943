"""`crash_everywhere`: kills the worker of a task at every point there is, and looks what comes of it.

Each crash is a virtual run of its own, with a fresh queue: one worker runs the task and is killed;
its lease runs out; another one rescues the task and runs it again, from the beginning. What the
task has done to the world must then be what it does undisturbed.

The function itself is not serialised, so it may be a local one; its arguments are, as always.
"""

import copy
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

import anyio

from sitq.adapters.calls import is_async
from sitq.backends.memory import MemoryBackend
from sitq.core import Result, TaskStatus
from sitq.exceptions import CheckFailed, ValidationError
from sitq.queue import TaskQueue
from sitq.serialization import Call
from sitq.task import DEFAULTS, Task, TaskFunction
from sitq.testing.crashes.effects import Effects
from sitq.testing.crashes.point import AT_ITS_END
from sitq.testing.crashes.report import (
    Crash,
    CrashBroken,
    CrashReport,
    all_words,
    differences,
    other_end,
    shown,
)
from sitq.testing.processes.killable import (
    InProcess,
    Killed,
    Process,
    beside_its_parent,
    process_of_caller,
)
from sitq.testing.processes.quiet import quiet
from sitq.testing.processes.spawning import change_what_tasks_run
from sitq.testing.replaced_calls import ReplacedCalls
from sitq.testing.virtual.running import LoopName, run
from sitq.worker import Worker

LIMIT: Final = timedelta(days=7)


def crash_everywhere(
    function: Callable[..., Any] | Task[Any],
    /,
    *args: Any,
    effects: Effects | Callable[[], object],
    reset: Callable[[], object] | None = None,
    backend: LoopName = "asyncio",
    seed: int = 0,
    limit: timedelta | float = LIMIT,
) -> CrashReport:
    """Kill the worker of `function(*args)` after each await and each effect, and at its very end.

    Args:
        function: a function or coroutine function; or a `Task`, which has options as well.
        *args: its arguments.
        effects: what the task does to the world: the `Effects` that it records, or a function
            that returns what the world looks like now.
        reset: puts the rest of the world back to its beginning; called before each run.
        backend: the event loop, `"asyncio"` or `"trio"`.
        seed: as for `run`.
        limit: how much virtual time one run may take (default: a week).

    Raises:
        CrashBroken: a crash had other effects than none; its `report` has all of them. It is an
            `AssertionError`.
        CheckFailed: the task fails or is not the same twice even if nothing disturbs it.
        ValidationError: an argument is wrong.
    """
    __tracebackhide__ = True
    task = function if isinstance(function, Task) else Task(function, *args)
    if function is task and args:
        raise ValidationError("a Task has its arguments already; give the function, or no others")
    world = _World(effects, reset)

    def play(ends_after: int | None) -> _Played:
        world.reset()
        return run(_play, task, world, ends_after, seed=seed, backend=backend, limit=limit)

    with quiet():
        undisturbed = play(None)
        _check_undisturbed(undisturbed, play(None))
        crashes = [_crash(undisturbed, play(n), n) for n in range(len(undisturbed.process.points))]
    report = CrashReport(
        call=shown(task.name, task.args, task.kwargs),
        undisturbed=all_words(undisturbed.effects),
        crashes=tuple(crashes),
    )
    if report.broken:
        raise CrashBroken(report)
    return report


class _World:
    """What a task may change, as its test describes it."""

    def __init__(self, effects: object, reset: Callable[[], object] | None) -> None:
        if not isinstance(effects, Effects) and not callable(effects):
            raise ValidationError(
                f"effects must be Effects() or a function that returns what was done, not {effects!r}"
            )
        self._effects = effects
        self._reset = reset

    def reset(self) -> None:
        if isinstance(self._effects, Effects):
            self._effects.clear()
        if self._reset is not None:
            self._reset()

    def look(self) -> object:
        if isinstance(self._effects, Effects):
            return list(self._effects)
        return copy.deepcopy(self._effects())


@dataclass(frozen=True, slots=True)
class _Played:
    process: Process
    effects: object
    result: Result


async def _play(task: Task[Any], world: _World, ends_after: int | None) -> _Played:
    """Run the task to its end, by one worker or, if that one is killed, by two."""
    backend = MemoryBackend()
    queue = TaskQueue(backend)
    process, next_process = Process(ends_after), Process()
    options = task.options(DEFAULTS)

    def worker(process: Process) -> Worker:
        def replace(call: Call) -> Call:
            return Call(_attempt, (process, task.function, *call.args), {})

        return Worker(backend, ReplacedCalls(queue.serializer, replace), queues=(options.queue,))

    async def killed() -> None:
        await InProcess(process, worker(process).start(), counts=False)

    async def rescuer() -> None:
        await process.died.wait()
        await worker(next_process).start()

    change_what_tasks_run(partial(beside_its_parent, counts=True))
    carrier: TaskFunction[..., None, Any] = TaskFunction(_carry, options)
    async with anyio.create_task_group() as workers:
        (task_id,) = await queue.enqueue_many([carrier.call(task.args, task.kwargs)])
        workers.start_soon(killed)
        workers.start_soon(rescuer)
        try:
            result = await queue.get_result(task_id)
            assert result is not None, "it was waited for without a timeout"
            return _Played(process, world.look(), result)
        finally:
            process.end_run()
            workers.cancel_scope.cancel()
    raise AssertionError("a group that was left by a return swallows nothing")


def _carry(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Carry the arguments: what a worker finds here, it replaces."""
    raise AssertionError(f"nobody runs the call of {args} and {kwargs} itself")


async def _attempt(
    process: Process, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run the task in *process*; come to an end only if that goes on."""
    process_of_caller.set(process)
    value: Any = None
    try:
        value = function(*args, **kwargs)
        if is_async(function) or inspect.isawaitable(value):
            value = await InProcess(process, _coroutine(value), counts=True)
        process.passed(AT_ITS_END)
    except BaseException:
        if not process.is_held:
            raise
    if process.is_held:
        await process.held()
        raise Killed
    return value


def _coroutine(awaitable: Any) -> Coroutine[Any, Any, Any]:
    if inspect.iscoroutine(awaitable):
        return awaitable

    async def wait() -> Any:
        return await awaitable

    return wait()


def _check_undisturbed(one: _Played, two: _Played) -> None:
    __tracebackhide__ = True
    if one.result.status is not TaskStatus.SUCCESS:
        raise CheckFailed(
            f"the task ends as {one.result.status} even if nothing disturbs it:"
            f" {one.result.error}\n{one.result.traceback or ''}"
        )
    if one.effects == []:
        raise CheckFailed(
            "the task has no effects, so no crash can change them: have the stand-ins of what it"
            " speaks to record what they do"
        )
    different = differences(one.effects, two.effects)
    if different or one.process.points != two.process.points:
        raise CheckFailed(
            "the task is not the same twice, even if nothing disturbs it. If it leaves something"
            " behind, put it back with reset=; if it rolls dice, give them a seed\n"
            f"first: {all_words(one.effects)}\nthen:  {all_words(two.effects)}"
        )


def _crash(undisturbed: _Played, played: _Played, number: int) -> Crash:
    point = undisturbed.process.points[number]
    if played.process.points[-1] != point:
        raise CheckFailed(
            f"run once more, the task did not come to the same points: it should have been killed"
            f" {point}, and came to {played.process.points[-1]}. What it does must depend on nothing"
            " but its arguments and the virtual time; give a seed to whatever rolls dice"
        )
    if played.result.status is not TaskStatus.SUCCESS:
        return Crash(point, other_end(played.result))
    return Crash(point, differences(undisturbed.effects, played.effects))
