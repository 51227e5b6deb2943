"""What `sitq doctor` finds out about what stands between: a pooler, and whether LISTEN works.

A pooler shows by the number of the server's process: the one that was announced to us is its own
invention. If it gives each transaction another connection, ours has another one as soon as somebody
else holds the first in a transaction. Nothing is left in the connections of such a pooler.
"""

import secrets
from collections.abc import Iterator
from typing import Final

from sitq.adapters import clocks
from sitq.adapters.postgres_connection import PostgresSettings
from sitq.adapters.postgres_errors import NoAnswerError
from sitq.cli.finding import Finding
from sitq.cli.queue_server import Talk

PATIENCE: Final = 5.0
LOOK_EVERY: Final = 0.05
FULL: Final = 0.5
"""Of the server's memory for notifications that somebody has not read yet."""
WITHOUT_SESSIONS: Final = (
    "make backends with PostgresBackend(..., listen=False, prepare=False), or have them connect past"
    " the pooler or to a pool in session mode"
)


def examine(settings: PostgresSettings, *, can_listen: bool) -> Iterator[Finding]:
    """Find out, by two connections of their own; *can_listen* says that the server lets us."""
    one = Talk(settings)
    try:
        other = Talk(settings)
        try:
            yield from _examine(one, other, can_listen=can_listen)
        finally:
            other.close()
    finally:
        one.close()


def _examine(one: Talk, other: Talk, *, can_listen: bool) -> Iterator[Finding]:
    if _process(one) == one.connection.announced_pid:
        yield Finding("OK", "pooler", "none: the server itself has answered")
    elif _changes_hands(one, other):
        found = "one that gives each transaction another connection"
        yield Finding("WARN", "pooler", found, WITHOUT_SESSIONS)
        found = "does not work through this pooler: new tasks are found by polling alone"
        yield Finding("WARN", "LISTEN", found, WITHOUT_SESSIONS)
        return
    else:
        yield Finding("OK", "pooler", "there is one, and it keeps sessions together")
    if can_listen:
        yield _listen(one, other)


def _process(talk: Talk) -> int:
    ((pid,),) = talk.ask("SELECT pg_backend_pid()")
    return int(pid)


def _changes_hands(one: Talk, other: Talk) -> bool:
    """Whether either of them meets a second process.

    Both hold a transaction at the same time, and give it back crosswise: also who is given what came
    back last then meets the other's.
    """
    both = (one, other)
    met = {talk: {_process(talk)} for talk in both}
    began: list[Talk] = []
    try:
        for talk in both:
            talk.ask("BEGIN READ ONLY")
            began.append(talk)
            met[talk].add(_process(talk))
    except NoAnswerError:  # all of the pool's connections are in a transaction, and it is ours
        return True
    finally:
        for talk in reversed(began):
            talk.ask("ROLLBACK")
            clocks.sleep(LOOK_EVERY)  # until the pooler has it back
    return any(len(met[talk] | {_process(talk)}) > 1 for talk in reversed(both))


def _listen(one: Talk, other: Talk) -> Finding:
    channel = f"sitq_doctor_{secrets.token_hex(8)}"
    one.ask(f'LISTEN "{channel}"')
    began = clocks.monotonic()
    other.ask(f'NOTIFY "{channel}"')
    while clocks.monotonic() - began < PATIENCE:
        if not one.connection.look():
            break
        if one.connection.heard():
            ((full,),) = other.ask("SELECT pg_notification_queue_usage()")
            if full > FULL:
                found = f"{full:.0%} of the room for notifications is taken"
                to_do = (
                    "a session listens and stays in a transaction: end it (pg_stat_activity); when"
                    " there is no room left, nobody can enqueue"
                )
                return Finding("WARN", "LISTEN", found, to_do)
            return Finding("OK", "LISTEN", f"heard after {clocks.monotonic() - began:.3f} s")
        clocks.sleep(LOOK_EVERY)
    return Finding(
        "WARN",
        "LISTEN",
        f"nothing was heard for {PATIENCE:g} s: new tasks are found by polling alone",
        "something between drops notifications; have workers connect past it, or make backends with"
        " PostgresBackend(..., listen=False)",
    )
