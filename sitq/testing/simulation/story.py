"""A run as a story: who was there, what happened to whom, and where it went wrong.

A story of a run that failed tells what concerns the tasks and the processes that its violation
names, and what went wrong around them; it ends where the violation showed. The promise: the same
run is told in the same words. Its lines hold what tasks and errors said: whoever prints them has
to make them safe for a terminal.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Final, NamedTuple

from sitq.protocol.lifecycle import FINAL
from sitq.protocol.ops import TaskPolicy
from sitq.testing.simulation.climate import CALM, STAMPS, NodePlan, Plan, TaskPlan
from sitq.testing.simulation.history import History, Kind
from sitq.testing.simulation.invariants import INVARIANTS, Violation
from sitq.testing.simulation.naming import node_name, node_of
from sitq.testing.simulation.shrink import Shrunk
from sitq.testing.simulation.trial import Trial
from sitq.testing.simulation.words import NAMES, Sentence, Weight, many, sentences

ASSERTION: Final = "No machine finds itself in a state that its own assertions rule out."


def story(
    trial: Trial, *, small: Shrunk | None = None, everything: bool = False, replay: str = ""
) -> list[str]:
    """Tell of *trial*, line by line; of *small* instead, which is what was left of it.

    *replay* is the command that tells this story again, if it is not the one of the seed alone.
    """
    told = trial if small is None else small.trial
    lines: list[str] = []
    if told.failed:
        lines += [*_headline(told), ""]
    if small is not None:
        lines += [_how_small(trial, small), ""]
    lines += [*who_was_there(told), "", *_what_happened(told, everything=everything), ""]
    lines.append(f"once more, bit for bit: {replay or f'sitq sim --seed {trial.plan.seed}'}")
    return lines


def sentence_of(invariant: str) -> str:
    """Return what *invariant* promises."""
    return INVARIANTS.get(invariant, ASSERTION)


def _headline(trial: Trial) -> Iterator[str]:
    first = trial.violations[0]
    yield f"seed {trial.plan.seed} breaks {first.invariant}: {sentence_of(first.invariant)}"
    yield f"    {first.text}"
    others = Counter(found.invariant for found in trial.violations[1:])
    if others:
        yield f"    and also: {', '.join(f'{name} x {n}' for name, n in sorted(others.items()))}"


def _how_small(trial: Trial, small: Shrunk) -> str:
    def count(trial: Trial) -> str:
        plan = trial.plan
        return (
            f"{many(len(plan.tasks), 'task')}, {many(len(plan.nodes), 'process')},"
            f" {many(len(trial.fired), 'fault')}, {many(len(trial.history), 'event')}"
        )

    return f"made small: {count(small.trial)}; it was {count(trial)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


# -- who was there -------------------------------------------------------------------------


def who_was_there(trial: Trial) -> list[str]:
    """Tell what is known of a run before it begins."""
    plan = trial.plan
    lives = [event.who for event in trial.history if event.kind is Kind.UP]
    lines = [f"who was there, on a store in {_store(plan)}"]
    lines += [
        f"    {name:<3} {_node(node)}; lives: {', '.join(_of(name, lives)) or 'none'}"
        for name, node in zip(map(node_name, count()), plan.nodes, strict=False)
    ]
    lines += [f"    {task.id:<3} {_task(task)}" for task in plan.tasks]
    lines.append(f"    {_climate(plan)}")
    return lines


def _store(plan: Plan) -> str:
    locks = "who see each other die" if plan.presence else "who do not see each other die"
    return f"{'SQLite' if plan.store == 'sqlite' else 'the model'}, with processes {locks}"


def _of(name: str, lives: list[str]) -> list[str]:
    return [life for life in lives if node_of(life) == name]


def _node(node: NodePlan) -> str:
    said = [
        many(node.slots, "slot"),
        f"looks every {node.poll_interval:g} s",
        f"lease of {node.lease_for:g} s",
    ]
    if len(node.queues) == 1:
        said.append(f"serves {node.queues[0]} alone")
    if node.reads != STAMPS:
        said.append(f"reads {', '.join(node.reads)} alone")
    if node.max_batch < 500:
        said.append(f"batches of {node.max_batch}")
    if node.horizon:
        said.append(f"holds ahead what starts within {node.horizon:g} s")
    if node.quick:
        said.append(f"tells together of what follows within {node.quick:g} s")
    if node.retention is not None:
        said.append(f"forgets after {node.retention:g} s")
    return ", ".join(said)


def _task(task: TaskPlan) -> str:
    said = [f"asked for at {task.at:.1f} s in {node_name(task.node)}", f"takes {task.takes:.2f} s"]
    said += [
        text
        for says, text in (
            (task.style != "async", task.style),
            (task.queue != "default", f"in {task.queue}"),
            (task.priority != 0, f"priority {task.priority}"),
            (task.delay > 0, f"{task.delay:.1f} s later"),
            (task.fails > 0, f"raises {_times(task.fails)}"),
            (task.hopeless, "raises for ever"),
            (task.kills > 0, f"kills its process {_times(task.kills)}"),
            (task.enqueues, "enqueues another"),
            (task.named, "asked for twice"),
            (task.stamp != STAMPS[0], f"stamped {task.stamp}"),
        )
        if says
    ]
    if task.cancelled_at is not None:
        said.append(f"cancelled at {task.cancelled_at:.1f} s")
    if task.awaited_at is not None:
        said.append(f"awaited from {task.awaited_at:.1f} s on")
    if task.policy != TaskPolicy():
        said.append(_policy(task.policy))
    return ", ".join(said)


def _policy(policy: TaskPolicy) -> str:
    limit = "" if policy.timeout is None else f"{policy.timeout:g} s each, "
    attempts = many(policy.retry.attempts, "attempt")
    return f"{limit}{attempts}, {many(policy.max_crashes, 'death')} at most"


def _climate(plan: Plan) -> str:
    if plan.climate == CALM:
        return "nothing goes wrong by itself"
    rates = ", ".join(f"{name} {rate:g}" for name, rate in plan.climate._asdict().items() if rate)
    return f"until {plan.heals_at:.1f} s goes wrong: {rates}"


# -- what happened -------------------------------------------------------------------------


class _Line(NamedTuple):
    number: int
    at: float
    who: str
    text: str
    here: bool


def _what_happened(trial: Trial, *, everything: bool) -> Iterator[str]:
    first = trial.violations[0] if trial.failed else None
    lines = list(_lines(trial.history, first, everything=everything))
    told = len({line.number for line in lines})
    all_ = "" if told == len(trial.history) else "; --all tells all"
    yield f"what happened ({told} of {many(len(trial.history), 'event')}{all_})"
    showed = False
    for line in lines:
        sign = ">>" if line.here else "  "
        yield f" {sign} {line.number:>4}  {line.at:8.3f} s  {line.who:<4} {line.text}"
        if line.here and first is not None and not showed:
            showed = True
            yield f" {'':16}     here it shows: {first.invariant}, {first.text}"


def _lines(history: History, first: Violation | None, *, everything: bool) -> Iterator[_Line]:
    cast = None if first is None or everything else _Cast(history, first)
    for number, (event, said) in enumerate(sentences(history)):
        here = first is not None and number == first.event
        if everything:
            chosen = list(said)
        elif cast is None:
            chosen = [sentence for sentence in said if sentence.weight > Weight.ROUTINE]
        else:
            chosen = [sentence for sentence in said if cast.cares(event.who, event.task, sentence)]
        if here and not chosen:
            chosen = list(said)
        for sentence in chosen:
            yield _Line(number, event.at, event.who, sentence.text, here)
        if here and not everything:
            return


class _Cast:
    """The tasks and processes whom a violation concerns."""

    def __init__(self, history: History, first: Violation) -> None:
        event = history[first.event] if history else None
        known_tasks = {event.task for event in history} - {""}
        known_processes = {event.who for event in history} - {""}
        named = set(NAMES.findall(first.text))
        if event is not None:
            named |= {event.task, event.who}
        self.tasks = named & known_tasks
        self.processes = {_process(name) for name in named} & known_processes
        self._all_of_theirs = not self.tasks
        for event, said in sentences(history):
            for sentence in said:
                about = {event.task, *sentence.about}
                if sentence.weight >= Weight.TASK and about & self.tasks:
                    names = {event.who, *map(_process, sentence.about)}
                    self.processes |= names & known_processes
        if not self.processes:
            self.processes = known_processes

    def cares(self, who: str, task: str, sentence: Sentence) -> bool:
        match sentence.weight:
            case Weight.ROUTINE:
                return False
            case Weight.PROCESS:
                names = {who, *map(_process, sentence.about)}
                return bool(names & self.processes)
            case Weight.TASK:
                if self._all_of_theirs:
                    return who in self.processes
                return bool({task, *sentence.about} & self.tasks)
            case Weight.WORLD:
                return True


def _process(name: str) -> str:
    """Return the process of a worker id."""
    return name.partition(".")[0]


def in_brief(trial: Trial) -> list[str]:
    """Tell how a run went, in a few lines."""
    ends: dict[str, str] = {}
    for event in trial.history:
        if event.kind is Kind.ROW:
            change = event.value
            if change.new in FINAL:
                deaths = f", {many(change.crashes, 'death')}" if change.crashes else ""
                ends[event.task] = f"{change.new} (attempt {change.attempt}{deaths})"
            elif change.new is not None:
                ends[event.task] = str(change.new)
    kinds = Counter(event.kind for event in trial.history)
    seconds = trial.history[-1].at if trial.history else 0.0
    return [
        f"what happened: {many(len(trial.history), 'event')} in {seconds:.1f} s,"
        f" {many(kinds[Kind.BATCH], 'transaction')}, {many(len(trial.fired), 'fault')},"
        f" {many(kinds[Kind.KILLED], 'death')}",
        *(f"    {task:<3} {end}" for task, end in sorted(ends.items())),
    ]
