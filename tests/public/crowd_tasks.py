"""Tasks that count how many of them run at once, in whatever process imports them."""

import threading
import time

import anyio
from gated_tasks import LONGEST, Gate


def _is_full(gate: Gate, crowd: int) -> bool:
    return gate.peak >= crowd or gate.is_open


async def join(gate: Gate, crowd: int) -> None:
    """Stay until so many have been there at once; whoever comes later stays for a moment."""
    gate.enter()
    try:
        with anyio.fail_after(LONGEST):
            while not _is_full(gate, crowd):  # noqa: ASYNC110  # the last one ends it for all
                await anyio.sleep(0.01)
        await anyio.sleep(0.01)
    finally:
        gate.leave()


def join_in_a_thread(gate: Gate, crowd: int) -> int:
    gate.enter()
    try:
        give_up_at = time.monotonic() + LONGEST
        while not _is_full(gate, crowd):
            assert time.monotonic() < give_up_at, "the crowd did not come"
            time.sleep(0.005)
        time.sleep(0.005)
    finally:
        gate.leave()
    return threading.get_ident()
