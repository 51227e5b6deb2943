"""All public names at once: a type checker knows each of them, and what it is."""
# ruff: noqa: F403, F405

from typing import assert_type

from sitq import *

queue = TaskQueue(MemoryBackend())
assert_type(queue, TaskQueue)
assert_type(queue.backend, Backend)
assert_type(TaskStatus("success"), TaskStatus)
