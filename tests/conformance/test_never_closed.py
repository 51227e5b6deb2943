"""A program that never closes its backend ends at once, without a word; and loops leave nothing.

Each is a program of its own: what a process leaves behind is seen when it ends.
"""

import os
import subprocess
import sys
import textwrap

import pytest

LOOPS = {
    "asyncio": "asyncio.run(main())",
    "uvloop": "uvloop.run(main())",
    "trio": "trio.run(main)",
}
MAKE = {"memory": "MemoryBackend()", "sqlite": "SQLiteBackend(sys.argv[1])"}


@pytest.fixture(params=MAKE)
def made(request) -> str:
    """The words that make a backend in a program."""
    return MAKE[request.param]


@pytest.fixture(params=LOOPS)
def loop(request) -> str:
    """The words that run a program's `main`."""
    if request.param != "asyncio":
        pytest.importorskip(request.param)
    return LOOPS[request.param]


def run(source: str, path: str) -> list[str]:
    """Run a program, with all warnings as errors; return the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source), path],
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | {"PYTHONFAULTHANDLER": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def begin(loop: str, made: str) -> str:
    module = loop.partition(".")[0]
    return f"""
import sys, {module}
from sitq import *
from sitq.protocol.ops import *

backend = {made}

def enqueue(id_):
    return Enqueue((NewTask(id=id_, payload=b"p", name="f"),))
"""


def test_a_program_that_never_closes_ends_by_itself(loop, made, sqlite_path) -> None:
    source = f"""
async def main():
    session = await backend.session()
    print(*await session.writer.submit(enqueue("a")))

{loop}
"""
    assert run(begin(loop, made) + source, sqlite_path) == ["Enqueued()"]


def test_so_does_one_that_goes_in_the_midst_of_a_commit(loop, made, sqlite_path) -> None:
    source = f"""
async def main():
    session = await backend.session()
    for n in range(10):
        session.writer.submit_nowait((enqueue(str(n)),), lambda answer: None)
    print("gone")

{loop}
"""
    assert run(begin(loop, made) + source, sqlite_path) == ["gone"]


def test_so_does_one_that_ends_by_an_exception(loop, made, sqlite_path) -> None:
    source = f"""
async def main():
    session = await backend.session()
    await session.writer.submit(enqueue("a"))
    raise SystemExit(0)

{loop}
"""
    assert run(begin(loop, made) + source, sqlite_path) == []


def test_so_does_one_whose_backend_is_dropped_while_its_loop_goes_on(
    loop, made, sqlite_path
) -> None:
    source = f"""
import gc

async def main():
    global backend
    session = await backend.session()
    await session.writer.submit(enqueue("a"))
    del session, backend
    gc.collect()
    print("dropped")

{loop}
"""
    assert run(begin(loop, made) + source, sqlite_path) == ["dropped"]


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="a platform that shows descriptors")
def test_loops_one_after_another_leave_no_threads_and_no_files_behind(
    loop, made, sqlite_path
) -> None:
    """As a script does that calls `asyncio.run` for each thing it has to do."""
    source = f"""
import gc, os, threading, time

async def main():
    session = await backend.session()
    await session.reader.submit(Count())

def left():
    gc.collect()
    return threading.active_count(), len(os.listdir("/dev/fd"))

for _ in range(2):
    {loop}
before = left()
for _ in range(8):
    {loop}
deadline = time.monotonic() + 5
while True:
    threads, files = (now - then for now, then in zip(left(), before))
    if (threads <= 0 and files <= 0) or time.monotonic() > deadline:
        break
    time.sleep(0.01)  # threads take a moment to end
print(threads, files)
"""
    (line,) = run(begin(loop, made) + source, sqlite_path)
    threads, files = map(int, line.split())
    assert threads <= 0
    assert files <= 0
