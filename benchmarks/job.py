"""What is to be measured: handed from `rounds` to `measure`, and from there to each `work`."""

import json
from dataclasses import asdict, dataclass
from typing import NamedTuple

from benchmarks.peers import PEERS
from benchmarks.peers.base import Peer


class Size(NamedTuple):
    """How much of everything. It is small: the spread comes from repeating it."""

    seconds: float
    """that callers enqueue"""
    backlog: int
    """tasks that are drained"""
    limit: float
    """seconds that a drain may take; then it is cut off, and the rate is of what was done"""
    samples: int
    """of a latency"""
    deep: int
    """tasks that wait, or have ended, when their number is what is looked at"""
    idle: float
    """seconds that an idle worker is watched"""
    waiting: int
    """tasks that wait in one worker"""
    callers: int
    """callers that wait for a result"""
    stalls: float
    """seconds in which the longest pause is looked for"""


SIZES = {
    "full": Size(1.0, 20_000, 3.0, 100, 1_000_000, 10.0, 1_000, 10_000, 10.0),
    "quick": Size(0.2, 2_000, 1.0, 20, 20_000, 1.0, 200, 1_000, 1.0),
    "smoke": Size(0.02, 50, 1.0, 2, 100, 0.1, 5, 5, 0.1),
}


@dataclass(frozen=True)
class Job:
    """*folder* is empty, and for this job alone. *server* is a URL, *server_pid* its process."""

    peer: str
    workload: str
    size: str
    folder: str
    server: str | None = None
    server_pid: int | None = None

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "Job":
        return cls(**json.loads(text))

    @property
    def marks(self) -> str:
        return f"{self.folder}/marks"

    def make_peer(self) -> Peer:
        return PEERS[self.peer].make(self.server or self.folder)
