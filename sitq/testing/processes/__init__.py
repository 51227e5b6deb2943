"""Tasks of one event loop that are processes as far as they can tell: they can be killed.

killable              a process, its death, and what runs in it
spawning              how the tasks that a task starts come to be in its process
spawning_on_asyncio   that, on asyncio
spawning_on_trio      that, on trio
quiet                 what the dead would say is not said
"""
