"""Rounds of faults on Postgres: of the server, of the networks to it, of clocks and of processes.

Workers and producers stand on three hosts, each behind a proxy of its own; the wall clocks of two of
them are ten minutes off. As in `kills`, each round does one thing at a moment that the seed draws,
and each play ends well.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from sitq.testing.simulation.history import Kind
from torture import network
from torture.crew import Process
from torture.kept import Kept
from torture.kills import Play
from torture.network import Host, Trouble
from torture.postgres_witness import TABLES, kept_in_database
from torture.reasons import AWAY, CUT_OFF, Outage
from torture.server import Server
from torture.verdict import Verdict
from torture.where import open_backend
from torture.witness import Record

PAUSE: Final = 0.05
"""Seconds between two enqueues of one lane of a producer, at most."""
CLOCKS: Final = (0.0, 600.0, -600.0)
"""Seconds by which the wall clock of each host is wrong."""
POISON: Final = 2
"""Of 1,000 tasks: nobody on another host sees a worker die, so each death costs a lease."""
DRAINED_WITHIN: Final = 180.0
LEASES: Final = (2.0, 4.0)
"""Seconds: an outage may be longer."""
LONGEST_AWAY: Final = 3.0
PARTITION: Final = 3.0
"""In leases."""


class OutagePlay(Play):
    """Some rounds on one database of *server*."""

    def __init__(self, seed: int, folder: Path, server: Server, mutant: str | None = None) -> None:
        super().__init__(seed, folder, mutant)
        self._patience = DRAINED_WITHIN
        self.server = server
        self.database = server.create_database()
        self._hosts = [
            Host(server, self.database, clock, self._socket(i)) for i, clock in enumerate(CLOCKS)
        ]
        self._read_only_until = 0.0

    def _socket(self, number: int) -> Path | None:
        """Have the last host on a socket, and the others on TCP."""
        if number < len(CLOCKS) - 1:
            return None
        folder = self.server.folder / f"host-of-{self.database}"
        folder.mkdir()
        return folder

    def run(self, rounds: int) -> Verdict:
        anyio.run(self._make_tables)
        self.server.sql(TABLES, self.database)
        try:
            return super().run(rounds)
        finally:
            for host in self._hosts:
                host.proxy.close()
            if not self.server.is_running():
                self.server.start()
            self.server.drop_database(self.database)

    async def _make_tables(self) -> None:
        async with open_backend(self.server.dsn(self.database)):
            pass

    # -- the processes -------------------------------------------------------------------

    def _worker(self) -> Process:
        """Start one on the host that has the fewest."""
        dice = self._dice
        loop, slots = dice.choice(("asyncio", "trio")), dice.choice((1, 4, 16))
        lease = dice.choice(LEASES)
        worker = self._on_a_host("worker", loop, slots, lease)
        host = next(host for host in self._hosts if worker in host.processes)
        host.lease = max(host.lease, lease)
        return worker

    def _producer(self) -> Process:
        dice = self._dice
        self._starts += 1
        loop, seed = dice.choice(("asyncio", "trio")), dice.randrange(2**32)
        return self._on_a_host("producer", loop, seed, self._starts * 1_000_000, PAUSE, POISON)

    def _on_a_host(self, kind: str, *args: object) -> Process:
        host = min(self._hosts, key=partial(_living, kind))
        process = self.crew.start(kind, *args, where=host.where, clock=host.clock)
        host.processes.append(process)
        if host.until > (now := time.monotonic()):
            self._note(process, CUT_OFF, host.until - now)
        return process

    def _note(self, process: Process, reason: str, seconds: float) -> None:
        process.note(Kind.FAULT, Outage(reason, seconds))

    # -- what is done to them ------------------------------------------------------------

    def _odds(self) -> dict[Callable[[Any], None], int]:
        return FAULTS

    def _mend(self, now: float) -> None:
        super()._mend(now)
        for host in self._hosts:
            if host.until and host.until <= now:
                self._end_trouble(host)
        if self._read_only_until and self._read_only_until <= now:
            self._read_only_until = 0.0
            self.server.read_only(False)

    def trouble_a_network(self) -> None:
        trouble = self._dice.choice(list(network.LONGEST))
        self.count(f"... {trouble.__name__}")
        self._trouble(self._host(), trouble, network.LONGEST[trouble] * self._dice.random())

    def cut_a_host_off_for_three_leases(self) -> None:
        host = self._host()
        self._trouble(host, network.silence, PARTITION * host.lease)

    def _host(self) -> Host:
        """Choose one with a worker, and without a trouble."""
        self._fill_up()
        hosts = [host for host in self._hosts if _living("worker", host)]
        host = self._dice.choice([host for host in hosts if not host.until] or hosts)
        self._end_trouble(host)
        return host

    def _end_trouble(self, host: Host) -> None:
        """Have a calm network again. It may have lasted longer than was meant: note when it ended."""
        if host.until:
            host.until = 0.0
            for process in host.processes:
                if process.is_alive():
                    self._note(process, CUT_OFF, 0.0)
        host.proxy.calm()

    def _trouble(self, host: Host, trouble: Trouble, seconds: float) -> None:
        host.until = time.monotonic() + seconds
        for process in host.processes:
            if process.is_alive():
                self._note(process, CUT_OFF, seconds)
        trouble(host.proxy, self._dice)

    def restart_the_server(self) -> None:
        self._take_it_away(lambda: self.server.stop("fast"), 0.0)

    def crash_the_server(self) -> None:
        self._take_it_away(lambda: self.server.stop("immediate"), 0.0)

    def take_the_server_away(self) -> None:
        self._take_it_away(
            lambda: self.server.stop("immediate"), LONGEST_AWAY * self._dice.random()
        )

    def kill_all_of_the_server(self) -> None:
        self._take_it_away(self.server.kill, 0.5 * self._dice.random())

    def _take_it_away(self, end: Callable[[], None], seconds: float) -> None:
        def away() -> None:
            end()
            self._wait(seconds)
            self.server.start()

        self._while_away(away)

    def kill_a_process_of_the_server(self) -> None:
        """Have the server end all connections, and recover by itself."""

        def away() -> None:
            self.server.kill_a_backend(self.database)
            self.server.wait_until_it_answers()

        self._while_away(away)

    def _while_away(self, away: Callable[[], None]) -> None:
        """Do what takes the server away and brings it back; note for how long that was."""
        self._mend_the_server()
        began = Record(time.monotonic_ns(), Kind.FAULT)
        living = [process for process in self.crew.all if process.is_alive()]
        away()
        outage = Outage(AWAY, (time.monotonic_ns() - began.ns) / 1e9)
        for process in living:
            process.done_to_it.append(began._replace(value=outage))

    def end_all_connections(self) -> None:
        self.server.terminate_connections(self.database)

    def make_it_read_only(self) -> None:
        seconds = 2.0 * self._dice.random()
        self.server.read_only(True)
        self._read_only_until = time.monotonic() + seconds
        for process in self.crew.all:
            if process.is_alive():
                self._note(process, AWAY, seconds)

    def _mend_the_server(self) -> None:
        if self._read_only_until:
            self._read_only_until = 0.0
            self.server.read_only(False)

    # -- the end -------------------------------------------------------------------------

    def _kept(self) -> Kept:
        return kept_in_database(self.server, self.database)

    def _count(self, sql: str) -> int:
        ((count,),) = self.server.sql(sql.replace("sitq_tasks", "sitq.tasks"), self.database)
        return int(count)


def _living(kind: str, host: Host) -> int:
    return sum(process.kind == kind and process.is_alive() for process in host.processes)


FAULTS: Final[dict[Callable[[OutagePlay], None], int]] = {
    # in how many of 100 rounds
    OutagePlay.trouble_a_network: 38,
    OutagePlay.cut_a_host_off_for_three_leases: 5,
    OutagePlay.restart_the_server: 5,
    OutagePlay.crash_the_server: 5,
    OutagePlay.take_the_server_away: 5,
    OutagePlay.kill_all_of_the_server: 4,
    OutagePlay.kill_a_process_of_the_server: 6,
    OutagePlay.end_all_connections: 8,
    OutagePlay.make_it_read_only: 6,
    OutagePlay.kill_a_worker: 8,
    OutagePlay.kill_a_producer: 3,
    OutagePlay.suspend_for_a_moment: 3,
    OutagePlay.suspend_beyond_the_lease: 4,
}


def play(
    seed: int, rounds: int, server: Server, *, keep: Path | None = None, mutant: str | None = None
) -> tuple[OutagePlay, Verdict]:
    """Play *rounds* from *seed* on *server*; the files are kept as those of `kills.play`."""
    folder = keep or Path(tempfile.mkdtemp(prefix="sitq-torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    played = OutagePlay(seed, folder, server, mutant)
    verdict = played.run(rounds)
    if keep is None and (mutant or not verdict.violations):
        shutil.rmtree(folder)
    return played, verdict
