"""simulate: a scenario of one's own, while things go wrong for its workers and its store.

simulating      the runs, one for each seed
faults          what may go wrong, and when it does
faulty_backend  a store in memory to which it happens
promises        what must hold whatever happens
postponed       what happens later
live_functions  functions that workers are given as they are
report          what came of it, in words
"""
