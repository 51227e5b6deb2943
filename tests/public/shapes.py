"""Callables of every shape, in a module that a worker can import."""

import functools
import threading

from anyio.lowlevel import checkpoint


def add(a, b=0):
    return a + b


async def add_async(a, b=0):
    await checkpoint()
    return a + b


def add_later(a, b=0):
    """Return an awaitable, as many wrappers do."""
    return add_async(a, b)


class Soon:
    """Awaitable, and no coroutine."""

    def __init__(self, value) -> None:
        self.value = value

    def __await__(self):
        return self._wait().__await__()

    async def _wait(self):
        await checkpoint()
        return self.value


def add_soon(a, b=0):
    return Soon(a + b)


class Account:
    def __init__(self, balance) -> None:
        self.balance = balance

    def __eq__(self, other) -> bool:
        return isinstance(other, Account) and other.balance == self.balance

    __hash__ = None

    def add(self, b):
        return self.balance + b

    async def add_async(self, b):
        await checkpoint()
        return self.balance + b

    @classmethod
    def of(cls, balance):
        return cls(balance)

    @staticmethod
    async def sum_of(a, b):
        return a + b


class Adder:
    def __init__(self, a) -> None:
        self.a = a

    def __call__(self, b):
        return self.a + b


class AsyncAdder(Adder):
    async def __call__(self, b):
        await checkpoint()
        return self.a + b


def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@timed
def wrapped(a, b=0):
    return a + b


@timed
async def wrapped_async(a, b=0):
    return a + b


@functools.lru_cache
def cached(a, b=0):
    return a + b


def thread() -> int:
    return threading.get_ident()


async def thread_async() -> int:
    return threading.get_ident()


def takes_anything(*args, **kwargs):
    return args, kwargs


def takes_option_names(*, queue, priority, delay, timeout, retry, max_crashes, task_id):
    return [queue, priority, delay, timeout, retry, max_crashes, task_id]


def takes_awkward_names(self, function, args, kwargs):
    return [self, function, args, kwargs]


def takes_eta(eta=None):
    return eta
