"""Where tasks are kept.

base     Backend: what all share, and the one verb that a backend of your own must implement
sqlite   SQLiteBackend: a file
postgres PostgresBackend: a schema of a database, for many hosts
memory   MemoryBackend: this process
"""
