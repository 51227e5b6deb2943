"""A month of tasks, as `benchmarks/virtual_month.py` measures it, in a smaller size."""

import time

from benchmarks import virtual_month


def test_a_part_of_the_month_is_quick_and_always_the_same(loop) -> None:
    began = time.monotonic()
    first = virtual_month.measure(loop, 2000)
    second = virtual_month.measure(loop, 2000)

    assert first.tasks == second.tasks == 2000
    assert first.digest == second.digest
    assert virtual_month.measure(loop, 2000, seed=1).digest != first.digest
    assert time.monotonic() - began < 60
