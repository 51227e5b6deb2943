"""Puts a call of the test's own in the place of one that was enqueued.

A worker finds out what to run by reading the payload with its serializer. So a serializer that
answers with another call is all it takes: the worker is the real one, and knows nothing of it.
"""

from collections.abc import Callable
from typing import Any

from sitq.serialization import Call, Serializer


class ReplacedCalls(Serializer):
    """Reads and writes as *serializer* does; each call that is read goes through *replace*.

    It is for workers only, which read nothing but calls.
    """

    def __init__(self, serializer: Serializer, replace: Callable[[Call], Call]) -> None:
        self.name = serializer.name
        self._serializer = serializer
        self._replace = replace

    def dumps(self, value: Any) -> bytes:
        return self._serializer.dumps(value)

    def encode(self, value: Any) -> tuple[str, bytes]:
        return self._serializer.encode(value)

    def loads(self, data: bytes) -> Any:
        return self._replace(Call(*self._serializer.loads(data)))

    def stamps(self) -> tuple[str, ...]:
        return self._serializer.stamps()
