"""A serializer that leaves functions alone, for tests whose tasks are local ones.

A local function is written by value as a rule, and what it closes over is copied: a list that a
test looks at would stay empty. Here such functions stay the objects that they are, and all else is
copied as ever.
"""

import io
import pickle
from types import FunctionType
from typing import Any

from sitq.serialization import PROTOCOL, CloudpickleSerializer
from sitq.task import TaskFunction


class LiveFunctions(CloudpickleSerializer):
    """Writes a number for each function that cannot be imported; it alone can read it again."""

    name = "live"

    def __init__(self) -> None:
        self._functions: list[Any] = []

    def encode(self, value: Any) -> tuple[str, bytes]:
        written = io.BytesIO()
        try:
            _Writer(written, self._functions).dump(value)
        except Exception:  # noqa: BLE001  # whatever it was, cloudpickle has the last word
            return super().encode(value)
        return self.name, written.getvalue()

    def loads(self, data: bytes) -> Any:
        return _Reader(io.BytesIO(data), self._functions).load()

    def stamps(self) -> tuple[str, ...]:
        return (self.name, *super().stamps())


class _Writer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, functions: list[Any]) -> None:
        super().__init__(file, PROTOCOL)
        self._functions = functions

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, FunctionType | TaskFunction):
            return None
        if "<locals>" not in obj.__qualname__ and obj.__module__ != "__main__":
            return None
        if obj not in self._functions:
            self._functions.append(obj)
        return self._functions.index(obj)


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, functions: list[Any]) -> None:
        super().__init__(file)
        self._functions = functions

    def persistent_load(self, pid: Any) -> Any:
        return self._functions[pid]
