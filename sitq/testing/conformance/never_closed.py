"""A program that never closes its backend ends at once, without a word; and loops leave nothing.

Each is a program of its own: what a process leaves behind is seen when it ends.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

LOOPS = {
    "asyncio": "asyncio.run(main())",
    "uvloop": "uvloop.run(main())",
    "trio": "trio.run(main)",
}


def written(program: str, source: str, *, module: str = "asyncio") -> str:
    """Return a program that makes a backend and goes on with *source*."""
    begin = f"""
import sys, {module}
from pathlib import Path

folder = Path(sys.argv[1])
{textwrap.dedent(program)}
from sitq.protocol.ops import *

def enqueue(id_):
    return Enqueue((NewTask(id=id_, payload=b"p", name="f"),))
"""
    return begin + textwrap.dedent(source)


def run(source: str, folder: Path) -> list[str]:
    """Run a program, with all warnings as errors; return the lines that it printed."""
    done = subprocess.run(  # noqa: S603  # the program is ours
        [sys.executable, "-W", "error", "-c", source, str(folder)],
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | {"PYTHONFAULTHANDLER": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


class NeverClosed:
    @pytest.fixture(params=LOOPS)
    def loop(self, request: Any) -> str:
        """The words that run a program's `main`."""
        if request.param != "asyncio":
            pytest.importorskip(request.param)
        return LOOPS[request.param]

    @pytest.fixture
    def run(self, loop: str, making: str, tmp_path: Path) -> Any:
        """Run what goes on after a backend was made; return the lines that were printed."""

        def go_on(source: str) -> list[str]:
            module = loop.partition(".")[0]
            return run(written(making, source, module=module), tmp_path)

        return go_on

    def test_a_program_that_never_closes_ends_by_itself(self, loop: str, run: Any) -> None:
        source = f"""
            async def main():
                session = await backend.session()
                print(*await session.writer.submit(enqueue("a")))

            {loop}
        """
        assert run(source) == ["Enqueued()"]

    def test_so_does_one_that_goes_in_the_midst_of_a_commit(self, loop: str, run: Any) -> None:
        source = f"""
            async def main():
                session = await backend.session()
                for n in range(10):
                    session.writer.submit_nowait((enqueue(str(n)),), lambda answer: None)
                print("gone")

            {loop}
        """
        assert run(source) == ["gone"]

    def test_so_does_one_that_ends_by_an_exception(self, loop: str, run: Any) -> None:
        source = f"""
            async def main():
                session = await backend.session()
                await session.writer.submit(enqueue("a"))
                raise SystemExit(0)

            {loop}
        """
        assert run(source) == []

    def test_so_does_one_whose_backend_is_dropped_while_its_loop_goes_on(
        self, loop: str, run: Any
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
        assert run(source) == ["dropped"]

    @pytest.mark.skipif(not Path("/dev/fd").exists(), reason="a platform that shows descriptors")
    def test_loops_one_after_another_leave_no_threads_and_no_files_behind(
        self, loop: str, run: Any
    ) -> None:
        """As a script does that calls `asyncio.run` for each thing it has to do.

        A leak would grow with each of the eight. A file more or less is none: SQLite keeps a
        descriptor until nobody in the process has a lock on the file (sqlite.org/howtocorrupt.html,
        section 2.2).
        """
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
                if (threads <= 0 and files < 4) or time.monotonic() > deadline:
                    break
                time.sleep(0.01)  # threads take a moment to end
            print(threads, files)
        """
        (line,) = run(source)
        threads, files = map(int, line.split())
        assert threads <= 0
        assert files < 4
