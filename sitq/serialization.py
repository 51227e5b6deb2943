"""How a call becomes bytes, and how a worker knows whether it can read them.

The promises:
- Every payload is stamped with what wrote it. A worker reads only stamps that it knows; what
  it does not know is parked, not guessed at.
- Every payload has a checksum. No bit that a disk has flipped reaches pickle, where it might be an
  instruction. (Against people it is of no use: they can make another.)
- A call that pickle can write by reference alone is written that way: such bytes can be read
  by any Python that can import the same modules. Functions and classes that cannot be
  imported (lambdas, closures, whatever lives in `__main__`) are written by value by
  cloudpickle, which only the same Python version can read, and the stamp says so.

Unpickling runs code: whoever can write to the store can run code as its workers. See
`docs/explanation/security.md`.
"""

import pickle
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sitq.exceptions import SerializationError, ValidationError

MAGIC: Final = b"sq\x02"
"""The format of the envelope: `MAGIC`, the stamp's length in one byte, the stamp, the CRC-32 of all
else in four bytes, the body."""
PROTOCOL: Final = 5
BY_REFERENCE: Final = f"pickle-{PROTOCOL}"
BY_VALUE: Final = f"cloudpickle-{sys.version_info.major}.{sys.version_info.minor}"


class Serializer(ABC):
    """Turns values into bytes and back.

    A serializer of your own needs a `name`, `dumps` and `loads`. What `dumps` is given is
    either the result of a task, or a call: the tuple `(function, args, kwargs)`.
    """

    name: str
    """Stamped on every payload: 1 to 100 ASCII characters. A change of format needs a new one."""

    @abstractmethod
    def dumps(self, value: Any) -> bytes: ...

    @abstractmethod
    def loads(self, data: bytes) -> Any: ...

    def encode(self, value: Any) -> tuple[str, bytes]:
        """Return the stamp and the bytes of *value*."""
        return self.name, self.dumps(value)

    def stamps(self) -> tuple[str, ...]:
        """Return the stamps that `loads` can read."""
        return (self.name,)


class CloudpickleSerializer(Serializer):
    """The default: writes nearly anything, by reference where it can."""

    name = "cloudpickle"

    def dumps(self, value: Any) -> bytes:
        return self.encode(value)[1]

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)  # noqa: S301  # see the module's last paragraph

    def encode(self, value: Any) -> tuple[str, bytes]:
        # The C pickler is some ten times faster than cloudpickle. It would write what lives in
        # `__main__` by a reference that no other process can follow: any mention of that name
        # among the bytes sends the value to cloudpickle, at no more cost than a search.
        try:
            data = pickle.dumps(value, PROTOCOL)
            # Who has registered a module there has imported it; a fifth of `import sitq` is that.
            loaded = sys.modules.get("cloudpickle")
            registered = loaded is not None and loaded.list_registry_pickle_by_value()
            if b"__main__" not in data and not registered:
                return BY_REFERENCE, data
        except Exception:  # noqa: BLE001, S110  # whatever it was, cloudpickle has the last word
            pass
        import cloudpickle

        return BY_VALUE, cloudpickle.dumps(value, PROTOCOL)

    def stamps(self) -> tuple[str, ...]:
        return (BY_REFERENCE, BY_VALUE)


class Call(NamedTuple):
    """What a task's payload holds."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class UnreadableError(SerializationError):
    """The envelope bears a stamp that this serializer does not read, or is damaged."""

    def __init__(self, stamp: str, message: str) -> None:
        super().__init__(message)
        self.stamp = stamp


def seal(serializer: Serializer, value: Any) -> bytes:
    """Return *value* as bytes in an envelope. Whatever the serializer raises is passed on."""
    stamp, body = serializer.encode(value)
    head, its_sum = _head(stamp)
    return head + _checksum(body, its_sum) + body


@lru_cache(maxsize=16)  # a serializer has few stamps
def _head(stamp: str) -> tuple[bytes, int]:
    """Return how an envelope begins, and the CRC-32 of that."""
    mark = stamp.encode("ascii")
    head = MAGIC + bytes((len(mark),)) + mark
    return head, zlib.crc32(head)


@lru_cache(maxsize=16)  # likewise
def _stamp(head: bytes) -> tuple[str, int]:
    """Return the stamp in the *head* of an envelope, and the CRC-32 of that."""
    return head[4:].decode("ascii", "replace"), zlib.crc32(head)


def unseal(serializer: Serializer, data: bytes) -> Any:
    """Return the value in an envelope.

    Raises `UnreadableError` if its stamp is not known, or its checksum not that of what it holds.
    """
    if data[:3] != MAGIC or len(data) == 3:
        raise UnreadableError(
            f"format {data[:3].hex() or 'none'}",
            f"the payload begins with {data[:3]!r}, and this sitq reads only {MAGIC!r} and what"
            " follows it: it was written by a newer sitq, or is damaged",
        )
    end = 4 + data[3]
    stamp, its_sum = _stamp(data[:end])
    body = data[end + 4 :]
    if data[end : end + 4] != _checksum(body, its_sum):
        raise UnreadableError(
            "damaged",
            f"the payload of {len(data):,} bytes is damaged: its checksum is not that of what it"
            " holds. Restore it from a backup, or cancel the task",
        )
    if stamp not in serializer.stamps():
        raise UnreadableError(
            stamp,
            f"the payload was written by {stamp!r}, and this worker reads only"
            f" {', '.join(serializer.stamps())}: it waits for a worker that can read it",
        )
    return serializer.loads(body)


def _checksum(body: bytes, head_sum: int) -> bytes:
    return zlib.crc32(body, head_sum).to_bytes(4, "big")


def checked_serializer(serializer: Serializer | None) -> Serializer:
    """Return *serializer*, or the default one."""
    if serializer is None:
        return CloudpickleSerializer()
    if not isinstance(serializer, Serializer):
        raise ValidationError(f"serializer must be a Serializer, not {serializer!r}")
    if not (1 <= len(serializer.name) <= 100 and serializer.name.isascii()):
        raise ValidationError(
            f"a serializer's name must have 1 to 100 ASCII characters, not {serializer.name!r}"
        )
    return serializer
