"""A worker process of a peer: `python -m benchmarks.work JOB INDEX SLOTS`. It ends by being killed.

It gets ready, and begins when it is told to: so several begin at the same time, and how long Python
takes to start is in no figure.
"""

import os
import sys
import time

from benchmarks import loop, marks
from benchmarks.job import Job
from benchmarks.peers import PEERS


def main() -> None:
    job, index, slots = Job.read(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    marks.here = marks.Marks(job.marks, index)
    peer = job.make_peer()
    marks.here.ready(os.getpid())
    while not marks.here.may_go:
        time.sleep(0.001)

    async def work() -> None:
        await peer.open()
        await peer.work(slots)

    loop.run(work, PEERS[job.peer].loop)


if __name__ == "__main__":
    main()
