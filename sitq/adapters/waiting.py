"""Drives WaiterMachine inside one `get_result`."""

import math
from collections.abc import Awaitable, Callable

import anyio

from sitq.adapters.hints import Hints
from sitq.protocol.ops import TaskRow
from sitq.protocol.waiter import (
    Answered,
    Ask,
    Deliver,
    GiveUp,
    Hinted,
    Miss,
    Tick,
    WaiterEffect,
    WaiterMachine,
    WaitStarted,
)


async def wait_for_end(
    task_id: str,
    timeout: float | None,
    fetch: Callable[[str], Awaitable[TaskRow | None]],
    hints: Hints,
) -> Deliver | GiveUp | Miss:
    """Return how the wait ended; *timeout* in seconds, None for no limit."""
    machine = WaiterMachine(timeout)
    limit = math.inf if timeout is None else anyio.current_time() + timeout
    hinted = anyio.Event()

    def hint() -> None:
        hinted.set()

    with hints.of_end(task_id, hint):
        effects = machine.receive(WaitStarted(), anyio.current_time())
        while True:
            match _only(effects):
                case Ask():
                    row = await fetch(task_id)
                    effects = machine.receive(Answered(row), anyio.current_time())
                    continue
                case Deliver() | GiveUp() | Miss() as end:
                    return end
                case None:
                    pass
            deadline = machine.next_deadline()
            if deadline is None or hints.are_complete:
                deadline = limit  # there is nothing to look for before
            with anyio.CancelScope(deadline=deadline):
                await hinted.wait()
            if hinted.is_set():
                hinted = anyio.Event()
                effects = machine.receive(Hinted(), anyio.current_time())
            else:
                effects = machine.receive(Tick(), anyio.current_time())


def _only(effects: list[WaiterEffect]) -> WaiterEffect | None:
    assert len(effects) <= 1
    return effects[0] if effects else None
