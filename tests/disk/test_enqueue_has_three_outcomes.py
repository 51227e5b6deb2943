"""An enqueue whose disk fails at any call returns, is refused, or is in doubt; and each is true."""

import anyio
import pytest

from sitq import EnqueueUnknown, SitqError, SQLiteBackend, TaskQueue
from tests.adapters.asked import count_in
from tests.disk import vfs
from tests.disk.failing import CODES, Fault, faults
from tests.disk.files import new_folder
from tests.disk.recorder import Recorder
from tests.disk.scenarios import NAME
from tests.disk.vfs import Call

LOOPS = {"asyncio": {"use_uvloop": False}, "trio": {}}


class Counting(Recorder):
    """A recorder that remembers which calls it has counted."""

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__((), keep=False, fault=fault)
        self.calls: list[Call] = []

    def before(self, call: Call) -> int | None:
        if self.counts:
            self.calls.append(call)
        return super().before(call)


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a coroutine function in an event loop of its own, on a new folder, watched."""

    def run(function, recorder: Counting):
        with new_folder() as folder, vfs.watched_by(recorder):
            found = anyio.run(
                function,
                str(folder / NAME),
                recorder,
                backend=request.param,
                backend_options=LOOPS[request.param],
            )
        vfs.raise_what_broke()
        return found

    return run


async def enqueue_once(queue: TaskQueue, recorder: Counting) -> tuple[str, str | None]:
    """Enqueue while the disk may fail; return what was said, and of which id."""
    recorder.counts = True
    try:
        return "stored", await queue.enqueue(len, "text")
    except EnqueueUnknown as error:
        return "in doubt", error.task_id
    except SitqError:
        return "refused", None
    finally:
        recorder.counts = False
        if recorder.fault is not None:
            recorder.fault.lifted = True


async def on_an_open_file(path: str, recorder: Counting) -> str:
    async with SQLiteBackend(path, busy_timeout=0.05) as backend:
        queue = TaskQueue(backend)
        await queue.enqueue(len, "warm")
        said, task_id = await enqueue_once(queue, recorder)
        session = await backend.session()
        stored = await count_in(session) - 1
        assert stored in {"stored": {1}, "in doubt": {0, 1}, "refused": {0}}[said]
        if said == "in doubt":
            assert await queue.using(task_id=task_id).enqueue(len, "text") == task_id
        elif said == "refused":
            await queue.enqueue(len, "text")
        assert await count_in(session) == 2
    return said


async def on_a_new_file(path: str, recorder: Counting) -> str:
    # It connects when it is first used; a connection that has failed may still be closing then.
    backend = SQLiteBackend(path, busy_timeout=10.0)
    queue = TaskQueue(backend)
    try:
        said, task_id = await enqueue_once(queue, recorder)
        stored = await count_in(await backend.session())
        assert stored in {"stored": {1}, "in doubt": {0, 1}, "refused": {0}}[said]
        if said == "in doubt":
            assert await queue.using(task_id=task_id).enqueue(len, "text") == task_id
        elif said == "refused":
            await queue.enqueue(len, "text")
        assert await count_in(await backend.session()) == 1
    finally:
        await backend.close()
    return said


def calls_of(run, function) -> list[Call]:
    recorder = Counting()
    assert run(function, recorder) == "stored"
    return recorder.calls


def test_each_way_in_which_any_call_may_fail_has_one_of_them(run, tried) -> None:
    said: list[str] = []
    for n, call in enumerate(calls_of(run, on_an_open_file), 1):
        for fault in faults(n, call, long=True):
            recorder = Counting(fault)
            said.append(run(on_an_open_file, recorder))
            assert recorder.struck
    tried("enqueues", len(said), least=50)
    assert set(said) == {"stored", "in doubt", "refused"}


def test_so_it_is_while_the_file_is_being_made(run, tried) -> None:
    said = [
        run(on_a_new_file, Counting(Fault(n, CODES[call.kind][0], call.kind, "once")))
        for n, call in enumerate(calls_of(run, on_a_new_file), 1)
        if call.kind in CODES
    ]
    tried("enqueues", len(said), least=100)
    assert set(said) == {"stored", "in doubt", "refused"}
