"""The hosts that share a server, each behind a network of its own that has its troubles."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from torture.crew import Process
from torture.proxy import Proxy
from torture.server import Server

Trouble = Callable[[Proxy, random.Random], None]


class Host:
    """A name for a network, the clock of those behind it, and who they are."""

    def __init__(self, server: Server, database: str, clock: float, folder: Path | None) -> None:
        self.clock = clock
        """Seconds by which its wall clock is wrong."""
        self.proxy = Proxy(server.socket, folder)
        self.where = server.dsn(database, where=self.proxy.where)
        self.processes: list[Process] = []
        self.lease = 0.0
        """The longest of its workers', in seconds."""
        self.until = 0.0
        """When the trouble of its network is over."""


def cut(proxy: Proxy, dice: random.Random) -> None:  # noqa: ARG001
    """Reset its connections."""
    proxy.cut()


def refuse(proxy: Proxy, dice: random.Random) -> None:  # noqa: ARG001
    """Reset its connections, and whoever makes new ones."""
    proxy.refuse()
    proxy.cut()


def silence(proxy: Proxy, dice: random.Random) -> None:
    """Hold back what is said, one way or both; it arrives later."""
    up, down = dice.choice(((True, True), (True, False), (False, True)))
    proxy.freeze(up=up, down=down)


def delay(proxy: Proxy, dice: random.Random) -> None:
    proxy.up.delay = proxy.down.delay = 0.02 + 0.1 * dice.random()


def throttle(proxy: Proxy, dice: random.Random) -> None:
    proxy.up.bytes_per_second = proxy.down.bytes_per_second = dice.choice((20_000, 200_000))


def lose_the_answer(proxy: Proxy, dice: random.Random) -> None:  # noqa: ARG001
    """Cut instead of the next answer to a COMMIT, which was made."""
    proxy.lose_the_answer()


def lose_the_commit(proxy: Proxy, dice: random.Random) -> None:  # noqa: ARG001
    """Cut instead of the next COMMIT."""
    proxy.lose_the_request(b"COMMIT\x00")


LONGEST: Final[dict[Trouble, float]] = {
    # seconds
    cut: 0.0,
    refuse: 2.0,
    silence: 2.0,
    delay: 3.0,
    throttle: 3.0,
    lose_the_answer: 2.0,
    lose_the_commit: 2.0,
}
