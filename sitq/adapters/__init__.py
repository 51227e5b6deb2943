"""Drivers: they run what the machines and programs decide, and decide nothing.

base          the seam between a committer and whatever applies a batch
committer     drives CommitMachine: group commit for all callers of one backend
worker        drives WorkerMachine in a task group
leasing       drives LeaseMachine in a thread of its own
waiting       drives WaiterMachine inside one `get_result`
calls         runs one call: on the loop or in a thread, and turns all that can happen into text
presence      liveness locks: files that the operating system unlocks when a process dies
clocks        the only file that reads a clock
sqlite        a queue file: opened, checked, locked, checkpointed
on_asyncio    the event loop's own calls, and SQLite through aiosqlite
on_trio       the same for trio, and SQLite through a thread
inline        a store that answers at once, in memory
"""
