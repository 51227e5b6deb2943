"""A call is refused exactly if Python would refuse it, however its function takes arguments."""

import functools
import gc
import inspect
import weakref

import pytest

from sitq import Task, ValidationError

FUNCTIONS = {
    "nothing": lambda: None,
    "two": lambda a, b: None,
    "one of two": lambda a, b=1: None,
    "by position alone": lambda a, b=1, /: None,
    "any number": lambda *a: None,
    "one or more": lambda a, *more: None,
    "a keyword that must be there": lambda a, *, key: None,
    "a keyword that may be there": lambda a, *, key=1: None,
    "any keyword": lambda a, **more: None,
    "partial": functools.partial(lambda a, b: None, 1),
    "partial by keyword": functools.partial(lambda a, b: None, a=1),
    "a builtin": len,
    "a builtin without a signature": dict.fromkeys,
    "a class": dict,
}


@pytest.mark.parametrize("kwargs", [{}, {"key": 1}, {"b": 1}])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_call_is_refused_if_it_does_not_fit(name, kwargs) -> None:
    function = FUNCTIONS[name]
    for args in ((), (1,), (1, 2), (1, 2, 3)):
        for _ in range(2):  # the second time it is known
            assert _takes(function, args, kwargs) == _fits(function, args, kwargs), args


def _takes(function, args, kwargs) -> bool:
    try:
        Task(function, *args, **kwargs)
    except ValidationError:
        return False
    return True


def _fits(function, args, kwargs) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:
        return True  # nobody can tell
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def test_what_was_looked_at_is_not_kept() -> None:
    """Even where its values and types lead back to it."""

    class Place:
        pass

    def function(place=Place, *, other: Place = None) -> Place:
        """Belong to the place that is its own default."""

    Place.function = function
    looked_at = weakref.ref(function)
    Task(function)
    with pytest.raises(
        ValidationError, match=r"place=.*Place'>, \*, other: .* cannot be called so"
    ):
        Task(function, nothing=1)
    del function, Place
    gc.collect()
    assert looked_at() is None
