"""The kinds of arrays that are parameters of statements: each has one type, whatever is in it."""


class Ints(list[int]):
    """A parameter that is an array of numbers."""


class Texts(list[str | None]):
    """A parameter that is an array of texts."""


class Blobs(list[bytes]):
    """A parameter that is an array of bytes."""
