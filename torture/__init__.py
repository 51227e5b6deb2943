"""Real processes on an SQLite file or a Postgres server, killed at random, and judged afterwards.

`python -m torture --help` says what can be run. The promise: each run prints what it did and what
it found, and ends with 1 if anything was lost, done twice, or not explained.
"""
