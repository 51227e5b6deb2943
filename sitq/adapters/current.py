"""Which event loop the caller runs in."""

import sys

from sitq.adapters.base import Loop
from sitq.exceptions import NoEventLoopError


def current_loop() -> Loop:
    """Return the event loop that the caller runs in. What it needs is imported here."""
    if "trio" in sys.modules:
        from sitq.adapters import on_trio

        if on_trio.is_here():
            return on_trio.TrioLoop()
    from sitq.adapters import on_asyncio

    if on_asyncio.is_here():
        return on_asyncio.AsyncioLoop()
    raise NoEventLoopError(
        "this needs a running asyncio or trio event loop; without one use SyncTaskQueue"
    )
