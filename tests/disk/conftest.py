"""The VFS in its place, clocks that stand still, and the counts of what was tried.

`python -m tests.disk` prints the counts; with `--long` (or SITQ_DISK=long) more ways to fail and
more subsets of the sectors are tried at each call.
"""

import os
import time

import pytest

from sitq.adapters import clocks, sqlite as adapter
from sitq.protocol.ops import Moment
from tests.disk import vfs
from tests.disk.sqlite_library import NoWayInError

MOMENT = Moment(1_700_000_000_000, 50_000, "boot")
CHECKPOINT_AT = 8192
COUNTED = "tried: "


@pytest.fixture(scope="session")
def long() -> bool:
    return os.environ.get("SITQ_DISK") == "long"


@pytest.fixture(autouse=True)
def _through_the_vfs():
    try:
        vfs.install()
    except NoWayInError as reason:
        if "CI" in os.environ:
            pytest.fail(f"nothing can be tested here: {reason}")
        pytest.skip(str(reason))
    yield
    vfs.uninstall()


@pytest.fixture(autouse=True)
def _no_time_passes(monkeypatch):
    """A pause is a jump of the clock: a file that is busy for ever is given up at once."""
    skipped = 0.0

    def sleep(seconds: float) -> None:
        nonlocal skipped
        skipped += seconds

    monkeypatch.setattr(clocks, "sleep", sleep)
    monkeypatch.setattr(clocks, "step_aside", sleep)
    monkeypatch.setattr(clocks, "monotonic", lambda: time.monotonic() + skipped)


@pytest.fixture
def same_every_time(monkeypatch):
    """Rows do not depend on when they were written; checkpoints come early, and by the gate."""
    monkeypatch.setattr(clocks, "moment", lambda: MOMENT)
    monkeypatch.setattr(adapter, "CHECKPOINT_AT", CHECKPOINT_AT)
    monkeypatch.setattr(adapter, "needs_gate", lambda version: True)


@pytest.fixture
def tried(request):
    """Say how many of something were tried; fail if there were fewer than *least*."""

    def tried(what: str, number: int, *, least: int) -> None:
        request.node.user_properties.append((COUNTED + what, number))
        assert number >= least, f"only {number} {what} were tried"

    return tried


def pytest_terminal_summary(terminalreporter) -> None:
    counts: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, number in report.user_properties:
                    if name.startswith(COUNTED):
                        what = name.removeprefix(COUNTED)
                        counts[what] = counts.get(what, 0) + number
    if counts:
        told = "; ".join(f"{what}: {number:,}" for what, number in counts.items())
        terminalreporter.write_line(told)
