"""What ends a virtual run that would never end, and what its author is told.

The promise: a run in which nothing can happen any more, or which goes on for longer than it was
given, ends with an error. `main` is cancelled first, so the error is raised from where it stood.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from sitq.exceptions import DeadlockError, VirtualTimeError

T = TypeVar("T")


def deadlock() -> DeadlockError:
    return DeadlockError(
        "nothing is ready and no timer is set, so nothing can ever happen again: each task waits"
        " for another, or for something outside of the program (a socket, a process, a thread of"
        " your own), which virtual time does not wait for. The cause of this error shows where main"
        " stood"
    )


def limit_reached(seconds: float) -> VirtualTimeError:
    return VirtualTimeError(
        f"main has not ended within its limit of {timedelta(seconds=seconds)} of virtual time; if it"
        " is meant to take longer, give run() a larger limit="
    )


async def unless_stuck(
    main: Callable[[], Awaitable[T]], stuck: Callable[[], VirtualTimeError | None]
) -> T:
    """Return what *main* returns; if it was cancelled for being *stuck*, raise that instead."""
    try:
        value = await main()
    except BaseException as error:
        why = stuck()
        if why is None:
            raise
        raise why from error
    why = stuck()
    if why is not None:
        raise why
    return value
