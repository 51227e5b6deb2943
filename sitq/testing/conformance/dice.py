"""Where the numbers of a random case come from.

With Hypothesis, it draws them. It does not make a failing case small: on a file that would take many
minutes. Without it, each case has a seed, and is a test of its own.
"""

from collections.abc import Callable
from importlib.util import find_spec
from random import Random
from typing import Any, Final, TypeAlias

import pytest

CASES: Final = 50
"""Runs of a random case."""

Case: TypeAlias = Callable[..., None]


def random_cases(case: Case) -> Case:
    """Run *case* many times, each with a `dice` of its own."""
    if find_spec("hypothesis") is None:
        return _by_seed(case)
    return _by_hypothesis(case)


def _by_seed(case: Case) -> Case:
    dice = [Random(seed) for seed in range(CASES)]  # noqa: S311  # it is no secret
    marked: Any = pytest.mark.parametrize("dice", dice, ids=map(str, range(CASES)))(case)
    return marked  # type: ignore[no-any-return]


def _by_hypothesis(case: Case) -> Case:
    from hypothesis import HealthCheck, Phase, given, settings, strategies as st

    patient = settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    marked: Any = patient(given(dice=st.randoms(use_true_random=False))(case))
    return marked  # type: ignore[no-any-return]
