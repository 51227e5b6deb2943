"""The processes of a supervisor: how they are started, watched and ended.

The promises: each is started anew, never forked, in a session of its own, so a Ctrl-C is for the
supervisor alone; none stays a zombie; and none outlives the supervisor, whatever kills that: see
`leash`. Nothing is polled: a signal, the end of a worker and a word of it each wake the supervisor.

It opens no queue file and imports no task. What is to be done is decided in `supervision`.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, assert_never

from sitq.adapters import chance
from sitq.cli import stop_signals
from sitq.cli.supervision import (
    BecameReady,
    Began,
    Effect,
    End,
    Event,
    Exited,
    Heard,
    Launch,
    Launched,
    LaunchFailed,
    Say,
    Send,
    SupervisionMachine,
    TimePassed,
)

KILL_WITHIN: Final = 2.0
"""Seconds that killed workers may take to be gone; one in the middle of a disk's call is left."""


def run(options: Sequence[str], processes: int, *, drain: bool, say: Callable[[str], None]) -> int:
    """Keep *processes* workers with these *options* at work; return the exit code."""
    # `-m` puts the current folder on the path, where anything may lie; unless it was there.
    safe = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]  # noqa: PTH109
    command = [sys.executable, *safe, "-m", "sitq.cli", "worker", "--supervised", *options]
    machine = SupervisionMachine(
        processes,
        chance.unit,
        drain=drain,
        # A terminal says by it that it was closed.
        hangup_replaces=not os.isatty(0),
    )
    say(f"supervisor {os.getpid()} of {processes} workers")
    with stop_signals.installed():
        return _Supervisor(machine, command, say).run()


class _Supervisor:
    def __init__(
        self, machine: SupervisionMachine, command: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self._machine = machine
        self._command = command
        self._say = say
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._leashes: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._code: int | None = None

    def run(self) -> int:
        receiver, sender = socket.socketpair()
        for end in (receiver, sender):
            end.setblocking(False)
        with receiver, sender, self._selector:
            self._selector.register(receiver, selectors.EVENT_READ)
            before = signal.signal(signal.SIGCHLD, _nothing)
            # The system's own handler writes each number there: none is lost, and select() returns.
            signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            stop_signals.hand_to(_nothing)
            try:
                self._tell(Began())
                while self._code is None:
                    self._turn(receiver)
            finally:
                self._kill_all()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, before)
        return self._code

    def _turn(self, receiver: socket.socket) -> None:
        deadline = self._machine.next_deadline()
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        for key, _ in self._selector.select(wait):
            if key.fileobj is receiver:
                for number in receiver.recv(1024):
                    if number in stop_signals.STOP_SIGNALS:
                        self._tell(Heard(number))
            else:
                self._listen_to(key.data)
        for pid, process in list(self._processes.items()):
            if process.poll() is not None:
                self._forget(pid)
                self._tell(Exited(pid, process.returncode))
        self._tell(TimePassed())

    def _listen_to(self, pid: int) -> None:
        try:
            said = self._leashes[pid].recv(16)
        except OSError:
            said = b""
        if said:
            self._tell(BecameReady(pid))
        else:
            self._selector.unregister(self._leashes[pid])  # it is about to be gone

    def _tell(self, event: Event) -> None:
        for effect in self._machine.receive(event, time.monotonic()):
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Launch(slot):
                self._launch(slot)
            case Send(pid, number):
                with contextlib.suppress(ProcessLookupError):
                    self._processes[pid].send_signal(number)
            case Say(text):
                self._say(text)
            case End(code):
                self._code = code
            case _:
                assert_never(effect)

    def _launch(self, slot: int) -> None:
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(  # noqa: S603  # ourselves
                self._command, stdin=theirs.fileno(), start_new_session=True
            )
        except OSError as error:
            ours.close()
            self._tell(LaunchFailed(slot, str(error)))
            return
        finally:
            theirs.close()
        self._processes[process.pid] = process
        self._leashes[process.pid] = ours
        self._selector.register(ours, selectors.EVENT_READ, process.pid)
        self._tell(Launched(slot, process.pid))

    def _forget(self, pid: int) -> None:
        del self._processes[pid]
        leash = self._leashes.pop(pid)
        with contextlib.suppress(KeyError):
            self._selector.unregister(leash)
        leash.close()

    def _kill_all(self) -> None:
        """See to it that nobody is left, nor the zombie of anybody."""
        for process in self._processes.values():
            process.kill()
        until = time.monotonic() + KILL_WITHIN
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        for leash in self._leashes.values():
            leash.close()


def _nothing(number: int, frame: FrameType | None = None) -> None:
    """Do nothing: it is heard by other means."""
