"""Drivers: they run what the machines and programs decide, and decide nothing.

base          the seam between a committer and whatever applies a batch
committer     drives CommitMachine: group commit for all callers of one backend
worker        drives WorkerMachine in a task group
leasing       drives LeaseMachine: in a thread of its own, or in a virtual run without
waiting       drives WaiterMachine inside one `get_result`
session       a backend at work in one event loop
hints         who wants to hear of what was committed here
bells         sockets in a folder, by which other processes are told
doorbell      what is rung, and what becomes of what is heard
calls         runs one call: on the loop or in a thread, and turns all that can happen into text
presence      liveness locks: files that the operating system unlocks when a process dies
clocks        the only file that reads a clock
chance        the only file that rolls dice
virtual       whether the caller is in a virtual run, by whose clock and dice it goes then
ids           where ids are made
sqlite_file   whether a path can hold a queue
sqlite        one connection to a queue file: batches, patience, checkpoints
current       which of the two loops below the caller runs in
on_asyncio    the event loop's own calls, and SQLite through aiosqlite
on_trio       the same for trio, and SQLite through a thread
thread        a store in a thread of its own, for any loop
inline        a store that answers at once, on the loop
"""
