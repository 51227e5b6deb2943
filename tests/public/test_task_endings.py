"""Whatever a task raises or returns, that one task ends readably and its worker goes on."""

import asyncio
import importlib
import pickle
import sys
import threading
from functools import partial

import anyio
import pytest
from gated_tasks import visit

from sitq import (
    CloudpickleSerializer,
    Retry,
    SerializationError,
    TaskQueue,
    ValidationError,
    Worker,
)

pytestmark = pytest.mark.anyio

ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)


class HostileText(Exception):
    def __str__(self) -> str:
        raise SystemExit("from __str__")

    __repr__ = __str__


class NoText(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307

    __repr__ = __str__


class HostilePickle(Exception):
    def __reduce__(self):
        raise KeyboardInterrupt("from __reduce__")


class HostileTraceback(Exception):
    @property
    def __notes__(self):
        raise SystemExit("from __notes__")

    def __getattribute__(self, name):
        if name == "args":
            raise KeyboardInterrupt("from args")
        return super().__getattribute__(name)


class OddName(type):
    @property
    def __name__(cls):
        return "\ud800\0 name"


class NoName(type):
    @property
    def __name__(cls):
        raise SystemExit("from __name__")


class Odd(Exception, metaclass=OddName):
    pass


class Nameless(Exception, metaclass=NoName):
    pass


def recurse():
    return recurse() + 1


def throw(error):
    raise error


def cyclic():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


async def recurse_async():
    recurse()


async def throw_async(error):
    raise error


async def cyclic_async():
    cyclic()


# what is raised (made anew each time), the name of its class, and what its text must hold
ERRORS = {
    "Exception": (lambda: Exception("plain"), "Exception", "plain"),
    "without text": (ValueError, "ValueError", "ValueError"),
    "SystemExit": (lambda: SystemExit(3), "SystemExit", "3"),
    "KeyboardInterrupt": (KeyboardInterrupt, "KeyboardInterrupt", "KeyboardInterrupt"),
    "GeneratorExit": (lambda: GeneratorExit("gone"), "GeneratorExit", "gone"),
    "CancelledError": (lambda: asyncio.CancelledError("mine"), "CancelledError", "mine"),
    "ExceptionGroup": (lambda: ExceptionGroup("two", [ValueError("one")]), "ExceptionGroup", "two"),
    "BaseExceptionGroup": (
        lambda: BaseExceptionGroup("two", [KeyboardInterrupt(), asyncio.CancelledError()]),
        "BaseExceptionGroup",
        "two",
    ),
    "StopIteration": (lambda: StopIteration("end"), None, ""),
    "StopAsyncIteration": (lambda: StopAsyncIteration("end"), "StopAsyncIteration", "end"),
    "MemoryError": (lambda: MemoryError("full"), "MemoryError", "full"),
    "TimeoutError": (
        lambda: TimeoutError("of the task's own"),
        "TimeoutError",
        "of the task's own",
    ),
    "hostile text": (lambda: HostileText("x"), "HostileText", "SystemExit"),
    "no text": (lambda: NoText("x"), "NoText", "TypeError"),
    "hostile pickle": (lambda: HostilePickle("kept"), "HostilePickle", "kept"),
    "hostile attributes": (lambda: HostileTraceback("x"), "HostileTraceback", ""),
    "odd name": (lambda: Odd("kept"), r"\ud800\x00 name", "kept"),
    "hostile name": (lambda: Nameless("kept"), None, ""),
    "surrogates": (lambda: ValueError("a \ud800 b"), "ValueError", r"a \ud800 b"),
    "NUL": (lambda: ValueError("a \0 b"), "ValueError", r"a \x00 b"),
    "escapes": (lambda: ValueError("a \x1b[31m b \u202e"), "ValueError", r"a \x1b[31m b \u202e"),
    "a mebibyte": (lambda: ValueError("x" * 2**20), "ValueError", "x" * 1000),
}


def throw_by_name(name):
    error = ERRORS[name][0]()
    raise error


async def throw_by_name_async(name):
    error = ERRORS[name][0]()
    raise error


def give_by_name(name):
    """Return a coroutine that raises."""
    return throw_by_name_async(name)


@pytest.mark.parametrize("name", ERRORS)
async def test_a_task_that_raises_fails_readably_and_the_worker_goes_on(
    backend, queue, gate, name
) -> None:
    _, error_type, text = ERRORS[name]
    async with Worker(backend) as worker:
        for function in (throw_by_name, throw_by_name_async):
            task_id = await queue.enqueue(function, name)
            result = await queue.get_result(task_id, timeout=10)

            assert (result.status, result.attempt, result.reason) == ("failed", 1, None)
            if error_type is not None:
                assert result.error_type == error_type
            assert text in result.error
            for shown in (result.error, result.error_type, result.traceback or ""):
                assert len(shown) < 70_000
                assert all(c.isprintable() or c in "\n\t" for c in shown)
            assert len(result.error) < 9_000
        assert worker._running
        after = await queue.enqueue(visit, gate, "after")
        assert await queue.result(after, timeout=10) == "after"


async def test_a_coroutine_that_a_plain_function_returned_may_raise_too(backend, queue) -> None:
    task_id = await queue.enqueue(give_by_name, "Exception")
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.error_type, result.error) == ("failed", "Exception", "plain")


@pytest.mark.parametrize("function", [recurse, recurse_async, cyclic, cyclic_async])
async def test_a_task_whose_traceback_has_no_end_fails_readably(
    backend, queue, gate, function
) -> None:
    task_id = await queue.enqueue(function)
    after = await queue.enqueue(visit, gate, "after")
    await Worker(backend).drain()

    result = await queue.get_result(task_id, timeout=0)
    assert result.status == "failed"
    assert result.error_type in {"RecursionError", "ValueError"}
    assert 0 < len(result.traceback) < 70_000
    assert await queue.result(after, timeout=0) == "after"


@pytest.mark.parametrize("function", [throw_by_name, throw_by_name_async, give_by_name])
async def test_the_traceback_begins_in_the_task(backend, queue, function) -> None:
    task_id = await queue.enqueue(function, "Exception")
    await Worker(backend).drain()
    traceback = (await queue.get_result(task_id, timeout=0)).traceback

    assert traceback.startswith("Traceback (most recent call last):\n")
    assert "in throw_by_name" in traceback
    assert "adapters" not in traceback  # nothing of ours stands before the task's own frames
    assert traceback.rstrip().endswith("Exception: plain")


def nested():
    try:
        throw(KeyError("inner"))
    except KeyError as error:
        raise ValueError("outer") from error


async def test_the_traceback_tells_the_causes(backend, queue) -> None:
    task_id = await queue.enqueue(nested)
    await Worker(backend).drain()
    traceback = (await queue.get_result(task_id, timeout=0)).traceback
    assert traceback.index("KeyError: 'inner'") < traceback.index("ValueError: outer")


async def test_a_task_that_raises_is_still_an_error_when_it_is_pickled_with_it(
    backend, queue
) -> None:
    """Not a test of text: the exception arrives as an argument, and may fail to arrive at all."""
    task_id = await queue.enqueue(throw, LookupError("carried"))
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert (result.error_type, result.error) == ("LookupError", "carried")


# -- a task that plays with the event loop ---------------------------------------------


async def cancel_own_scope():
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep(10)
    return "went on"


async def time_out_inside():
    with anyio.fail_after(0.01):
        await anyio.sleep(10)


async def swallow_everything():
    try:
        await anyio.sleep(10)
    except BaseException:
        return "swallowed"


async def leave_a_group():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 10)
        raise LookupError("in the group")


async def test_a_task_may_cancel_scopes_of_its_own(backend, queue) -> None:
    task_id = await queue.enqueue(cancel_own_scope)
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == "went on"


async def test_a_time_limit_inside_a_task_is_an_error_of_the_task(backend, queue) -> None:
    task_id = await queue.enqueue(time_out_inside)
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.error_type, result.reason) == ("failed", "TimeoutError", None)


async def test_a_group_that_fails_inside_a_task_is_an_error_of_the_task(backend, queue) -> None:
    task_id = await queue.enqueue(leave_a_group)
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.error_type) == ("failed", "ExceptionGroup")
    assert "LookupError: in the group" in result.traceback


async def test_a_task_that_swallows_its_interrupt_and_returns_has_succeeded(backend, queue) -> None:
    task_id = await queue.using(timeout=0.02).enqueue(swallow_everything)
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == "swallowed"


async def cancel_own_task():
    asyncio.current_task().cancel()
    await asyncio.sleep(10)


async def cancel_own_task_and_raise():
    asyncio.current_task().cancel()
    raise LookupError("after cancel()")


async def asyncio_timeout():
    async with asyncio.timeout(0.01):
        await asyncio.sleep(10)


async def asyncio_group():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(10))
        raise LookupError("in the group")


async def asyncio_child_cancelled():
    child = asyncio.create_task(asyncio.sleep(10))
    child.cancel()
    await child


@ON_ASYNCIO
@pytest.mark.parametrize(
    ("function", "error_type"),
    [
        (cancel_own_task, "CancelledError"),
        (cancel_own_task_and_raise, "LookupError"),
        (asyncio_timeout, "TimeoutError"),
        (asyncio_group, "ExceptionGroup"),
        (asyncio_child_cancelled, "CancelledError"),
    ],
)
async def test_what_a_task_does_to_its_own_asyncio_task_is_its_own_failure(
    backend, queue, gate, function, error_type
) -> None:
    task_id = await queue.enqueue(function)
    async with Worker(backend, grace=0) as worker:
        result = await queue.get_result(task_id, timeout=1)
        assert worker._running
        assert result is not None
        after = await queue.enqueue(visit, gate, "after")
        assert await queue.result(after, timeout=1) == "after"

    assert (result.status, result.error_type, result.attempt) == ("failed", error_type, 1)


# -- results ---------------------------------------------------------------------------


class HostileResult:
    def __reduce__(self):
        raise SystemExit("from __reduce__")


class CannotBeRead:
    def __reduce__(self):
        return throw, (LookupError("cannot be read"),)


def give_lock():
    return threading.Lock()


async def give_lock_async():
    return [1, {"lock": threading.Lock()}]


def give_hostile():
    return HostileResult()


def give_generator():
    return (n for n in range(3))


def give_broken():
    return CannotBeRead()


def give_bytes(size):
    return b"x" * size


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (give_lock, "lock"),
        (give_lock_async, "list"),
        (give_hostile, "HostileResult"),
        (give_generator, "generator"),
    ],
)
async def test_a_result_that_cannot_be_serialised_fails_the_task_at_once(
    backend, queue, gate, function, kind
) -> None:
    task_id = await queue.using(retry=Retry(attempts=5, delay=0)).enqueue(function)
    async with Worker(backend):
        result = await queue.get_result(task_id, timeout=10)
        after = await queue.enqueue(visit, gate, "after")
        assert await queue.result(after, timeout=10) == "after"

    assert (result.status, result.attempt) == ("failed", 1)  # to run it again would not help
    assert f"{function.__name__} returned a {kind} that cannot be serialised" in result.error
    assert result.value is None


async def test_a_result_that_cannot_be_read_is_an_error_of_whoever_reads_it(backend, queue) -> None:
    task_id = await queue.enqueue(give_broken)
    await Worker(backend).drain()
    result = await queue.get_result(task_id, timeout=0)
    assert result.status == "success"
    with pytest.raises(Exception, match="cannot be read") as caught:
        queue.deserialize_result(result)
    assert isinstance(caught.value, SerializationError)


async def test_none_is_a_result_like_any_other(backend, queue) -> None:
    task_id = await queue.enqueue(partial(give_none, 1))
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) is None
    assert (await queue.get_result(task_id, timeout=0)).value is not None


def give_none(_):
    return None


async def test_a_result_above_max_payload_fails_the_task_and_says_what_to_do(make_backend) -> None:
    backend = make_backend(max_payload=10_000)
    queue = TaskQueue(backend)
    small = await queue.enqueue(give_bytes, 9_000)
    large = await queue.using(retry=Retry(attempts=5, delay=0)).enqueue(give_bytes, 20_000)
    await Worker(backend).drain()
    result = await queue.get_result(large, timeout=0)
    await backend.connect()

    assert await queue.result(small, timeout=0) == b"x" * 9_000
    assert (result.status, result.error_type, result.attempt) == ("failed", "ResultTooLarge", 1)
    for said in ("20,0", "10,000", "max_payload", "return a path or a key instead"):
        assert said in result.error
    await backend.close()


async def test_a_call_above_max_payload_is_refused_and_nothing_is_stored(
    make_backend, gate
) -> None:
    backend = make_backend(max_payload=10_000)
    queue = TaskQueue(backend)
    with pytest.raises(ValidationError) as caught:
        await queue.enqueue(visit, gate, b"x" * 20_000)
    with pytest.raises(ValidationError, match="max_payload"):
        await queue.enqueue_many([queue.task(visit).call(gate, b"x" * n) for n in (1, 20_000)])
    await queue.enqueue(visit, gate, "small")
    await Worker(backend).drain()
    await backend.close()

    for said in ("visit", "20,", "10,000", "max_payload", "pass a path or a key instead"):
        assert said in str(caught.value)
    assert gate.order == ["small"]


async def test_many_mebibytes_come_and_go(backend, queue) -> None:
    payload = bytes(range(256)) * 2**13  # 2 MiB
    task_id = await queue.enqueue(bytes, payload)
    await Worker(backend).drain()
    assert await queue.result(task_id, timeout=0) == payload


# -- what a worker cannot import -------------------------------------------------------


async def test_a_module_that_the_worker_does_not_have_fails_that_task(
    backend, queue, gate, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "soon_gone.py").write_text("def work():\n    return 1\n")
    monkeypatch.syspath_prepend(folder)
    task_id = await queue.enqueue(importlib.import_module("soon_gone").work)
    monkeypatch.undo()
    del sys.modules["soon_gone"]

    async with Worker(backend):
        result = await queue.get_result(task_id, timeout=10)
        after = await queue.enqueue(visit, gate, "after")
        assert await queue.result(after, timeout=10) == "after"
    assert (result.status, result.error_type) == ("failed", "ModuleNotFoundError")
    assert "the payload of soon_gone.work could not be read" in result.error
    assert "No module named 'soon_gone'" in result.error


class Bomb:
    """Raises while it is unpickled."""

    def __init__(self, error) -> None:
        self.error = error

    def __reduce__(self):
        return throw, (self.error,)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError()], ids=repr)
async def test_a_payload_that_raises_while_it_is_read_fails_that_task(
    backend, queue, gate, error
) -> None:
    task_id = await queue.enqueue(visit, gate, Bomb(error))
    after = await queue.enqueue(visit, gate, "after")
    await Worker(backend).drain()

    result = await queue.get_result(task_id, timeout=0)
    assert (result.status, result.error_type) == ("failed", type(error).__name__)
    assert "could not be read" in result.error
    assert await queue.result(after, timeout=0) == "after"


class Cut(CloudpickleSerializer):
    """Writes what a full disk or a bad copy may leave behind."""

    def encode(self, value):
        stamp, data = super().encode(value)
        return stamp, data[: len(data) // 2]


async def test_a_payload_that_was_cut_short_fails_that_task(backend, queue, gate) -> None:
    cut = await TaskQueue(backend, Cut()).enqueue(visit, gate)
    after = await queue.enqueue(visit, gate, "after")
    await Worker(backend).drain()

    result = await queue.get_result(cut, timeout=0)
    assert (result.status, result.attempt) == ("failed", 1)
    assert "the payload of gated_tasks.visit could not be read" in result.error
    assert await queue.result(after, timeout=0) == "after"
    assert pickle.dumps(result)  # text all through: it can be passed on
