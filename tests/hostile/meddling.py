"""Tasks that change their whole process, and the program in which a worker runs them.

`python -m tests.hostile.meddling LOOP PATH TASK...` runs these tasks, each with a neighbour before
and behind it, and prints how they ended.
"""

import locale
import os
import signal
import sys

import anyio

from sitq import SQLiteBackend, TaskQueue, Worker
from tests.hostile.tasks import pass_by


def change_folder() -> None:
    os.chdir("/")


def remove_folder() -> None:
    os.mkdir("a folder of its own")
    os.chdir("a folder of its own")
    os.rmdir("../a folder of its own")


def mask_everything() -> None:
    os.umask(0o777)


def close_output() -> None:
    sys.stdout.close()
    sys.stderr.close()


def lose_output() -> None:
    sys.stdout = sys.stderr = None


async def take_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def change_locale() -> None:
    locale.setlocale(locale.LC_ALL, "C")
    os.environ.clear()


def change_recursion_limit() -> None:
    sys.setrecursionlimit(10_000)


def exit_thread() -> None:
    sys.exit(3)


async def exit_loop() -> None:
    sys.exit(3)


def print_to_nowhere() -> None:
    print("nobody hears this")


def fork_plain() -> int:
    os.fork()
    return os.getpid()


async def fork_async() -> int:
    os.fork()
    return os.getpid()


class ForksWhenPickled:
    def __reduce__(self):
        os.fork()
        return os.getpid, ()


def fork_in_result() -> ForksWhenPickled:
    return ForksWhenPickled()


def _unpickled_by_a_fork() -> int:
    os.fork()
    return os.getpid()


class ForksWhenRead:
    def __reduce__(self):
        return _unpickled_by_a_fork, ()


def same(value: int) -> int:
    return value


def close_descriptors() -> None:
    os.closerange(3, 100)


MEDDLERS = (
    remove_folder,
    change_folder,
    mask_everything,
    close_output,
    lose_output,
    print_to_nowhere,
    take_signals,
    change_locale,
    change_recursion_limit,
    exit_thread,
    exit_loop,
)
FORKERS = (fork_plain, fork_async, fork_in_result)


async def main(path: str, names: list[str]) -> None:
    report = os.dup(1)
    backend = SQLiteBackend(path)
    queue = TaskQueue(backend)
    ids = {}
    for name in names:
        ids[f"before {name}"] = await queue.enqueue(pass_by)
        if name == "fork_when_read":
            ids[name] = await queue.enqueue(same, ForksWhenRead())
        else:
            ids[name] = await queue.using(max_crashes=1).enqueue(globals()[name])
        ids[f"behind {name}"] = await queue.enqueue(pass_by)
    async with Worker(backend):
        for name, task_id in ids.items():
            result = await queue.get_result(task_id, timeout=30)
            value = result and result.value and queue.deserialize_result(result)
            status = "not ended" if result is None else str(result.status)
            ended = f"{name}: {status}, {os.getpid() if value == os.getpid() else value}"
            os.write(report, f"{ended.replace(str(os.getpid()), 'parent')}\n".encode())
    await backend.close()


if __name__ == "__main__":
    anyio.run(main, sys.argv[2], sys.argv[3:], backend=sys.argv[1])
