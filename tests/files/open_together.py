"""Opens each file that it is told of, enqueues into it and says how that went: one line for each."""

import sys

from sitq import SQLiteBackend, SyncTaskQueue

for line in sys.stdin:
    try:
        with SyncTaskQueue(SQLiteBackend(line.rstrip("\n"))) as queue:
            print(queue.enqueue(len, "abc"), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
