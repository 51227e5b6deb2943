"""How fast sitq is, beside a loop written by hand and beside other libraries, in one run.

    python -m benchmarks                             sitq, the loop by hand, and what is installed
    python -m benchmarks --quick                     the same in a few minutes, for a first look
    python -m benchmarks --install-peers FOLDER      a virtual environment for each of the others
    python -m benchmarks --peers-in FOLDER           with these
    python -m benchmarks --page                      and write docs/explanation/speed.md anew
    python -m benchmarks instructions                what one task costs, counted and not timed
    python -m benchmarks soak-postgres               whether a million tasks leave Postgres slower

The files, from what is measured to what is shown:

peers/       one file for each library: how it enqueues, works, and waits for a result
tasks, marks what the tasks do, and the memory in which they leave a mark
throughput, pickup, cost   the workloads; `workloads` is the table of them
measure      one workload of one peer, in a process of its own and in that peer's Python
work         a worker process of a peer
rounds       all of them, round by round, so that whatever else the machine does meets everybody
figures      medians, spreads, and ratios of what was measured in the same round
tables, plot, page         what people read
servers      a private Redis and a private Postgres
soak         the same table again and again, on Postgres
instructions counts that do not depend on what else the machine does

`latency.py` and `virtual_month.py` are programs of their own.
"""
