"""One trial: a worker at work on acknowledged tasks, and signals at moments that a seed decides.

What must hold, whatever the moments:
- it is out within its grace and 2 s more;
- the exit code is 0; or 128 + n, if the third signal killed; or the signal met Python before that
  has reached sitq, and did what it does to any program;
- nothing is left: no process, and unless it was killed no lock file, no WAL;
- nothing is lost: a later worker brings every task to its end, with one attempt charged;
- a task that started twice was interrupted, or its worker was killed.
"""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
GRACE = 1.0
OUT_WITHIN = GRACE + 2.0
SLOTS = 4
QUICK, LONG = 40, 2
"""Tasks that end within the grace, and such that do not."""
LOADS_FOR = 0.15
KINDS = {
    "one, asyncio": ([], 1),
    "one, trio": (["--trio"], 1),
    "supervised": (["--processes", "2"], 2),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a seed decides."""

    seed: int
    kind: str
    after_first_start: bool
    """Whether the pauses count from the first task's start, or from the program's."""
    pauses: tuple[float, ...]
    signals: tuple[signal.Signals, ...]


def plan(seed: int) -> Plan:
    dice = random.Random(f"moment {seed}")
    count = dice.choice((1, 2, 3))
    at_work = dice.random() < 0.5
    first = dice.uniform(0, 0.5 if at_work else 1.0)
    return Plan(
        seed=seed,
        kind=tuple(KINDS)[seed % len(KINDS)],
        after_first_start=at_work,
        pauses=(first, *(dice.choice((0.0, dice.uniform(0, GRACE))) for _ in range(count - 1))),
        signals=tuple(dice.choice((signal.SIGTERM, signal.SIGINT)) for _ in range(count)),
    )


@dataclass(kw_only=True)
class Outcome:
    plan: Plan
    code: int
    seconds: float
    """From the first signal to the end."""
    said: str
    where: str
    twice: int = 0
    """Tasks that started more than once."""
    wrong: list[str] = field(default_factory=list)


# -- the trial ----------------------------------------------------------------------------


def run(seed: int, folder: Path) -> Outcome:
    chosen = plan(seed)
    path = folder / "tasks.db"
    environment = os.environ | {
        "SITQ_TRIAL": str(path),
        "SITQ_TRIAL_LOADS_FOR": str(LOADS_FOR),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    _enqueue(path)
    options = [*KINDS[chosen.kind][0], "--concurrency", SLOTS, "--grace", GRACE]
    with (folder / "said").open("w") as said:
        process = _start(options, environment, said)
        began = time.monotonic()
        if chosen.after_first_start:
            _wait_for(lambda: _witnessed(path)["start"])
            began = time.monotonic()
        try:
            seconds = _signal(process, chosen, began)
        finally:
            process.kill()
            process.wait()
    outcome = Outcome(
        plan=chosen, code=process.returncode, seconds=seconds, where="", said=_text(folder / "said")
    )
    outcome.where = _where(outcome, path)
    _judge(outcome, path)
    with (folder / "later").open("w") as later:
        finish = _start(
            ["--drain", "--concurrency", 50], environment | {"SITQ_TRIAL_HASTE": "1"}, later
        )
        if finish.wait(60) != 0:
            outcome.wrong.append(f"a later worker ends with {finish.returncode}")
    _judge_tasks(outcome, path)
    return outcome


@cache
def _tasks():
    sys.path.insert(0, str(HERE))
    os.environ.setdefault("SITQ_TRIAL", os.devnull)
    import moment_tasks  # type: ignore[import-not-found]

    sys.path.remove(str(HERE))
    return moment_tasks


def _enqueue(path: Path) -> None:
    from sitq import SQLiteBackend, SyncTaskQueue

    dice = random.Random(1)
    work = _tasks().work
    with SyncTaskQueue(SQLiteBackend(path)) as queue:
        lengths = [dice.uniform(0.01, 0.1) for _ in range(QUICK)]
        for at in (0, QUICK // 2):
            lengths.insert(at, 10 * GRACE)
        queue.enqueue_many([work.call(n, length) for n, length in enumerate(lengths)])


def _start(options, environment, said) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "sitq.cli", "worker", "moment_tasks:queue"]
    return subprocess.Popen(
        [*command, "--app-dir", str(HERE), *map(str, options)],
        env=environment, stdin=subprocess.DEVNULL, stderr=said,
    )  # fmt: skip


def _signal(process: subprocess.Popen[bytes], chosen: Plan, began: float) -> float:
    at, first = began, None
    for pause, number in zip(chosen.pauses, chosen.signals, strict=True):
        at += pause
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, at - time.monotonic()))
        if first is None:
            first = time.monotonic()
        process.send_signal(number)  # nothing happens if it is over
    assert first is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    return time.monotonic() - first


# -- judging ------------------------------------------------------------------------------


def _where(outcome: Outcome, path: Path) -> str:
    """Say what the first signal met."""
    if -outcome.code in outcome.plan.signals or (
        # What Python itself makes of a Ctrl-C while it starts.
        outcome.code == 1 and "KeyboardInterrupt" in outcome.said and "sitq:" not in outcome.said
    ):
        return "before main()"
    if outcome.said.endswith("ends before it has begun\n") and "supervisor" not in outcome.said:
        return "loading"
    if not _witnessed(path)["start"]:
        return "opening"
    return "working"


def _judge(outcome: Outcome, path: Path) -> None:
    code, chosen, wrong = outcome.code, outcome.plan, outcome.wrong
    # Which of several is the last to be delivered is for the system to say.
    is_killed = len(chosen.signals) == 3 and code - 128 in chosen.signals
    if not (code == 0 or is_killed or outcome.where == "before main()"):
        wrong.append(f"exit code {code}")
    if outcome.seconds > OUT_WITHIN:
        wrong.append(f"out after {outcome.seconds:.1f} s")
    if left := _processes(path):
        wrong.append(f"processes left: {left}")
    if code == 0:
        if "Traceback" in outcome.said:
            wrong.append("a traceback")
        locks = Path(f"{path}-workers")
        if locks.exists() and list(locks.iterdir()):
            wrong.append("a lock file is left")
        if Path(f"{path}-wal").exists():
            wrong.append("a WAL is left")


def _judge_tasks(outcome: Outcome, path: Path) -> None:
    lives = KINDS[outcome.plan.kind][1]
    may_have_killed = outcome.code != 0
    starts, ends = _numbers(path, "start"), _numbers(path, "end")
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT state, attempt, crashes FROM sitq_tasks").fetchall()
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            outcome.wrong.append("the file is damaged")
    if len(rows) != QUICK + LONG or {(state, attempt) for state, attempt, _ in rows} != {
        ("success", 1)
    }:
        outcome.wrong.append(f"not all have ended well, once: {Counter(rows)}")
    if max(crashes for _, _, crashes in rows) > (1 if may_have_killed else 0):
        outcome.wrong.append("a crash was charged")
    for number in range(QUICK + LONG):
        again = starts[number] - 1
        if not 0 <= again <= lives or starts[number] < ends[number] or not ends[number]:
            outcome.wrong.append(f"{number} started {starts[number]}, ended {ends[number]} times")
        elif again and ends[number] > 1 and not may_have_killed:
            outcome.wrong.append(f"{number} was done {ends[number]} times")
        outcome.twice += again > 0
    if Path(f"{path}-wal").exists():
        outcome.wrong.append("the later worker leaves a WAL")
    if outcome.twice > SLOTS * lives:
        outcome.wrong.append(f"{outcome.twice} started twice, {SLOTS * lives} at most were running")


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _witnessed(path: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in _text(Path(f"{path}.witness")).splitlines())


def _numbers(path: Path, word: str) -> Counter[int]:
    lines = _text(Path(f"{path}.witness")).splitlines()
    return Counter(int(line.split()[1]) for line in lines if line.startswith(word))


def _processes(path: Path) -> list[int]:
    """Return the processes of the trial that still live."""
    mark, found = f"SITQ_TRIAL={path}\0".encode(), []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in file.read_bytes():
                found.append(int(file.parent.name))
    return found


def _wait_for(condition) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "no task has started in 30 s"
        time.sleep(0.005)
