"""One workload of one peer: `python -m benchmarks.measure JOB` prints its figures as JSON.

It runs in the Python that has the peer's library, and needs nothing else there.
"""

import json
import os
import sys
import traceback

from benchmarks import loop, marks
from benchmarks.bench import Bench
from benchmarks.job import SIZES, Job
from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS


def main() -> None:
    job = Job.read(sys.argv[1])
    marks.here = marks.Marks(job.marks)
    found: dict[str, object] = {}

    async def measure() -> None:
        async with loop.group() as start:
            bench = Bench(job, SIZES[job.size], start)
            try:
                if WORKLOADS[job.workload].needs_store:
                    await bench.peer.open()
                found["figures"] = await WORKLOADS[job.workload].run(bench)
            except Exception:  # noqa: BLE001  # the table says that it failed
                found["error"] = traceback.format_exc()
            bench.crew.dismiss()
            # Whatever still waits here, and however long a library takes to close: it is over.
            print(json.dumps(found), flush=True)
            os._exit(0)

    loop.run(measure, PEERS[job.peer].loop)


if __name__ == "__main__":
    main()
