"""The tasks of the soak: each is given an object, and gives one back, whose death is seen."""

import threading
import weakref

import anyio

live: "weakref.WeakSet[Tracked]" = weakref.WeakSet()


class Tracked:
    """Known as long as it lives; unpickled, it is another one."""

    def __init__(self, size: int = 100) -> None:
        self.data = bytes(size)
        live.add(self)

    def __reduce__(self):
        return Tracked, (len(self.data),)


async def give_back(tracked: Tracked) -> Tracked:
    return tracked


def give_back_in_thread(tracked: Tracked) -> Tracked:
    return tracked


async def fail(tracked: Tracked) -> None:
    kept_by_the_frame = [tracked]
    raise LookupError("on purpose", len(kept_by_the_frame))


def fail_in_thread(tracked: Tracked) -> None:
    kept_by_the_frame = [tracked]
    try:
        {}[len(kept_by_the_frame)]
    except LookupError as error:
        raise ValueError("because of it") from error


async def fail_in_a_group(tracked: Tracked) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(fail, tracked)
        await anyio.sleep(60)


_tried: set[str] = set()
_lock = threading.Lock()


async def fail_once(tracked: Tracked, key: str) -> Tracked:
    with _lock:
        if key not in _tried:
            _tried.add(key)
            raise LookupError("once more")
        _tried.discard(key)
    return tracked


async def sleep_long(tracked: Tracked) -> None:
    await anyio.sleep(60)


async def stay() -> None:
    """Run for as long as the soak does."""
    await anyio.sleep(86400)


async def sleep_briefly(tracked: Tracked) -> Tracked:
    await anyio.sleep(0.002)
    return tracked
