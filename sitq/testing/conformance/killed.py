"""A process that is killed in the midst of its batches: what it was told is stored, is stored; and
each batch is there as a whole, or not at all.

It is killed by SIGKILL at no particular moment, between two statements as likely as anywhere.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sitq.testing.conformance.never_closed import run, written

KILLS = 5
WORK = """
async def main():
    session = await backend.session()
    first = int(sys.argv[2])
    done = ()
    await session.writer.submit(Register(f"w{first}", "host", 1, ("default",), 1, 600.0))
    for n in range(first, first + 100_000):
        pair = Enqueue((NewTask(f"a{n}", b"p" * 2000, "f"), NewTask(f"b{n}", b"p" * 2000, "f")))
        *_, got = await session.writer.submit(
            pair, *done, Reserve(f"w{first}", ("default",), 2)
        )
        done = tuple(
            Settle(task.key, task.id, f"w{first}", Completed(task.id.encode())) for task in got.tasks
        )
        print(n, flush=True)

asyncio.run(main())
"""
LOOK = """
async def main():
    session = await backend.session()
    for n in range(600_000):
        if n % 100_000 == 0 or found:
            (fetched,) = await session.reader.submit(Fetch((f"a{n}", f"b{n}")))
            found = fetched.rows
            rows = [found[id_] for id_ in (f"a{n}", f"b{n}") if id_ in found]
            print(n, *(f"{row.state}:{row.value == row.id.encode()}" for row in rows))

asyncio.run(main())
"""


class Killed:
    @pytest.mark.usefixtures("outlives")
    def test_what_was_acknowledged_is_there_and_each_batch_is_whole(
        self, making: str, tmp_path: Path
    ) -> None:
        acknowledged: set[int] = set()
        for kill in range(KILLS):
            acknowledged |= _work_until_killed(making, tmp_path, kill * 100_000, 3 + 7 * kill)
        assert len(acknowledged) > KILLS

        stored: dict[int, list[str]] = {}
        for line in run(written(making, LOOK), tmp_path):
            batch, *found = line.split()
            stored[int(batch)] = found
        for number, rows in stored.items():
            assert len(rows) in {0, 2}, f"half of batch {number} is stored"
            for row in rows:
                state, _, value_is_right = row.partition(":")
                assert state in {"queued", "running", "success"}
                assert (state == "success") == (value_is_right == "True")
        assert acknowledged <= {number for number, rows in stored.items() if rows}

    @pytest.fixture
    def outlives(self) -> None:
        """Skip where nothing is left to look at."""
        suite: Any = self
        if not suite.outlives_its_process:
            pytest.skip("its tasks go with their process")
        if sys.platform == "win32":
            pytest.skip("nobody is killed by SIGKILL here")


def _work_until_killed(making: str, folder: Path, first: int, batches: int) -> set[int]:
    """Kill a process once so many of its batches were acknowledged; return which were."""
    process = subprocess.Popen(  # noqa: S603  # the program is ours
        [sys.executable, "-c", written(making, WORK), str(folder), str(first)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            if len(lines) == batches:
                process.kill()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(lines) >= batches, "it ended before it was killed"
    return {int(line) for line in lines if line.endswith("\n")}
