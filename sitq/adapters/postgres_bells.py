"""Hints between processes by way of the server: NOTIFY to ring, LISTEN to hear.

As everywhere, a hint that is lost costs a poll. Who listens has a connection of its own, in a
thread that sleeps until something comes; who rings does it on the connection of its batches, once
the batch is answered: see `postgres_news`.
"""

import contextlib
import logging
import os
import selectors
import socket
import threading
from collections.abc import Sequence
from functools import partial
from typing import Final

from sitq.adapters.bells import Bell, Want
from sitq.adapters.postgres import block
from sitq.adapters.postgres_connection import Connection, PostgresSettings, connect
from sitq.adapters.postgres_news import channel
from sitq.storage.postgres_statements import SHOW_THAT_ENDS_ARE_WANTED

log: Final = logging.getLogger("sitq.bells")

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0


class PostgresBells:
    """Bells that are rung by the server's notifications."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings

    def hang(self, want: Want) -> Bell | None:
        here, there = socket.socketpair()
        here.setblocking(False)
        there.setblocking(False)
        listener = _Listener(self._settings, want, there)
        threading.Thread(target=listener.run, name="sitq bell", daemon=True).start()
        descriptor = here.detach()  # a program need not close its backends
        return Bell(descriptor, partial(_take_down, descriptor, os.getpid()))

    def ring(self, want: Want, ids: Sequence[str] = ()) -> None:
        """Nothing: the batch's own connection does it."""


def _take_down(descriptor: int, pid: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as here:
        if os.getpid() == pid:  # the child of a fork only closes its copy
            here.shutdown(socket.SHUT_RDWR)


class _Listener:
    """Passes on what is notified, until the other end of *bell* is shut."""

    def __init__(self, settings: PostgresSettings, want: Want, bell: socket.socket) -> None:
        self._settings = settings
        self._want = want
        self._bell = bell
        self._pause = FIRST_PAUSE

    def run(self) -> None:
        with self._bell:
            while not self._is_over(0):
                try:
                    self._listen()
                except Exception as error:  # noqa: BLE001  # it is a hint, and nothing more
                    log.info("cannot listen for %s, it is polled for: %s", self._want, error)
                if self._is_over(self._pause):
                    return
                self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _is_over(self, seconds: float) -> bool:
        """Wait for so long; say whether the bell was taken down."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def _listen(self) -> None:
        connection = connect(self._settings)
        try:
            name = channel(self._settings.schema, self._want)
            block(connection.ask(f'LISTEN "{name}"'), self._settings)
            if self._want is Want.ENDS:
                shown = connection.ask(SHOW_THAT_ENDS_ARE_WANTED, (self._settings.schema,))
                block(shown, self._settings)
            self._pause = FIRST_PAUSE
            self._ring([])  # for what was committed before
            self._pass_on(connection)
        finally:
            connection.shut()

    def _pass_on(self, connection: Connection) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            selector.register(connection.descriptor, selectors.EVENT_READ)
            stands = True
            while stands:
                if any(key.fileobj is self._bell for key, _ in selector.select()):
                    return
                stands = connection.look()
                for payload in connection.heard():
                    origin, *ids = payload.decode("utf-8", "replace").split("\n")
                    if origin == self._settings.origin:
                        continue
                    if self._want is Want.WORK:
                        for key in ids:
                            self._settings.announced.add(key)
                    self._ring(ids)

    def _ring(self, ids: Sequence[str]) -> None:
        with contextlib.suppress(OSError):  # it has been rung often enough
            self._bell.send("\n".join([*ids, ""]).encode() or b"\n")
