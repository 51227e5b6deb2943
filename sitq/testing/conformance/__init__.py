"""What a backend must do, as tests: those that the backends of sitq are held to.

    from sitq.testing.conformance import BackendSuite

    class TestMyBackend(BackendSuite):
        def new_backend(self, folder):
            return MyBackend(folder / "tasks.db")

It needs pytest; Hypothesis is used if it is there.

suite                   BackendSuite, and the fixtures of all cases
handing_over            enqueue, order, reserve, time
settling                verdicts, fencing, cancelling
workers_and_upkeep      leases, rescues, crashes, and what keeps a store small
sessions                the way to the store and back
one_loop_after_another  programs that run several event loops
native_timeouts         asyncio's own ways to give up
never_closed            programs that never close their backend
lost_answers            whatever is asked again changes nothing
against_the_model       random batches, and the answers of the model
under_faults            a store that refuses, doubts and dawdles: see `faulty`
killed                  a process that is killed in the midst of its batches
"""

import pytest

for _name in (
    "against_the_model", "handing_over", "killed", "lost_answers", "native_timeouts",
    "never_closed", "one_loop_after_another", "sessions", "settling", "suite", "under_faults",
    "workers_and_upkeep",
):  # fmt: skip
    pytest.register_assert_rewrite(f"{__name__}.{_name}")  # so that a failure shows the values

from sitq.testing.conformance.suite import BackendSuite as BackendSuite  # noqa: E402
