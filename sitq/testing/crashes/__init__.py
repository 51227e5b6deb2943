"""crash_everywhere: a task whose worker is killed at every point there is.

crashing  one run for each point, and what came of it
point     where a task was killed
report    what a crash has changed, in words
effects   what a task does to the world, as it records it
"""
