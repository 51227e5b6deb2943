"""How soon a server that comes back is used as fully as before, by workers that nobody restarts."""

import random
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sitq import SyncTaskQueue, Task
from torture import tasks
from torture.crew import Crew
from torture.server import Server
from torture.waiting import wait_until
from torture.where import open_backend

PROMISED: Final = 5.0
"""Seconds from the server's return until the rate is what it was."""
AS_BEFORE: Final = 0.9
WINDOW: Final = 1.5
"""Seconds over which a rate is taken."""
LOOK_EVERY: Final = 0.05
GIVE_UP: Final = 60.0
LOOPS: Final = ("asyncio", "trio")
SLOTS: Final = 2
LONGEST: Final = 0.2
"""Seconds that a task takes, at most: the rate is to be that of the slots, not of the processors."""
BACKLOG: Final = 1000
"""Tasks that are added for each outage, so that the workers always have something to do."""
LEASE: Final = 10.0
ENDED: Final = "SELECT count(*) FROM sitq.tasks WHERE state = 'success'"


class Recovered(NamedTuple):
    """Seconds from the server's return: until a task ended, and until as many did as before."""

    first: float
    all: float


def recovery_times(server: Server, outages: int, away: float, seed: int) -> Iterator[Recovered]:
    """Take *server* away for *away* seconds, again and again; yield how long each recovery took."""
    database = server.create_database()
    crew = Crew(Path(tempfile.mkdtemp(prefix="sitq-recovery-")))
    watched = _Watched(server, database, random.Random(seed))
    try:
        watched.fill()
        for loop in LOOPS:
            crew.start("worker", loop, SLOTS, LEASE, where=server.dsn(database), watched=False)
        wait_until(watched.ended)
        for _ in range(outages):
            watched.fill()
            before = watched.rate_over(2 * WINDOW)
            server.stop("immediate")
            time.sleep(away)
            server.start()
            yield watched.recovered_after(before)
            assert all(worker.is_alive() for worker in crew.all), "a worker did not live through it"
    finally:
        crew.close()
        server.drop_database(database)


class _Watched:
    def __init__(self, server: Server, database: str, dice: random.Random) -> None:
        self._server = server
        self._database = database
        self._dice = dice

    def _count(self, sql: str) -> int:
        ((count,),) = self._server.sql(sql, self._database)
        return int(count)

    def ended(self) -> int:
        return self._count(ENDED)

    def fill(self) -> None:
        """Have enough tasks wait for what comes next."""
        with SyncTaskQueue(open_backend(self._server.dsn(self._database))) as queue:
            queue.enqueue_many(
                [Task(tasks.short, n, LONGEST * self._dice.random()) for n in range(BACKLOG)]
            )

    def rate_over(self, seconds: float) -> float:
        began, ended = time.monotonic(), self.ended()
        time.sleep(seconds)
        return (self.ended() - ended) / (time.monotonic() - began)

    def recovered_after(self, before: float) -> Recovered:
        """Wait for a window, which begins now or later, that is as good as *before*."""
        back = time.monotonic()
        ended, first = self.ended(), GIVE_UP
        seen: deque[tuple[float, int]] = deque()
        while time.monotonic() - back < GIVE_UP:
            seen.append((time.monotonic(), self.ended()))
            if seen[-1][1] > ended:
                first = min(first, seen[-1][0] - back)
            while seen and seen[-1][0] - seen[0][0] >= WINDOW:
                (at, earlier), (now, later) = seen[0], seen[-1]
                if (later - earlier) / (now - at) >= AS_BEFORE * before:
                    return Recovered(first, at - back)
                seen.popleft()
            time.sleep(LOOK_EVERY)
        return Recovered(first, GIVE_UP)
