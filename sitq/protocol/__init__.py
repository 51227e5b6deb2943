"""The machines that decide: pure, and complete without any event loop, clock or chance.

lifecycle   how a task may move: a table
ops         what is asked of storage, and what it answers
commit      many requests, one transaction at a time
worker      what a worker does next
lease       how a worker stays alive in the eyes of others, and finds the dead
retry       what becomes of a task, from what its function did
waiter      one awaited result
timers      when a machine wants to be called again

Every machine has the same shape: `receive(event, now)` returns a list of effects, and
`next_deadline()` says when to come back with a `Tick`. Events tell what has happened; effects
say what to do, in order. `now` is in seconds on a monotonic clock. Chance is an argument.
"""
