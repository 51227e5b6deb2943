"""What a message is: an immutable value that equals only its own kind.

Events, effects, ops and outcomes are named tuples. Of what the standard library has, they are
the quickest to make, a million times over in a run, and to define, more than a hundred times
in an import. A plain tuple equals any other with the same items, though, and `Started()`
is not `Woken()`: `message` mends that.

Like any tuple without items, a message without fields is false: ask `is not None`.
"""

from typing import Any, TypeVar

M = TypeVar("M", bound=type)


def message(kind: M) -> M:
    """Make the named tuple *kind* equal only to its own kind."""

    def equals(self: tuple[Any, ...], other: object) -> bool:
        return other.__class__ is kind and tuple.__eq__(self, other)

    def differs(self: tuple[Any, ...], other: object) -> bool:
        return not equals(self, other)

    methods: Any = kind
    methods.__eq__ = equals
    methods.__ne__ = differs
    methods.__hash__ = tuple.__hash__
    return kind
