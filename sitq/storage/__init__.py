"""How a database answers: pure programs, and the model that they are held against.

program         a generator that yields statements and is sent their rows
sqlite          every op as SQLite statements
sqlite_schema   the tables, their versions, and how a file gets from one to the next
model           the same ops on plain dicts: the oracle of the tests, and MemoryBackend
"""
