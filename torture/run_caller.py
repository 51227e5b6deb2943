"""A caller in a process of its own: `run_caller WHERE STYLE SECONDS`.

It enqueues one task of that style, which takes so long, and waits for its end.
"""

import sys

from sitq import SyncTaskQueue, Task
from sitq.testing.simulation.history import Kind
from torture import tasks, witness
from torture.where import open_backend


def main(where: str, style: str, seconds: str) -> None:
    witness.install(where)
    task = Task(getattr(tasks, style), 1, float(seconds)).using(task_id="own")
    with SyncTaskQueue(open_backend(where)) as queue:
        witness.note(Kind.ENQUEUE, value=("own",))
        witness.note(Kind.ENQUEUED, value=tuple(queue.enqueue_many([task])))
        queue.get_result("own", timeout=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
