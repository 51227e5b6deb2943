"""Bugs planted on purpose: the proof that the simulator and its invariants bite.

Each is a small, named change of sitq's own source, as a tired person might make it; six are the
bugs of other queues that their users reported. A mutant is caught if one of a thousand seeds
shows a violation. `hunt` looks for the first; `docs/explanation/simulation.md` has the table.

An edit names its target (`module:name`), a text that stands in it once, and the text instead. So
a mutant whose target has changed since fails loudly, rather than planting nothing.
"""

import inspect
import textwrap
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Final, NamedTuple

from sitq.storage import sqlite_statements
from sitq.testing.simulation.climate import Plan, draw
from sitq.testing.simulation.store import SqliteSimStore
from sitq.testing.simulation.trial import play

ENOUGH: Final = 1000
"""Seeds until a mutant counts as one that survives: some take a rare run to be seen."""


class Edit(NamedTuple):
    target: str
    """`module:function`, `module:Class.method` or `module:CONSTANT`, below `sitq`."""
    old: str
    new: str


class Mutant(NamedTuple):
    name: str
    what: str
    """The bug, in a sentence."""
    edits: tuple[Edit, ...]
    store: str = ""
    """`sqlite` or `model`, where only one of the two has the bug."""

    def plan(self, seed: int) -> Plan:
        """Return the plan of *seed*, on a store that has the bug."""
        plan = draw(seed)
        return plan._replace(store=self.store) if self.store else plan

    @contextmanager
    def planted(self) -> Generator[None]:
        """Have the bug in this process."""
        with ExitStack() as undo:
            for edit in self.edits:
                undo.callback(_plant(edit))
            _make_statements_anew()
            yield
        _make_statements_anew()


def _make_statements_anew() -> None:
    """Forget the statements that are made of constants once."""
    sqlite_statements.look_statement.cache_clear()
    sqlite_statements.next_statement.cache_clear()


class Caught(NamedTuple):
    seed: int
    invariant: str
    text: str
    runs: int
    """How many seeds were played until then."""


def hunt(mutant: Mutant, most: int = ENOUGH) -> Caught | None:
    """Return how *mutant* is caught, by the first of *most* seeds; None if it survives."""
    store, runs = SqliteSimStore(), 0
    with mutant.planted():
        for seed in range(most):
            runs += 1
            trial = play(mutant.plan(seed), store)
            if trial.failed:
                first = trial.violations[0]
                return Caught(seed, first.invariant, first.text, runs)
    return None


def _plant(edit: Edit) -> Callable[[], None]:
    """Make *edit*; return what undoes it."""
    module_name, _, path = edit.target.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(f"sitq.{module_name}")
    for part in owners:
        owner = getattr(owner, part)
    before = vars(owner)[name]
    if isinstance(before, str):
        after: Any = _replaced(edit, before)
    else:
        source = _replaced(edit, textwrap.dedent(inspect.getsource(before)))
        namespace: dict[str, Any] = {}
        # It sees the globals of its own module, as they are when it is called.
        exec(compile(source, f"<{edit.target}>", "exec"), before.__globals__, namespace)  # noqa: S102
        after = namespace[name]
    setattr(owner, name, after)
    return lambda: setattr(owner, name, before)


def _replaced(edit: Edit, text: str) -> str:
    assert text.count(edit.old) == 1, f"{edit.target} does not hold {edit.old!r} once:\n{text}"
    return text.replace(edit.old, edit.new)


def _settles(old: str, new: str) -> tuple[Edit, ...]:
    """Edit every statement by which a verdict is stored."""
    names = ("COMPLETE", "FAIL", "ABORT", "ABORT_IF_ASKED", "RETRY", "RELEASE", "PARK")
    return tuple(Edit(_SQL + name, old, new) for name in names)


_SQL: Final = "storage.sqlite_statements:"
_PROGRAM: Final = "storage.sqlite:"
_MODEL: Final = "storage.model:Model."
_WORKER: Final = "protocol.worker:WorkerMachine."
_LEASE: Final = "protocol.lease:LeaseMachine."
_COMMIT: Final = "protocol.commit:CommitMachine."
_WAITER: Final = "protocol.waiter:WaiterMachine."
_RETRY: Final = "protocol.retry:"

_ANY_TOKEN: Final = _settles("token = ? AND", "(token = ? OR 1) AND")
_ANY_WORKER: Final = _settles("worker_id = ? AND", "(worker_id = ? OR 1) AND")
_RUNNING: Final = "state = 'running'"

CANARY: Final = Mutant(
    "canary",
    "A rescue takes back whatever its worker has ever had, and says nothing of it.",
    (
        Edit(_SQL + "RESCUE", _RUNNING, "1"),
        Edit(_SQL + "RESCUE", "token = token + 1", "token = token"),
    ),
    "sqlite",
)
"""Played along with every set of runs: a set in which it goes unnoticed proves nothing."""

_LIST: Final = (
    CANARY,
    # -- the bugs of others ----------------------------------------------------------------
    Mutant(
        "river#1302",
        "A rescue takes back whatever its worker had, also what has ended meanwhile.",
        (Edit(_SQL + "RESCUE", _RUNNING, "1"),),
        "sqlite",
    ),
    Mutant(
        "dbos#541",
        "A reserve chooses tasks that another has chosen already, and takes them as well.",
        (
            Edit(_SQL + "NEXT", "state = 'queued'", "state IN ('queued', 'running')"),
            Edit(_SQL + "TAKE", "state = 'queued'", "state IN ('queued', 'running')"),
        ),
        "sqlite",
    ),
    Mutant(
        "dbos#742",
        "A second recovery acts on the list of a first one, which is out of date.",
        (
            Edit(
                _LEASE + "_questions",
                "ops.append(Rescue(self._left_behind + self._dead))",
                "self.listed = getattr(self, 'listed', ()) + self._dead\n"
                "        ops.append(Rescue(self._left_behind + self.listed))",
            ),
            Edit(
                _SQL + "DEAD",
                "SELECT id, host, pid FROM sitq_workers\n    WHERE id IN (SELECT value FROM json_each(?)) OR",
                "SELECT value, 'host', 0 FROM json_each(?) UNION\n"
                "    SELECT id, host, pid FROM sitq_workers WHERE",
            ),
            Edit(_SQL + "RESCUE", _RUNNING, "state IN ('running', 'success')"),
        ),
        "sqlite",
    ),
    Mutant(
        "docket#245",
        "A task that is to be retried is redelivered as well.",
        (
            Edit(_SQL + "RETRY", "worker_id = NULL", "worker_id = worker_id"),
            Edit(_SQL + "RESCUE", _RUNNING, "state IN ('running', 'scheduled')"),
        ),
        "sqlite",
    ),
    Mutant(
        "pgqueuer#630",
        "A worker that is stopped leaves what it holds to nobody.",
        (
            Edit(
                _WORKER + "_task_ended",
                "if running.why is not Why.LEASE_LOST:",
                "if running.why not in (Why.LEASE_LOST, Why.SHUTDOWN):",
            ),
            Edit(_SQL + "RETIRE_RELEASE", _RUNNING, f"{_RUNNING} AND 0"),
        ),
        "sqlite",
    ),
    Mutant(
        "procrastinate#1131",
        "A task that raises after it was told to stop is never settled.",
        (
            Edit(
                _WORKER + "_task_ended",
                "if running.why is not Why.LEASE_LOST:",
                "if running.why is not Why.LEASE_LOST and not (\n"
                "        running.why is Why.USER and type(event.ending).__name__ == 'Raised'\n"
                "    ):",
            ),
        ),
    ),
    # -- fencing ---------------------------------------------------------------------------
    Mutant(
        "settled by number",
        "A task is settled by its number alone: whoever says that it has ended is believed.",
        (*_ANY_TOKEN, *_ANY_WORKER),
        "sqlite",
    ),
    Mutant(
        "settle what has ended",
        "A completion is stored although the task has ended.",
        (Edit(_SQL + "COMPLETE", f" AND +{_RUNNING}", ""),),
        "sqlite",
    ),
    Mutant(
        "told that it counts",
        "A worker whose verdict was refused is told that it counts.",
        (Edit(_PROGRAM + "_settle", "Settled(op.key in standing)", "Settled(True)"),),
        "sqlite",
    ),
    Mutant(
        "rescue keeps the token",
        "A rescue gives no new token.",
        (Edit(_SQL + "RESCUE", "token = token + 1", "token = token"),),
        "sqlite",
    ),
    Mutant(
        "retire keeps the token",
        "What a worker hands back when it leaves keeps its token.",
        (Edit(_SQL + "RETIRE_RELEASE", "token = token + 1", "token = token"),),
        "sqlite",
    ),
    Mutant(
        "a token twice",
        "A reserve gives no new token.",
        (Edit(_MODEL + "_reserve_fresh", "task.token += 1", "task.token = max(task.token, 1)"),),
        "model",
    ),
    Mutant(
        "numbers come back",
        "The newest row is forgotten too, and its number goes to the next task.",
        (Edit(_SQL + "PRUNE", "AND seq <> (SELECT max(seq) FROM sitq_tasks)", ""),),
        "sqlite",
    ),
    Mutant(
        "reserve without a lease",
        "A worker whose lease has ended is given tasks.",
        (Edit(_MODEL + "_reserve", "if op.worker_id not in self._workers:", "if False:"),),
        "model",
    ),
    # -- leases ----------------------------------------------------------------------------
    Mutant(
        "rescued too early",
        "A lease ends a third of a second before its time.",
        (
            Edit(
                _MODEL.replace("Model.", "_Worker.") + "is_expired",
                "<= now.lease_ms",
                "<= now.lease_ms + 300",
            ),
        ),
        "model",
    ),
    Mutant(
        "lease of another boot",
        "A lease that was given before the machine was started anew is still good.",
        (
            Edit(_SQL + "DEAD", "OR epoch <> ? ", "OR (epoch <> ? AND 0) "),
            Edit(_SQL + "PEERS", "epoch <> ? OR", "(epoch <> ? AND 0) OR"),
        ),
        "sqlite",
    ),
    Mutant(
        "lease believed for longer",
        "A worker believes to hold its lease for three times as long as it was given.",
        (Edit(_LEASE + "_hold", "(1 - CLOCK_MARGIN)", "3"),),
    ),
    Mutant(
        "renewal at the last moment",
        "A lease is renewed only once it has run out.",
        (Edit(_LEASE + "_hold", "lease_for / RENEWALS_PER_LEASE", "lease_for * 1.01"),),
    ),
    Mutant(
        "renewal on the loop",
        "The lease is renewed by the event loop, which a task may block.",
        (
            Edit(
                "testing.simulation.process:Process._lease_receive",
                "self.world.on_thread(self, at, self._lease_tick)",
                "self.world.on_loop(self, at, self._lease_tick)",
            ),
        ),
    ),
    Mutant(
        "renewal is forgotten",
        "After a renewal no further one is planned.",
        (
            Edit(
                _LEASE + "_hold",
                "self._timers.set(RENEW, self._asked_at + lease_for / RENEWALS_PER_LEASE)",
                "if self.state is LOOKING:\n"
                "        self._timers.set(RENEW, self._asked_at + lease_for / 3)",
            ),
        ),
    ),
    Mutant(
        "never lets go",
        "A worker whose lease was not renewed in time works on.",
        (
            Edit(_LEASE + "_run_timers", "self._let_go(effects)", "pass"),
            Edit(_WORKER + "_run_timers", "self._disown(effects)", "pass"),
        ),
    ),
    Mutant(
        "lost tasks run on",
        "A worker that lost its lease does not interrupt its tasks.",
        (Edit(_WORKER + "_lease_lost", "self._interrupt(lost, Why.LEASE_LOST, effects)", "pass"),),
    ),
    Mutant(
        "tasks of an earlier life",
        "A worker starts what was reserved under a lease that it has lost.",
        (
            Edit(
                _WORKER + "_stored",
                "continue  # reserved by a life that is over, and rescued with it",
                "pass",
            ),
        ),
    ),
    # -- the dead --------------------------------------------------------------------------
    Mutant(
        "nobody looks twice",
        "A worker looks for dead ones once, and never again.",
        (
            Edit(
                _LEASE + "_run_timers",
                "self._timers.set(timer, now + self.config.watch_every)",
                "pass",
            ),
        ),
    ),
    Mutant(
        "locks are not tried",
        "That a worker's lock is free tells nobody that it is dead.",
        (Edit(_LEASE + "receive", "self._dead = event.dead", "self._dead = ()"),),
    ),
    Mutant(
        "leases are not watched",
        "That a worker's lease has run out is not noticed.",
        (Edit(_LEASE + "_answered", "self._rescue_due |= outcome.expired", "pass"),),
    ),
    Mutant(
        "the living are rescued",
        "A worker's tasks are taken back because it was seen, not because it was dead.",
        (
            Edit(
                _LEASE + "_answered",
                "effects.append(Probe(outcome.peers))",
                "effects.append(Probe(outcome.peers)); self._dead = outcome.peers",
            ),
        ),
    ),
    # -- charges ---------------------------------------------------------------------------
    Mutant(
        "a hand-back is charged",
        "What a stopped worker hands back has used up an attempt.",
        (Edit(_SQL + "RELEASE", "attempt = attempt - 1", "attempt = attempt"),),
        "sqlite",
    ),
    Mutant(
        "a rescue is charged",
        "The death of a worker uses up an attempt of its task.",
        (Edit(_SQL + "RESCUE", "attempt = attempt - 1", "attempt = attempt"),),
        "sqlite",
    ),
    Mutant(
        "parking is charged",
        "A task that could not be read has used up an attempt.",
        (Edit(_SQL + "PARK", "attempt = attempt - 1", "attempt = attempt"),),
        "sqlite",
    ),
    Mutant(
        "an interrupt is charged",
        "A task that was interrupted by a stop is taken for one that has failed.",
        (
            Edit(
                "protocol.worker:judge",
                "case Why.SHUTDOWN | Why.LEASE_LOST:\n            return Released()",
                "case Why.SHUTDOWN | Why.LEASE_LOST:\n            return _another_attempt(task, Failure('interrupted', 'Interrupted'), unit)",
            ),
        ),
    ),
    Mutant(
        "one attempt too many",
        "A task is tried once more than its caller allows.",
        (
            Edit(
                _RETRY + "_another_attempt",
                "task.attempt < task.policy.retry.attempts",
                "task.attempt <= task.policy.retry.attempts",
            ),
        ),
    ),
    Mutant(
        "deaths are not counted",
        "A task that kills its workers is given to them for ever.",
        (Edit(_SQL + "RESCUE", "crashes = crashes + 1", "crashes = crashes"),),
        "sqlite",
    ),
    Mutant(
        "one death too many",
        "A task is given up one death later than was said.",
        (Edit(_SQL + "RESCUE_FAIL", "crashes + 1 >= max_crashes", "crashes >= max_crashes"),),
        "sqlite",
    ),
    # -- enqueueing ------------------------------------------------------------------------
    Mutant(
        "acknowledged before commit",
        "A caller is told that its task is stored before it is.",
        (
            Edit(
                _COMMIT + "_take_off",
                "return Commit(self._batch_id, ops)",
                "self.told = {g.ticket for g in groups if type(g.ops[0]) is Enqueue}\n"
                "    return Commit(self._batch_id, ops)",
            ),
            Edit(
                _COMMIT + "receive",
                "    return effects\n",
                "    from sitq.protocol.ops import Enqueued\n"
                "    told, before = getattr(self, 'told', set()), getattr(self, 'before', set())\n"
                "    effects = [e for e in effects if getattr(e, 'ticket', None) not in before]\n"
                "    effects += [Resolve(t, (Enqueued(),)) for t in sorted(told - before)]\n"
                "    self.before = before | told\n"
                "    return effects\n",
            ),
        ),
    ),
    Mutant(
        "a refusal is swallowed",
        "A caller whose task the store refused is told that it is stored.",
        (
            Edit(
                _COMMIT + "receive",
                "            else:\n                effects += [Reject(group.ticket, error) for group in groups]",
                "            else:\n"
                "                from sitq.protocol.ops import Enqueued\n"
                "                effects += [\n"
                "                    Resolve(group.ticket, (Enqueued(),))\n"
                "                    if type(group.ops[0]) is Enqueue\n"
                "                    else Reject(group.ticket, error)\n"
                "                    for group in groups\n"
                "                ]",
            ),
        ),
    ),
    Mutant(
        "doubt is told as refusal",
        "A caller is told that nothing was stored, where nobody can know.",
        (Edit(_COMMIT + "receive", "Doubt(group.ticket, error)", "Reject(group.ticket, error)"),),
    ),
    Mutant(
        "the last of many is dropped",
        "Of tasks that are enqueued together the last is not stored.",
        (
            Edit(
                _PROGRAM + "inserts",
                "groupby(new, ",
                "groupby(new[: max(1, len(new) - 1)], ",
            ),
        ),
        "sqlite",
    ),
    Mutant(
        "the same is another",
        "A call that is asked for again under its id is taken for another.",
        (Edit(_PROGRAM + "new_tasks", "elif payload != task.payload:", "elif True:"),),
        "sqlite",
    ),
    Mutant(
        "asked again, stored again",
        "That an id is there already is not looked up.",
        (Edit(_PROGRAM + "_enqueue", "    if asked:\n", "    if asked and False:\n"),),
        "sqlite",
    ),
    Mutant(
        "those that wait are forgotten",
        "A batch that fails takes along what waits behind it.",
        (
            Edit(
                _COMMIT + "receive",
                "groups = self._land()\n",
                "groups = self._land()\n            self._waiting.clear()\n",
            ),
        ),
    ),
    # -- time ------------------------------------------------------------------------------
    Mutant(
        "due too early",
        "A task becomes due a tenth of a second before its time.",
        (
            Edit(_PROGRAM + "_reserve", "due_at <= now.wall_ms", "due_at <= now.wall_ms + 100"),
            Edit(_SQL + "PROMOTE", "run_at_ms <= ?", "run_at_ms <= ? + 100"),
        ),
        "sqlite",
    ),
    Mutant(
        "a delay is ignored",
        "A task with a delay is queued at once.",
        (
            Edit(
                "storage.sqlite_inserts:when",
                "TaskState.QUEUED if run_at_ms <= wall_ms else TaskState.SCHEDULED",
                "TaskState.QUEUED",
            ),
        ),
        "sqlite",
    ),
    Mutant(
        "a pause is ignored",
        "A task that failed is due again at once.",
        (Edit(_SQL + "RETRY", "run_at_ms = ?", "run_at_ms = ? * 0"),),
        "sqlite",
    ),
    Mutant(
        "time limits are ignored",
        "A task that runs longer than it may is not told to stop.",
        (Edit(_WORKER + "_run_timers", "self._interrupt((key,), Why.TIMEOUT, effects)", "pass"),),
    ),
    Mutant(
        "forgotten too soon",
        "What has just ended is forgotten, whatever the retention.",
        (Edit(_SQL + "PRUNE", "finished_ms <= ?", "finished_ms <= ? + 86400000"),),
        "sqlite",
    ),
    Mutant(
        "the waiting are forgotten",
        "Pruning takes what is old, whether it has ended or not.",
        (
            Edit(
                _MODEL + "_prune",
                "newest: list[tuple[int, int]] = []",
                "newest: list[tuple[int, int]] = []\n"
                "    for task in self._tasks.values():\n"
                "        if task.state is TaskState.QUEUED and (0, task.seq) not in self._ended:\n"
                "            heappush(self._ended, (0, task.seq))",
            ),
        ),
        "model",
    ),
    # -- the worker ------------------------------------------------------------------------
    Mutant(
        "a slot too many",
        "A worker starts what it holds ahead, whether it has a slot for it or not.",
        (
            Edit(
                _WORKER + "_start_what_fits",
                "while ahead.held and self.running < self.config.max_concurrency:",
                "while ahead.held:",
            ),
        ),
    ),
    Mutant(
        "threads are not counted",
        "A thread that outlived its task keeps no slot.",
        (Edit(_WORKER + "_task_ended", "self._lingering += 1", "self._lingering += 0"),),
    ),
    Mutant(
        "no limit",
        "A reserve is given all there is.",
        (Edit(_MODEL + "_reserve_fresh", "while len(given) < limit:", "while True:"),),
        "model",
    ),
    Mutant(
        "verdicts are dropped",
        "What the store has refused for now is not said again.",
        (Edit(_WORKER + "_store_failed", "self._settles.append(op)", "pass"),),
    ),
    Mutant(
        "suspects share a worker",
        "Tasks that may have killed workers are given out together, and fail together.",
        (Edit(_MODEL + "_reserve_fresh", "if _is_suspect(task) and any", "if False and any"),),
        "model",
    ),
    Mutant(
        "one suspect is not counted",
        "A worker that has a task which may kill it is given another.",
        (
            Edit(
                _SQL + "HOLDS_SUSPECT",
                "worker_id = ?",
                "worker_id = ? AND 0",
            ),
        ),
        "sqlite",
    ),
    Mutant(
        "an answer counts twice",
        "What is answered once more is taken for the answer to whatever is under way.",
        (Edit(_COMMIT + "_is_awaited", " and batch_id == self._batch_id", ""),),
    ),
    Mutant(
        "no pause after a failure",
        "A worker that the store has failed asks again at once.",
        (Edit(_WORKER + "_store_failed", "RETRY, now + pause", "RETRY, now + 0.001"),),
    ),
    Mutant(
        "no pause for a lease",
        "A lease that the store has failed is asked for again at once.",
        (Edit(_LEASE + "receive", "RETRY, now + pause", "RETRY, now + 0.001"),),
    ),
    Mutant(
        "no next look",
        "A worker that found nothing does not look again.",
        (Edit(_WORKER + "_reserved", "self._timers.set(POLL, now + pause)", "pass"),),
    ),
    Mutant(
        "no look for more",
        "A worker that found all it asked for does not look for more.",
        (
            Edit(
                _WORKER + "_reserved",
                "self._wants_tasks = True  # there may be more",
                "pass",
            ),
            Edit(_WORKER + "_task_ended", "self._wants_tasks = True  # a slot is free", "pass"),
        ),
    ),
    Mutant(
        "no look after a failure",
        "A worker whose reserve failed does not ask again.",
        (Edit(_WORKER + "_store_failed", "self._wants_tasks = True", "pass"),),
    ),
    Mutant(
        "a lost answer is lost",
        "What an answer named that never came stays with a worker that never heard of it.",
        (
            Edit(
                _WORKER + "_store_failed",
                "self._unheard = max(self._unheard, op.limit)",
                "pass",
            ),
        ),
    ),
    Mutant(
        "a stop is forgotten",
        "A stop that comes before the start does not count.",
        (
            Edit(
                _WORKER + "receive",
                "if self.state is NEW:  # else a stop came first, and stands",
                "if True:",
            ),
        ),
    ),
    Mutant(
        "the grace never ends",
        "A stop waits for running tasks, whatever grace it was given.",
        (Edit(_WORKER + "_stop_requested", "if grace is not None:", "if False:"),),
    ),
    Mutant(
        "stopped too soon",
        "A worker stops while its verdicts are under way.",
        (
            Edit(
                _WORKER + "_check_done",
                "if not self._running and",
                "if (not self._running or True) and",
            ),
        ),
    ),
    # -- holding ahead ---------------------------------------------------------------------
    Mutant(
        "hoards",
        "What waits behind a long task is kept for it.",
        (
            Edit(
                _WORKER + "_start_what_fits",
                "self._settle_ahead(ahead.overdue(now), Released())\n    if",
                "if True or",
            ),
        ),
    ),
    Mutant(
        "held ahead through a stop",
        "A worker that is to stop still starts what it has held ahead.",
        (
            Edit(
                _WORKER + "_stop_requested",
                "self._settle_ahead(self._ahead.clear(), Released())",
                "pass",
            ),
        ),
    ),
    Mutant(
        "waits for the end of all turns",
        "What a worker has put off for a turn of the loop, it never says.",
        (Edit(_WORKER + "receive", "self._waits_a_turn = False", "pass"),),
    ),
    # -- order, cancelling, parking, waiting -----------------------------------------------
    Mutant(
        "last come, first served",
        "Of equal tasks the newest comes first.",
        (Edit(_SQL + "NEXT", "ORDER BY priority DESC, seq", "ORDER BY priority DESC, seq DESC"),),
        "sqlite",
    ),
    Mutant(
        "priorities upside down",
        "Of the tasks that wait the least important comes first.",
        (
            Edit(
                _MODEL + "_file",
                "(-task.new.priority, task.seq)",
                "(task.new.priority, task.seq)",
            ),
        ),
        "model",
    ),
    Mutant(
        "cancelled, and back",
        "A task that was cancelled while it ran comes back when its worker dies.",
        (Edit(_SQL + "RESCUE_ABORT", "cancel_asked = 1", "cancel_asked = 2"),),
        "sqlite",
    ),
    Mutant(
        "cancelled, and retried",
        "A task that was cancelled while it ran is retried if it fails.",
        (
            Edit(_SQL + "ABORT_IF_ASKED", "cancel_asked = 1", "cancel_asked = 2"),
            Edit(_SQL + "RETRY", " AND cancel_asked = 0", ""),
            Edit(_SQL + "RELEASE", " AND cancel_asked = 0", ""),
        ),
        "sqlite",
    ),
    Mutant(
        "nobody is told",
        "A worker does not hear that its task was cancelled by another process.",
        (Edit(_LEASE + "_answered", "effects.append(AskToStop(outcome.cancelled))", "pass"),),
    ),
    Mutant(
        "parked for ever",
        "What was parked is not taken up by a worker that can read it.",
        (Edit(_MODEL + "_unpark", "if task.parked_stamp in stamps", "if False"),),
        "model",
    ),
    Mutant(
        "gives up too soon",
        "Who waits gives up although the answer under way was asked before the time ran out.",
        (
            Edit(
                _WAITER + "_answered",
                "self._asked_at >= self._limit",
                "now >= self._limit - 0.9",
            ),
        ),
    ),
    Mutant(
        "waits without looking",
        "Who waits relies on hints, which may be lost.",
        (
            Edit(
                _WAITER + "_answered",
                "self._look_at = now + self._pause",
                "self._look_at = now + 60.0",
            ),
        ),
    ),
)

MUTANTS: Final[Mapping[str, Mutant]] = {mutant.name: mutant for mutant in _LIST}
