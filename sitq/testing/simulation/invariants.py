"""What must hold of any history, whoever made it: the simulator, or real processes that were killed.

It is kept apart from the code under test: which moves of a task are legal, what a lease is and
when it ends is written here a second time, and judged by what the store and the processes were
seen to do, never by what they say of themselves. A history of real processes holds less (no
`BATCH`, no `ROW`); what needs those is then not asked.

S are safety: they hold at every moment. L are liveness: they hold once nothing goes wrong any
more. `docs/explanation/simulation.md` lists them, from `INVARIANTS`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from sitq.protocol.lifecycle import TaskState as S
from sitq.testing.simulation.facts import (
    FINAL,
    LATE_NEWS,
    PENDING,
    RESCUED_WITHIN,
    SLACK,
    STORM,
    STORM_LASTS,
    Facts,
    Proc,
    Run,
    Task,
    Violation,
)
from sitq.testing.simulation.history import Event, History, Kind
from sitq.testing.simulation.rows import Rows

_ROW: Final = Kind.ROW
_BATCH: Final = Kind.BATCH

__all__ = ["INVARIANTS", "Checker", "Violation"]

INVARIANTS: Final = {
    "S1": "What was acknowledged is stored, and comes to its end.",
    "S2": "Nothing is stored or runs that nobody asked for, or that was refused.",
    "S3": "What was enqueued together is stored together, or not at all.",
    "S4": "One id is one task, however often it was asked for.",
    "S5": "What a task is given, and what its caller reads, is what was stored.",
    "S6": "No two attempts share a token; each is newer than those before, and starts once,"
    " under the lease that it was given to.",
    "S7": "An attempt is charged when its function ended or ran out of time, and never else.",
    "S8": "A task that has ended stays as it ended.",
    "S9": "Only the holder of the current token settles a task; and what it is told is true.",
    "S10": "A task is taken from a worker only if that is dead, or has let its lease run out.",
    "S11": "Two run one task at once only if the first was out of touch, or told to stop.",
    "S12": "If nothing goes wrong, each task runs once.",
    "S13": "No task becomes due before its time.",
    "S14": "A worker that runs keeps its lease, however its event loop is blocked.",
    "S15": "What was cancelled does not start afterwards, nor comes back.",
    "S16": "A worker runs no more tasks than it has slots, and is given no more than it asks for.",
    "S17": "A worker that is to stop starts nothing; one that has stopped does and keeps nothing.",
    "S18": "A task moves only as the table of its life allows.",
    "S21": "Of the tasks that wait, the one of the highest priority comes first, then the oldest.",
    "S24": "The store stays whole: SQLite finds nothing wrong with it.",
    "S25": "Only what ended before the retention is forgotten.",
    "S27": "No worker has two tasks at once that would each fail if it died.",
    "L1": "What was stored comes to its end.",
    "L2": "The tasks of a worker that died are taken back within 2 s, or 2 s after its lease.",
    "L3": "A task that kills its workers is given up after exactly `max_crashes` deaths.",
    "L4": "A worker with a free slot starts what is due within a poll.",
    "L5": "A task that runs and is cancelled is told so within 2 s.",
    "L6": "Who waits for a task is told of its end at once, and gives up in time.",
    "L7": "A worker that is asked to stop does so once its tasks have ended, or its grace is over.",
    "L8": "A task that runs longer than its time limit is told to stop.",
    "L9": "While the store fails, nobody asks it again without a pause.",
    "L13": "Nothing is kept of a task that is over.",
    "L14": "What a worker holds ahead of its slots starts within its time, or is handed back.",
    "L15": "What a worker runs under a lease that it has lost, it tells to stop.",
}


class Checker:
    """Reads a history once, from the beginning to the end.

    *calm* says that nothing was to go wrong, *presence* that processes see each other die, *polls*
    how often each process looks for tasks, *patience* how long a task may be held ahead by each,
    and *recovers_within* for how many seconds after the
    last fault the pauses that followed it may last; *undisturbed* that the store never failed a
    process, and no word was late.
    """

    def __init__(
        self,
        *,
        calm: bool = False,
        presence: bool = False,
        polls: dict[str, float] | None = None,
        patience: dict[str, float] | None = None,
        recovers_within: float = 0.0,
        undisturbed: bool = False,
    ) -> None:
        self.facts = Facts(
            calm=calm,
            presence=presence,
            polls=polls or {},
            patience=patience or {},
            recovers_within=recovers_within,
            undisturbed=undisturbed,
        )
        self._rows = Rows(self.facts)
        self._waits: dict[tuple[str, str], list[tuple[float, float | None]]] = {}

    def check(self, history: History) -> list[Violation]:
        """Return what does not hold; nothing, if all is well."""
        judges, facts, rows = self._JUDGES, self.facts, self._rows
        for i, event in enumerate(history):
            kind = event.kind
            if kind is _ROW:
                facts.event, facts.at = i, event.at
                rows.row(event)
                continue
            judge = judges.get(kind)
            if judge is None:
                continue
            if rows.is_open:
                rows.close()
            facts.event, facts.at = i, event.at
            if kind is _BATCH:
                rows.batch(event)
            else:
                judge(self, event)
        return facts.violations

    # -- processes -----------------------------------------------------------------------

    def _up(self, event: Event) -> None:
        self.facts.procs[event.who].alive = True

    def _killed(self, event: Event) -> None:
        proc = self.facts.procs[event.who]
        proc.alive = False
        proc.killed_at = event.at
        proc.runs.clear()
        proc.held = proc.free_since = None
        self.facts.note_ready()

    def _paused(self, event: Event) -> None:
        proc = self.facts.procs[event.who]
        proc.paused_until = max(proc.paused_until, event.at + event.value)
        proc.free_since = None
        if self.facts.ready_since is not None:
            self.facts.ready_since = max(self.facts.ready_since, proc.paused_until)
        for run in proc.runs.values():
            run.excused = True

    def _blocked(self, event: Event) -> None:
        proc = self.facts.procs[event.who]
        proc.blocked_until = max(proc.blocked_until, event.at + event.value)
        proc.free_since = None
        for run in proc.runs.values():
            run.excused = True

    def _stop_asked(self, event: Event) -> None:
        proc = self.facts.procs[event.who]
        if proc.stop_at is None:
            proc.stop_at = event.at
        if event.value is not None:
            over_at = event.at + event.value
            proc.over_at = over_at if proc.over_at is None else min(proc.over_at, over_at)
        proc.free_since = None
        proc.held = None
        self.facts.note_ready()

    def _stopped(self, event: Event) -> None:
        proc = self.facts.procs[event.who]
        proc.stopped, proc.alive = True, False
        running = [id_ for (id_, _), run in proc.runs.items() if not run.excused]
        if running:  # a thread that was told to stop may go on: nothing can end it
            self.facts.fail("S17", f"{event.who} has stopped, and still runs {', '.join(running)}")
        if event.value:
            self.facts.fail("L13", f"{event.who} has stopped, and keeps {event.value}")
        if self.facts.healed_at is not None and proc.stop_at is not None:
            since = max(
                proc.stop_at, self.facts.healed_at, proc.busy_until, proc.blocked_until,
                proc.paused_until,
            )  # fmt: skip
            if event.at - since > RESCUED_WITHIN + SLACK:
                self.facts.fail("L7", f"{event.who} took {event.at - since:.1f} s to stop")

    def _held(self, event: Event) -> None:
        proc = self.facts.procs[event.who]
        if proc.stop_at is None and proc.held != event.value:
            proc.held = event.value
            self.facts.note_free(proc)
            self.facts.note_ready()

    def _let_go(self, event: Event) -> None:
        proc = self.facts.procs[event.who]
        if self.facts.undisturbed and not proc.paused_until:
            self.facts.fail("S14", f"{event.who} runs, and has lost its lease, {event.value}")
        for run in proc.runs.values():
            if run.worker_id == event.value and run.lost_at is None:
                run.lost_at = event.at
        if proc.held == event.value:
            proc.held = proc.free_since = None
            self.facts.note_ready()

    def _healed(self, event: Event) -> None:
        self.facts.healed_at = event.at + self.facts.recovers_within
        if self.facts.fine_since is None:
            self.facts.fine_since = self.facts.healed_at
        if self.facts.ready_since is not None:
            self.facts.ready_since = min(self.facts.ready_since, event.at)
        for proc in self.facts.procs.values():
            proc.paused_until = min(proc.paused_until, event.at)
            if proc.free_since is not None:
                proc.free_since = max(proc.free_since, event.at)
            else:
                self.facts.note_free(proc)

    # -- enqueueing ----------------------------------------------------------------------

    def _enqueue(self, event: Event) -> None:
        for task_id in event.value:
            self.facts.tasks[task_id].pending += 1

    def _enqueued(self, event: Event) -> None:
        for task_id in event.value:
            task = self.facts.tasks[task_id]
            task.pending -= 1
            task.acknowledged += 1
            if self.facts.saw_store and not task.inserted:
                self.facts.fail("S1", f"{task_id} was acknowledged, and is not stored")

    def _refused(self, event: Event) -> None:
        for task_id in event.value:
            task = self.facts.tasks[task_id]
            task.pending -= 1
            task.refused += 1
            if task.inserted and not (task.pending or task.unknown or task.acknowledged):
                self.facts.fail("S2", f"{task_id} was refused, and is stored")

    def _unknown(self, event: Event) -> None:
        for task_id in event.value:
            task = self.facts.tasks[task_id]
            task.pending -= 1
            task.unknown += 1

    def _conflict(self, event: Event) -> None:
        self.facts.fail("S4", f"{', '.join(event.value)} was asked again, and called another task")

    # -- running -------------------------------------------------------------------------

    def _start(self, event: Event) -> None:
        worker_id, payload = event.value
        task, proc = self.facts.tasks[event.task], self.facts.procs[event.who]
        task.starts += 1
        if not (task.pending or task.unknown or task.acknowledged):
            self.facts.fail("S2", f"{event.task} runs, and nobody asked for it")
        if task.new is not None and payload != task.new.payload:
            self.facts.fail("S5", f"{event.task} was given {payload!r}, not {task.new.payload!r}")
        if task.cancelled:
            self.facts.fail(
                "S15", f"{event.task} starts, although it was cancelled while it waited"
            )
        if proc.stopped:
            self.facts.fail("S17", f"{event.who} has stopped, and starts {event.task}")
        if proc.stop_at is not None:
            late = event.at - max(proc.stop_at, proc.paused_until, proc.blocked_until)
            if late > SLACK / 6:
                self.facts.fail(
                    "S17", f"{event.who} was to stop {late:.1f} s ago, and starts {event.task}"
                )
        for name, other in self.facts.procs.items():
            for (task_id, token), run in other.runs.items():
                # The one of the older token may have slept between its reserve and this start.
                late = event.token < token and proc.paused_until > 0
                if (
                    task_id == event.task
                    and not (run.excused or late)
                    and other.paused_until < event.at
                ):
                    self.facts.fail(
                        "S11",
                        f"{event.task} starts in {event.who} (token {event.token}) while {name}"
                        f" runs it (token {token})",
                    )
        run = proc.runs[event.task, event.token] = Run(event.at, worker_id)
        if len(proc.runs) > proc.slots and self.facts.saw_store:
            self.facts.fail(
                "S16", f"{event.who} runs {len(proc.runs)} tasks and has {proc.slots} slots"
            )
        if self.facts.saw_store and worker_id not in self.facts.owner:
            self.facts.fail(
                "S6", f"{event.task} starts under {worker_id}, which was never registered"
            )
        if worker_id not in task.given.get(event.token, {worker_id}):
            self.facts.fail(
                "S6",
                f"{event.task} (token {event.token}) starts under {worker_id}, and was not given to"
                " it under that lease",
            )
        if event.token in task.begun:
            self.facts.fail("S6", f"{event.task} (token {event.token}) starts once more")
        task.begun.add(event.token)
        task.interrupted.discard((event.who, event.token))  # that was a task of before
        if proc.patience is not None and self.facts.undisturbed:
            since = max(task.given_at, proc.paused_until, proc.blocked_until)
            if event.at - since > proc.patience + SLACK:
                self.facts.fail(
                    "L14", f"{event.who} held {event.task} for {event.at - since:.1f} s, unstarted"
                )
        # Just after a pause its lease may be over, and the news of that not yet there.
        if proc.blocked_until > event.at or 0 < proc.paused_until > event.at - SLACK:
            run.excused = True
        self.facts.note_free(proc)

    def _interrupt(self, event: Event) -> None:
        run = self.facts.procs[event.who].runs.get((event.task, event.token))
        if run is not None:
            run.excused = run.told = True
            task = self.facts.tasks[event.task]
            if task.stop_at is not None:
                self._judge_cancel(event, task, run, self.facts.procs[event.who])

    def _end(self, event: Event) -> None:
        proc, task = self.facts.procs[event.who], self.facts.tasks[event.task]
        run = proc.runs.pop((event.task, event.token), None)
        if event.value == "interrupted":
            task.interrupted.add((event.who, event.token))
        if run is not None and run.lost_at is not None and not run.told:
            since = max(run.lost_at, proc.paused_until, proc.blocked_until)
            if event.at - since > LATE_NEWS + SLACK:
                self.facts.fail(
                    "L15",
                    f"{event.task} ran on in {event.who} for {event.at - since:.1f} s, though its"
                    " lease was lost",
                )
        if run is not None and not run.excused and self.facts.fine_since is not None:
            self._judge_run(event, task, run, proc)
        proc.busy_until = event.at
        self.facts.note_free(proc)

    def _judge_run(self, event: Event, task: Task, run: Run, proc: Proc) -> None:
        """Should somebody have stopped this function before it ended by itself?"""
        assert self.facts.fine_since is not None
        since = max(self.facts.fine_since, proc.paused_until, proc.blocked_until)
        if task.new is not None and task.new.policy.timeout is not None:
            over = event.at - max(run.at + task.new.policy.timeout, since)
            if over > SLACK:
                self.facts.fail("L8", f"{event.task} ran {over:.1f} s longer than its time limit")
        if proc.over_at is not None:
            over = event.at - max(proc.over_at, run.at, since)
            if over > SLACK:
                self.facts.fail("L7", f"{event.task} ran on {over:.1f} s after the grace was over")
        if task.stop_at is not None:
            self._judge_cancel(event, task, run, proc)

    def _judge_cancel(self, event: Event, task: Task, run: Run, proc: Proc) -> None:
        if self.facts.fine_since is None or task.stop_at is None:
            return
        since = max(
            self.facts.fine_since, proc.paused_until, proc.blocked_until, task.stop_at, run.at
        )
        if event.at - since > RESCUED_WITHIN:
            self.facts.fail(
                "L5", f"{event.task} was cancelled {event.at - since:.1f} s before it was told"
            )

    def _told(self, event: Event) -> None:
        task = self.facts.tasks[event.task]
        if event.value and (event.who, event.token) not in task.settled:
            self.facts.fail(
                "S9",
                f"{event.who} was told that its verdict on {event.task} (token {event.token})"
                " counts, and it was never stored",
            )

    # -- asking back ---------------------------------------------------------------------

    def _denied(self, event: Event) -> None:
        denied = self.facts.procs[event.who].denied
        times = denied.setdefault(event.value, deque(maxlen=STORM))
        if len(times) == STORM and event.at - times[0] < STORM_LASTS:
            self.facts.fail(
                "L9",
                f"the {event.value} of {event.who} was failed {STORM} times within"
                f" {event.at - times[0]:.2f} s, and asks again",
            )
            times.clear()
        times.append(event.at)

    def _cancelled(self, event: Event) -> None:
        task = self.facts.tasks[event.task]
        if event.value in PENDING:
            task.cancelled = True
        if event.value is None and task.state is not None and task.acknowledged:
            self.facts.fail("S1", f"{event.task} is stored, and its caller is told that it is not")

    def _wait(self, event: Event) -> None:
        self._waits.setdefault((event.who, event.task), []).append((event.at, event.value))

    def _read(self, event: Event) -> None:
        state, value = event.value
        task = self.facts.tasks[event.task]
        forgotten = task.state is None or task.inserted > 1  # since it was read
        if not forgotten and (state, value) != (task.state, task.result):
            self.facts.fail(
                "S5",
                f"{event.task} ended as {task.state} with {task.result!r}; its caller was told"
                f" {state} with {value!r}",
            )
        began, _ = self._waits[event.who, event.task].pop(0)
        if self.facts.fine_since is not None and task.ended_at is not None:
            proc = self.facts.procs[event.who]
            late = event.at - max(
                began, task.ended_at, self.facts.fine_since, proc.blocked_until, proc.paused_until
            )
            if late > SLACK:
                self.facts.fail(
                    "L6", f"{event.task} had ended {late:.2f} s before its caller was told"
                )

    def _gave_up(self, event: Event) -> None:
        began, timeout = self._waits[event.who, event.task].pop(0)
        if timeout is None:
            return  # there is no such task
        task, proc = self.facts.tasks[event.task], self.facts.procs[event.who]
        if task.inserted and task.state is None:
            return  # it was forgotten, and does not come back
        if task.ended_at is not None and task.state is not None:
            limit = began + timeout
            if task.ended_at < limit - SLACK and self.facts.fine_since is not None:
                self.facts.fail(
                    "L6", f"{event.task} had ended in time, and its caller was not told"
                )
        if event.at < began + timeout - 0.001:
            self.facts.fail(
                "L6", f"a caller gave up {began + timeout - event.at:.2f} s before its time"
            )
        if self.facts.fine_since is not None and began >= proc.paused_until:
            over = max(
                began + timeout, self.facts.fine_since, proc.blocked_until, proc.paused_until
            )
            if event.at - over > SLACK:
                self.facts.fail("L6", f"a caller waited {event.at - over:.2f} s longer than asked")

    # -- the end -------------------------------------------------------------------------

    def _stands(self, event: Event) -> None:
        task = self.facts.tasks[event.task]
        self.facts.saw_end = True
        task.state = event.value
        task.inserted = int(event.value is not None)
        if task.inserted and not (task.pending or task.unknown or task.acknowledged):
            self.facts.fail("S2", f"{event.task} is stored, and nobody asked for it")

    def _sound(self, event: Event) -> None:
        if not event.value:
            self.facts.fail("S24", "the store is damaged")

    def _quiet(self, event: Event) -> None:  # noqa: ARG002
        for task_id, task in self.facts.tasks.items():
            seen = self.facts.saw_store or self.facts.saw_end
            if task.acknowledged and seen and not task.inserted:
                self.facts.fail("S1", f"{task_id} was acknowledged, and is nowhere")
            if task.state is not None and task.state not in FINAL:
                self.facts.fail("L1", f"{task_id} is still {task.state}")
            if self.facts.calm and task.acknowledged and task.starts > 1 and self._runs_once(task):
                self.facts.fail(
                    "S12", f"{task_id} ran {task.starts} times, though nothing went wrong"
                )
        for worker_id, owner in self.facts.owner.items():
            held = [id_ for id_, task in self.facts.tasks.items() if _is_held(task, worker_id)]
            if held:
                self.facts.fail("S17", f"{owner} is gone, and {worker_id} holds {', '.join(held)}")

    def _runs_once(self, task: Task) -> bool:
        return task.new is not None and task.new.policy.retry.attempts == 1 and not task.crashes

    def _stuck(self, event: Event) -> None:
        self.facts.fail("L1", f"not everything came to its end: {'; '.join(event.value)}")

    _JUDGES: ClassVar[Mapping[Kind, Callable[[Any, Event], None]]] = {
        Kind.UP: _up,
        Kind.KILLED: _killed,
        Kind.PAUSED: _paused,
        Kind.BLOCKED: _blocked,
        Kind.STOP_ASKED: _stop_asked,
        Kind.STOPPED: _stopped,
        Kind.ENQUEUE: _enqueue,
        Kind.ENQUEUED: _enqueued,
        Kind.REFUSED: _refused,
        Kind.UNKNOWN: _unknown,
        Kind.CONFLICT: _conflict,
        Kind.HELD: _held,
        Kind.LET_GO: _let_go,
        Kind.START: _start,
        Kind.INTERRUPT: _interrupt,
        Kind.END: _end,
        Kind.TOLD: _told,
        Kind.DENIED: _denied,
        Kind.CANCELLED: _cancelled,
        Kind.WAIT: _wait,
        Kind.READ: _read,
        Kind.GAVE_UP: _gave_up,
        Kind.STANDS: _stands,
        Kind.SOUND: _sound,
        Kind.HEALED: _healed,
        Kind.QUIET: _quiet,
        Kind.STUCK: _stuck,
        Kind.BATCH: lambda self, event: self._rows.batch(event),
        Kind.ROW: lambda self, event: self._rows.row(event),
    }


def _is_held(task: Task, worker_id: str) -> bool:
    return task.worker == worker_id and task.state is S.RUNNING
