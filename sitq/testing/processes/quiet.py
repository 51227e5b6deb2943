"""Keeps workers from reporting the deaths that they are made to die."""

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet() -> Generator[None]:
    """Have the logs of workers and leases off meanwhile."""
    logs = [logging.getLogger(name) for name in ("sitq.worker", "sitq.lease")]
    before = [log.disabled for log in logs]
    for log in logs:
        log.disabled = True
    try:
        yield
    finally:
        for log, disabled in zip(logs, before, strict=True):
            log.disabled = disabled
