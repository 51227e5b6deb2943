"""The simulator: whole fleets of workers in virtual time, from one seed.

The machines and the storage programs are those of production; the processes, the clocks, the
disk and the tasks around them are made up, and go wrong as the seed says.

chance      all the dice of a run
climate     what a run is made of, and what goes wrong in it: drawn from the seed
store       the programs of production on a store in memory, statement by statement
disk        what becomes of a transaction
world       time, clocks, processes and faults: what happens when
process     one process: a worker with its lease, and group commit
callers     who enqueues in a process, and who waits
history     what happened, in one format for simulated and for real runs
invariants  what must hold of any history
facts       what a history has told so far
rows        what must hold of the store
trial       one run from beginning to end: drawn, played and judged
mutants     bugs planted on purpose: the proof that all this bites
marks       rare states that a set of runs must have reached
runs        many runs, in several processes, judged as a set
shrink      making a run that fails small
words       an event in plain words
story       a run in words, for a person
lanes       what is seen of a run on a picture
timeline    a run as a picture
"""
