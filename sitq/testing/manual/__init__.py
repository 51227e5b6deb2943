"""The queue that a test moves by hand: what the fixture `sitq_queue` gives.

queue        ManualQueue: enqueue, drain, look
clock        its clock, which passes when the test says so
witness      what was enqueued
expectation  what a test expects of that, and what it is told if it is not so
"""
