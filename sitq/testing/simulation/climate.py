"""What a run is made of, and what goes wrong in it: drawn from the seed, as plain values.

A plan says all that is known before a run begins: the processes, the tasks, and the climate. What
goes wrong, and how fiercely, differs from seed to seed: some faults are off, others beat down.
With the same mild weather in every run, whole classes of bugs stay hidden (that is what
FoundationDB and TigerBeetle found, who draw theirs as well).
"""

from typing import Final, NamedTuple

from sitq.protocol.ops import RetryPolicy, TaskPolicy
from sitq.testing.simulation.chance import Chance


class Climate(NamedTuple):
    """What goes wrong: probabilities for each occasion, or rates for each second.

    All is 0 in a calm run.
    """

    kill: float = 0.0
    """For each event in a process: it dies there."""
    kill_in_program: float = 0.0
    """For each transaction: the process dies between two of its statements, or behind the last."""
    refused: float = 0.0
    """For each transaction: the disk is full, or fails; nothing is stored."""
    doubted: float = 0.0
    """For each transaction: it fails inside COMMIT. It was stored, or it was not."""
    poisonous: float = 0.0
    """For each transaction: one of its ops cannot be stored."""
    slow: float = 0.0
    """For each transaction: it takes up to a second or more."""
    outage: float = 0.0
    """A second: the store is out for some seconds, for all."""
    cut_off: float = 0.0
    """A second, for each process: the store is out for this one alone, for some seconds."""
    pause: float = 0.0
    """A second, for each process: it does not run at all for a while."""
    sleep: float = 0.0
    """A second: the whole machine sleeps."""
    wall_jump: float = 0.0
    """A second: the wall clock is set, or stands still for a while."""
    reboot: float = 0.0
    """A second: the power fails; the machine comes back with another boot."""
    restart: float = 0.0
    """A second, for each process: it is told to stop, and another takes its place."""
    lost_hint: float = 0.0
    """For each hint of one part of a process to another: it is lost."""
    late_news: float = 0.0
    """For each word of the lease's thread to the event loop: it takes up to a second."""
    doubled_answer: float = 0.0
    """For each answer to a group commit: it comes once more, up to some seconds later."""
    drift: float = 0.0
    """How much faster (or slower, if negative) the store's clock runs than the processes'."""


CALM: Final = Climate()


class NodePlan(NamedTuple):
    """A process, and what takes its place when it has died or stopped."""

    slots: int
    poll_interval: float
    lease_for: float
    queues: tuple[str, ...]
    reads: tuple[str, ...]
    """The stamps of payloads that it can read."""
    max_batch: int
    starts_at: float
    retention: float | None
    horizon: float
    """Seconds within which a task that it holds ahead must start; 0: it holds none."""
    quick: float
    """Seconds within which such tasks must follow one another to be told of together; 0: never."""


class TaskPlan(NamedTuple):
    """A task, and how it behaves."""

    id: str
    at: float
    """When it is enqueued, in seconds."""
    node: int
    """The process in which its caller is."""
    group: int
    """Tasks of one group are enqueued together."""
    queue: str
    priority: int
    delay: float
    policy: TaskPolicy
    stamp: str
    takes: float
    """Seconds that it runs."""
    style: str
    """async | stubborn (ends when it likes) | thread (cannot be stopped) | blocks (the loop)."""
    fails: int
    """How often it raises, before it returns."""
    hopeless: bool
    """What it raises cannot be cured by another attempt."""
    kills: int
    """How often it takes its process down."""
    enqueues: bool
    """It enqueues another task before it ends."""
    named: bool
    """Its id was chosen by the caller, who asks twice."""
    cancelled_at: float | None
    """When a caller cancels it."""
    awaited_at: float | None
    """When a caller begins to wait for it."""
    timeout: float | None
    """For how long."""

    @property
    def may_hurry(self) -> bool:
        """Whether nobody is to stop it, so that its length is of no matter once all is well."""
        return self.cancelled_at is None and self.policy.timeout is None


class Plan(NamedTuple):
    seed: int
    climate: Climate
    presence: bool
    """Whether processes of one host can see that another has died."""
    store: str
    """`sqlite` or `model`."""
    nodes: tuple[NodePlan, ...]
    tasks: tuple[TaskPlan, ...]
    heals_at: float
    """From then on nothing goes wrong any more."""


QUEUES: Final = ("default", "mail")
STAMPS: Final = ("v1", "v2")
CALM_SHARE: Final = 0.1
"""Of the runs: so that it is seen what must hold if nothing at all goes wrong."""
STEADY_SHARE: Final = 0.3
"""Of the others: processes die, but the store never fails or keeps one waiting."""
STORM_SHARE: Final = 0.12
"""Of all runs: everything that makes a worker lose touch, and so speak too late, at once."""
STORM: Final = Climate(
    doubted=0.2, slow=0.3, cut_off=0.1, pause=0.3, restart=0.2, lost_hint=0.1, late_news=0.1
)
"""With more pauses and stops than this, fewer verdicts come too late, and fewer tasks run twice."""
ISLANDS_SHARE: Final = 0.03
"""Of all runs: the store is out for one process at a time, for longer than its lease."""
ISLANDS: Final = Climate(cut_off=0.5)
RUSH_SHARE: Final = 0.05
"""Of all runs: many short tasks, so that workers hold some ahead, and are told to stop meanwhile."""
RUSH: Final = Climate(restart=0.3)
RUSHED: Final = 12
"""Tasks in such a run."""
SHORT_LEASE: Final = 2.0
"""Seconds, at most, where the dead are found by their leases alone: all there is to do is to wait."""
STORES: Final = ("model",) * 15 + ("sqlite",)
"""SQLite takes twice as long. That both answer alike is tested elsewhere."""

TASKS_OF_A_HOST: Final = 3
"""Where the number of hosts is given."""
FLEET_STREAMS: Final = 1_000_000
"""Those of its tasks are below."""


def draw(seed: int, hosts: int | None = None) -> Plan:
    """Return the plan of run *seed*; with so many *hosts*, if that is not to be drawn, too."""
    chance = Chance(seed)
    climate = _climate(chance.stream(0))
    heals_at = 1.5 + chance.about(1.0) if climate is not CALM else 1.0
    first = 100 if hosts is None else FLEET_STREAMS
    count = _few(chance, 3) if hosts is None else hosts
    nodes = [_node(chance.stream(first + n)) for n in range(count)]
    most = 3 if hosts is None else hosts
    rush, islands = climate is RUSH, climate is ISLANDS
    if climate is STORM:
        heals_at += 4.0
        nodes = [node._replace(lease_for=0.7, queues=QUEUES) for node in nodes * 3][:most]
    elif islands:
        heals_at += 3.0
        nodes = [node._replace(lease_for=1.0, queues=QUEUES) for node in nodes * 3][:most]
    elif rush:
        two = 2 if hosts is None else hosts  # so that one may cancel what the other one runs
        nodes = [node._replace(slots=1, horizon=0.2, queues=QUEUES) for node in nodes * 2][:two]
        if chance.happens(0.3):
            climate = climate._replace(doubted=0.3)
    count = _few(chance, 8) if hosts is None else hosts * TASKS_OF_A_HOST
    if rush and hosts is None:
        count = RUSHED
    tasks = [_task(chance.stream(200 + n), n, len(nodes), heals_at) for n in range(count)]
    if climate is STORM:
        tasks = [task._replace(kills=0, takes=min(task.takes, 1.0)) for task in tasks]
    elif islands:
        tasks = [task._replace(takes=3.0 + task.takes, style="async") for task in tasks]
    elif rush:
        tasks = [_in_a_rush(task, chance) for task in tasks]
    presence = chance.happens(0.7)
    if not presence:
        nodes = [node._replace(lease_for=min(node.lease_for, SHORT_LEASE)) for node in nodes]
    return Plan(
        seed,
        climate,
        presence,
        chance.pick(STORES),
        tuple(nodes),
        tuple(_grouped(chance, tasks)),
        heals_at,
    )


def _few(chance: Chance, most: int) -> int:
    """Return 1 to *most*, small numbers more often: most bugs need but a few."""
    return 1 + int(most * chance.unit() * (0.4 + 0.6 * chance.unit()))


def _climate(chance: Chance) -> Climate:
    weather = chance.unit()
    if weather < CALM_SHARE:
        return CALM
    if weather < CALM_SHARE + STORM_SHARE:
        return STORM
    if weather < CALM_SHARE + STORM_SHARE + ISLANDS_SHARE:
        return ISLANDS
    if weather < CALM_SHARE + STORM_SHARE + ISLANDS_SHARE + RUSH_SHARE:
        return RUSH

    steady = chance.happens(STEADY_SHARE)

    def fault(*rates: float) -> float:
        return chance.pick(rates) if chance.happens(0.4) else 0.0

    def of_store(*rates: float) -> float:
        rate = fault(*rates)
        return 0.0 if steady else rate

    return Climate(
        kill=fault(0.002, 0.01, 0.05),
        kill_in_program=fault(0.005, 0.02, 0.1),
        refused=of_store(0.02, 0.1, 0.3),
        doubted=of_store(0.02, 0.1, 0.3),
        poisonous=fault(0.02, 0.1),
        slow=of_store(0.05, 0.3),
        outage=of_store(0.1, 0.3),
        cut_off=of_store(0.1, 0.3),
        pause=of_store(0.1, 0.5),
        sleep=fault(0.1),
        wall_jump=fault(0.1, 0.5),
        reboot=fault(0.1),
        restart=fault(0.1, 0.3),
        lost_hint=fault(0.1, 1.0),
        late_news=of_store(0.1, 0.5),
        drift=fault(-0.05, 0.05),
        doubled_answer=fault(0.1, 0.5),
    )


def _node(chance: Chance) -> NodePlan:
    return NodePlan(
        slots=chance.pick((1, 1, 2, 4)),
        poll_interval=chance.pick((1.0, 1.0, 3.0)),
        lease_for=chance.pick((1.0, 3.0, 3.0, 10.0)),
        queues=QUEUES if chance.happens(0.8) else QUEUES[:1],
        reads=STAMPS if chance.happens(0.8) else STAMPS[:1],
        max_batch=chance.pick((1, 2, 500, 500)),
        starts_at=chance.about(0.5),
        retention=chance.pick((None, None, 0.5)),
        horizon=chance.pick((0.0, 0.2, 0.2)),
        quick=chance.pick((0.0, 0.1)),
    )


def _task(chance: Chance, number: int, nodes: int, heals_at: float) -> TaskPlan:
    at = heals_at * 0.8 * chance.unit()
    return TaskPlan(
        id=f"t{number}",
        at=at,
        node=chance.whole(0, nodes - 1),
        group=number,
        queue=QUEUES[0] if chance.happens(0.8) else QUEUES[1],
        priority=chance.pick((0, 0, 0, 1, -1)),
        delay=chance.about(1.0) if chance.happens(0.2) else 0.0,
        policy=_policy(chance),
        stamp=STAMPS[0] if chance.happens(0.9) else STAMPS[1],
        takes=chance.about(chance.pick((0.05, 0.5, 2.0))),
        style=chance.pick(("async", "async", "async", "stubborn", "thread", "blocks")),
        fails=chance.pick((0, 0, 0, 1, 2)),
        hopeless=chance.happens(0.05),
        kills=chance.pick((0, 0, 0, 0, 0, 0, 1, 5)),
        enqueues=chance.happens(0.1),
        named=chance.happens(0.2),
        cancelled_at=at + chance.about(0.7) if chance.happens(0.2) else None,
        awaited_at=heals_at * chance.unit() if chance.happens(0.3) else None,
        timeout=chance.pick((None, 0.0, 1.0)),
    )


def _in_a_rush(task: TaskPlan, chance: Chance) -> TaskPlan:
    """Have it come soon, and be short; or long now and then, and mostly cancelled meanwhile."""
    task = task._replace(
        at=0.5 * task.at,
        queue=QUEUES[0],
        delay=0.0,
        policy=TaskPolicy(),
        stamp=STAMPS[0],
        takes=0.02,
        style="async",
        fails=0,
        kills=0,
        cancelled_at=None,
    )
    if not chance.happens(0.25):
        return task
    if chance.happens(0.3):
        return task._replace(takes=2.0)
    if chance.happens(0.5):  # it raises once it was told to stop
        return task._replace(takes=2.0, style="stubborn", fails=1, cancelled_at=task.at + 1.0)
    return task._replace(takes=10.0, cancelled_at=task.at + 1.0)


def _policy(chance: Chance) -> TaskPolicy:
    if chance.happens(0.5):
        return TaskPolicy()
    return TaskPolicy(
        timeout=chance.pick((None, None, 0.5, 2.0)),
        retry=RetryPolicy(
            attempts=chance.pick((1, 2, 4)), delay=chance.pick((0.0, 0.2, 0.5)), jitter=0.5
        ),
        max_crashes=chance.pick((1, 2, 3)),
    )


def _grouped(chance: Chance, tasks: list[TaskPlan]) -> list[TaskPlan]:
    """Have some tasks enqueued together with the one before them."""
    grouped: list[TaskPlan] = []
    for task in tasks:
        before = grouped[-1] if grouped else None
        if before is not None and chance.happens(0.2):
            grouped.append(task._replace(at=before.at, node=before.node, group=before.group))
        else:
            grouped.append(task)
    return grouped
