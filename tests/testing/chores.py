"""Tasks of the tests, and what they have left behind; by reference, so that all see the same."""

import anyio

from sitq import testing

done: list = []


async def nap(seconds: float) -> str:
    await anyio.sleep(seconds)
    done.append((testing.now(), seconds))
    return f"slept {seconds:g}"


async def fail() -> None:
    done.append(testing.now())
    raise ConnectionError("no answer")


async def never_end() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        done.append(testing.now())


def double(n: int) -> int:
    return 2 * n


def nap_later(seconds: float):
    """A plain function, whose result is awaited."""
    return nap(seconds)


def interrupt_itself() -> None:
    raise SystemExit(3)
