"""What a history has told so far, for those who judge what comes next."""

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from sitq.protocol.lifecycle import TaskState as S
from sitq.protocol.ops import NO_POLICY, NewTask
from sitq.testing.simulation.naming import node_of

RESCUED_WITHIN: Final = 2.0
"""Seconds: decisions, promise 5."""
LATE_NEWS: Final = 1.0
"""Seconds that a word of the lease's thread may take to the event loop, at the worst."""
SLACK: Final = 0.6
"""Seconds that transactions and words may take besides what is promised."""

STORM: Final = 20
"""Questions in `STORM_LASTS` that may fail: 10 by the shortest pause, and some side by side."""
STORM_LASTS: Final = 2.0

FINAL: Final = frozenset({S.SUCCESS, S.FAILED, S.CANCELLED})
PENDING: Final = frozenset({S.SCHEDULED, S.QUEUED, S.PARKED})


class Violation(NamedTuple):
    """*event* is the place in the history at which it showed."""

    invariant: str
    text: str
    event: int


class Task:
    """What is known of a task so far."""

    __slots__ = (
        "acknowledged", "begun", "cancelled", "charged", "crashes", "ended_at", "given", "given_at", "inserted", "interrupted",
        "known", "new", "pending", "queued_at", "refused", "result", "seq", "settled", "starts",
        "state", "stop_at", "token", "unknown", "was_scheduled", "worker",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pending = self.refused = self.unknown = self.acknowledged = 0  # asks to enqueue it
        self.inserted = 0
        self.new: NewTask | None = None
        self.state: S | None = None  # None: there is no row
        self.seq = 0
        self.token = 0
        self.worker: str | None = None
        self.charged = 0
        self.crashes = 0
        self.starts = 0
        self.cancelled = False  # while it waited
        self.stop_at: float | None = None  # when it was cancelled while it ran
        # A task that comes after this was forgotten counts its tokens from the beginning again:
        # what a process may still say of the first one is told apart by who had that token.
        self.interrupted: set[tuple[str, int]] = set()  # whose function was stopped before its end
        self.settled: set[tuple[str, int]] = set()  # whose verdict was stored
        self.known: set[int] = set()  # tokens
        self.begun: set[int] = set()  # tokens whose function was started
        self.given: dict[int, set[str | None]] = {}  # by token: under which leases
        self.result: bytes | None = None
        self.given_at = 0.0  # to its worker
        self.queued_at = 0.0
        self.was_scheduled = False
        self.ended_at: float | None = None

    def is_suspect(self) -> bool:
        """Whether it fails if its worker dies once more."""
        most = self.new.policy.max_crashes if self.new is not None else NO_POLICY.max_crashes
        return 0 < self.crashes >= most - 1


class Run:
    """A task that runs in a process."""

    __slots__ = ("at", "excused", "lost_at", "told", "worker_id")

    def __init__(self, at: float, worker_id: str) -> None:
        self.at = at
        self.worker_id = worker_id
        self.lost_at: float | None = None  # when its worker let go of that lease
        self.told = False  # to stop
        self.excused = False  # out of touch since, or told to stop


class Proc:
    """What is known of a process so far."""

    __slots__ = (
        "alive", "blocked_until", "busy_until", "denied", "free_since", "held", "killed_at",
        "over_at", "patience", "paused_until", "poll", "queues", "runs", "slots", "stop_at", "stopped",
    )  # fmt: skip

    def __init__(self) -> None:
        self.alive = True
        self.killed_at = 0.0
        self.slots = 1
        self.queues: tuple[str, ...] = ()
        self.poll = 0.0
        self.patience: float | None = None
        self.held: str | None = None
        self.runs: dict[tuple[str, int], Run] = {}
        self.free_since: float | None = None
        self.paused_until = 0.0
        self.blocked_until = 0.0
        self.busy_until = 0.0
        self.stop_at: float | None = None
        self.over_at: float | None = None  # when its grace is over
        self.denied: dict[str, deque[float]] = {}  # when the store failed each part of it
        self.stopped = False


class _Procs(dict[str, Proc]):
    """By name; each is there as soon as it is asked for."""

    def __init__(self, polls: Mapping[str, float], patience: Mapping[str, float]) -> None:
        super().__init__()
        self._polls = polls
        self._patience = patience

    def __missing__(self, name: str) -> Proc:
        proc = self[name] = Proc()
        node = node_of(name)
        proc.poll = self._polls.get(node, 0.0)
        proc.patience = self._patience.get(node)
        return proc


class Facts:
    """*calm* and the rest are as `Checker` says."""

    def __init__(
        self,
        *,
        calm: bool,
        presence: bool,
        polls: dict[str, float],
        patience: dict[str, float],
        recovers_within: float,
        undisturbed: bool,
    ) -> None:
        self.calm = calm
        self.presence = presence
        self.recovers_within = recovers_within
        self.undisturbed = undisturbed
        self.violations: list[Violation] = []
        self.event = 0  # the number of the one that is judged
        self.at = 0.0  # its time
        self.tasks: dict[str, Task] = defaultdict(Task)
        self.procs: dict[str, Proc] = _Procs(polls, patience)
        self.leases: dict[str, tuple[int, str, float]] = {}  # until, epoch, for how long
        self.owner: dict[str, str] = {}  # the process of a worker id
        self.saw_store = False  # the transactions
        self.saw_end = False  # how the rows stand at the end
        self.healed_at: float | None = None
        # Where the store never fails, a worker has no excuse for being late at any time.
        self.fine_since: float | None = 0.0 if undisturbed else None
        self.ready_since: float | None = None

    def fail(self, invariant: str, text: str) -> None:
        self.violations.append(Violation(invariant, text, self.event))

    def note_ready(self) -> None:
        """Since when somebody is there to look after the dead."""
        for proc in self.procs.values():
            if proc.held is not None and proc.alive:
                if self.ready_since is None:
                    self.ready_since = self.at
                return
        self.ready_since = None

    def note_free(self, proc: Proc) -> None:
        """Since when a process has a slot free."""
        if proc.held is None or len(proc.runs) >= proc.slots:
            proc.free_since = None
        elif proc.free_since is None:
            proc.free_since = max(self.at, proc.paused_until, proc.blocked_until)
