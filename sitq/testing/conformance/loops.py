"""The event loops that every case runs on: those that are installed."""

from importlib.util import find_spec
from typing import Any, Final

import pytest

LOOPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


def params(*names: str) -> list[Any]:
    """Return what a fixture or a test is parametrised by to run on these loops."""
    return [
        pytest.param(
            LOOPS[name],
            id=name,
            marks=pytest.mark.skipif(
                name != "asyncio" and find_spec(name) is None, reason=f"{name} is not installed"
            ),
        )
        for name in names
    ]


EVERY_LOOP: Final = params(*LOOPS)
ON_ASYNCIO: Final = pytest.mark.parametrize("anyio_backend", params("asyncio", "uvloop"))
"""For what trio does not have: it cancels by scopes only."""
