"""A worker's process holds no more after five thousand mixed tasks than after the first ones.

For more of them, `python -m tests.soak` says how.
"""

import gc
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from sitq import Retry, TaskQueue, Worker
from tests.soak import tasks
from tests.soak.measure import MIB, Sample, growing
from tests.soak.soaking import WARM_UP, soak
from tests.soak.tasks import Tracked, live


@pytest.mark.anyio
async def test_nothing_grows_with_the_number_of_tasks(anyio_backend, sqlite_path) -> None:
    samples = await soak(sqlite_path, tasks=5_000, batch=480)
    assert len(samples) > WARM_UP + 3
    assert samples[-1].tasks >= 5_000
    assert growing(samples[WARM_UP], samples[-1]) == []


FUNCTIONS = {
    "a coroutine": (tasks.give_back, "success"),
    "a thread": (tasks.give_back_in_thread, "success"),
    "a coroutine that fails": (tasks.fail, "failed"),
    "a thread that fails": (tasks.fail_in_thread, "failed"),
    "one that runs out of time": (tasks.sleep_long, "failed"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", FUNCTIONS)
async def test_its_arguments_and_its_result_die_with_a_task_without_any_collector(
    backend, name
) -> None:
    """So no error, no traceback and no frame of it is part of a circle."""
    function, status = FUNCTIONS[name]
    queue = TaskQueue(backend)
    gc.collect()
    live.clear()
    async with Worker(backend) as worker:
        gc.disable()
        try:
            options = {"timeout": 0.05} if function is tasks.sleep_long else {}
            for _ in range(3):
                task_id = await queue.using(**options).enqueue(function, Tracked())
                result = await queue.get_result(task_id, timeout=30)
                assert result.status == status
                assert not live
            assert worker._running
        finally:
            gc.enable()


@pytest.mark.anyio
async def test_nothing_of_a_task_is_kept_between_its_attempts(backend) -> None:
    queue = TaskQueue(backend)
    live.clear()
    retry = Retry(attempts=2, delay=3600)
    async with Worker(backend):
        await queue.using(retry=retry).enqueue(tasks.fail_once, Tracked(), "later")
        after = await queue.enqueue(tasks.give_back, Tracked())
        assert (await queue.get_result(after, timeout=30)).status == "success"
        gc.collect()
        assert not live


# -- the verdict -------------------------------------------------------------------------

CALM = Sample(
    at=1.0,
    tasks=1_000,
    rss=50 * MIB,
    descriptors=20,
    threads=20,
    wal=MIB,
    objects=50_000,
    tracked=0,
    ours=Counter(TaskRow=5),
    held={"running": 1, "time limits": 1},
)


@pytest.mark.parametrize(
    ("grown", "told"),
    [
        ({"rss": 80 * MIB}, "rss"),
        ({"descriptors": 40}, "descriptors"),
        ({"threads": 50}, "threads"),
        ({"wal": 20 * MIB}, "wal"),
        ({"objects": 60_000}, "objects"),
        ({"tracked": 1}, "tracked"),
        ({"ours": Counter(TaskRow=5, Execution=300)}, "objects of Execution: 0 -> 300"),
        ({"held": {"running": 5, "time limits": 1}}, "kept as running: 1 -> 5"),
        ({"held": {"running": 1, "time limits": 900}}, "kept as time limits: 1 -> 900"),
    ],
    ids=str,
)
def test_what_grows_is_named(grown, told) -> None:
    (line,) = growing(CALM, replace(CALM, **grown))
    assert line.startswith(told)
    assert growing(CALM, CALM) == []


@pytest.mark.parametrize(("given", "code"), [((), 0), (("--every", "9"), 2)], ids=["", "short"])
def test_the_command_prints_a_table_and_a_verdict(given, code) -> None:
    command = [sys.executable, "-m", "tests.soak", "--tasks", "1500", "--batch", "240"]
    done = subprocess.run(
        [*command, "--every", "1", *given],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )
    assert (done.returncode, done.stderr) == (code, "")
    *_, last = done.stdout.splitlines()
    assert ("nothing grows" in last) == (code == 0)
    assert "RSS MiB" in done.stdout
