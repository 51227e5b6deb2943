"""A run as a picture: who lived when, what ran where, and the moment at which it went wrong.

It is an SVG, made of text. The promises: the same run gives the same picture, to the byte; time
runs from left to right to one scale, but for long gaps in which nothing happens, which are marked;
and whatever tasks and errors said is quoted, so that it is text and nothing else.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from html import escape
from itertools import pairwise
from typing import Final, NamedTuple

from sitq.protocol.lifecycle import TaskState as S
from sitq.testing.simulation.invariants import Violation
from sitq.testing.simulation.lanes import Lanes, Life, Stay, TaskRun, is_over, lanes
from sitq.testing.simulation.trial import Trial
from sitq.testing.simulation.words import NAMES, Weight, many, sentences

WIDTH: Final = 1240
LEFT: Final = 64
RIGHT: Final = WIDTH - 36
CHAR: Final = 6.2
"""Pixels that a letter takes, about, at 11 px."""
MARK_ROW: Final = 15
RUN_ROW: Final = 18
GAP: Final = 12

INK, FAINT, LINE = "#1f2933", "#7b8794", "#d9dee5"
RED, GREEN, ORANGE = "#c81e3a", "#2f9e58", "#c76a00"
TASK_COLOURS: Final = (
    "#3f76c9", "#d97f1a", "#2a947f", "#9a58b8", "#8b6b3d", "#c94a7e", "#2f8fb3", "#74862b",
)  # fmt: skip
STATE_COLOURS: Final = {
    S.SCHEDULED: "#dfe5ee",
    S.QUEUED: "#f7dd9c",
    S.PARKED: "#d9c9ee",
    S.RUNNING: "#a9c8f2",
    S.SUCCESS: "#a8dcb7",
    S.FAILED: "#efb0b0",
    S.CANCELLED: "#cbd2d9",
}


def timeline(trial: Trial) -> str:
    """Return the picture of *trial*."""
    return _Picture(trial).drawn()


class _Mark(NamedTuple):
    """A vertical line through all lanes, with a label at its head."""

    at: float
    text: str
    colour: str
    dashes: str = ""


class _Scale:
    """Where on the paper a moment is. A gap that is longer than *most* is cut."""

    def __init__(self, moments: Iterable[float]) -> None:
        times = sorted({0.0, *moments})
        span = max(times[-1], 0.01)
        times.append(times[-1] + span / 40)  # so that it is seen how things stand in the end
        most = max(0.05, span / 7)
        self._times, self._places = times, [0.0]
        self.cuts: list[tuple[float, float]] = []
        for begin, end in pairwise(times):
            width = end - begin
            if width > 1.5 * most:
                self.cuts.append((begin, end))
                width = most
            self._places.append(self._places[-1] + width)
        self._factor = (RIGHT - LEFT) / max(self._places[-1], 0.001)

    def x(self, at: float) -> float:
        times, places = self._times, self._places
        i = min(max(1, bisect_right(times, at)), len(times) - 1)
        begin, end = times[i - 1], times[i]
        share = min(1.0, max(0.0, (at - begin) / (end - begin)))
        return LEFT + self._factor * (places[i - 1] + share * (places[i] - places[i - 1]))

    def ticks(self) -> Iterator[float]:
        """Yield round times, some 90 pixels apart, that do not lie in a cut."""
        step = next(
            step
            for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
            if step * self._factor >= 60 or step == 100.0
        )
        number, last = 0, -1000.0
        while (at := number * step) <= self._times[-1]:
            number += 1
            cut = any(begin < at < end for begin, end in self.cuts)
            if not cut and self.x(at) - last >= 40:
                last = self.x(at)
                yield at


class _Picture:
    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._violation: Violation | None = trial.violations[0] if trial.failed else None
        history = trial.history
        if self._violation is not None:
            history = history[: self._violation.event + 1]  # what follows explains nothing
        self._lanes: Lanes = lanes(history)
        self._scale = _Scale(
            event.at
            for event, said in sentences(history)
            if any(sentence.weight > Weight.ROUTINE for sentence in said)
        )
        self._back: list[str] = []
        self._front: list[str] = []
        self._colours: dict[str, str] = {}
        for event in history:
            if event.task and event.task not in self._colours:
                colour = TASK_COLOURS[len(self._colours) % len(TASK_COLOURS)]
                self._colours[event.task] = colour

    def drawn(self) -> str:
        top = self._title()
        y = self._marks_head(top) + 10
        first_lane = y
        y = self._store(y)
        for life in self._lanes.lives.values():
            y = self._life(life, y)
        y += 6
        for task, stays in self._lanes.tasks.items():
            y = self._task(task, stays, y)
        self._cuts(first_lane, y)
        self._marks_lines(y)
        self._axis(first_lane, y)
        height = self._legend(y + 34) + 16
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
                f' width="{WIDTH}" height="{height:.0f}"'
                ' font-family="DejaVu Sans, Verdana, sans-serif" font-size="11">',
                f"<title>{escape(self._headline())}</title>",
                '<defs><pattern id="paused" width="6" height="6" patternUnits="userSpaceOnUse"'
                ' patternTransform="rotate(45)"><line y2="6" stroke="#8a94a3" stroke-width="2"/>'
                "</pattern></defs>",
                f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
                *self._back,
                *self._front,
                "</svg>\n",
            )
        )

    # -- above the lanes -----------------------------------------------------------------

    def _headline(self) -> str:
        seed = self._trial.plan.seed
        if self._violation is None:
            return f"seed {seed}: all that must hold has held"
        return f"seed {seed} breaks {self._violation.invariant}"

    def _title(self) -> float:
        plan = self._trial.plan
        self._text(LEFT, 30, self._headline(), INK, size=17, weight="bold")
        about = (
            f"{many(len(plan.tasks), 'task')}, {many(len(plan.nodes), 'process')},"
            f" {many(len(self._trial.fired), 'fault')}"
        )
        if self._violation is not None:
            about = self._violation.text
        y = 34.0
        for line in _wrapped(about, 170):
            y += 16
            self._text(LEFT, y, line, RED if self._violation else FAINT, size=12)
        return y + 12

    def _marks(self) -> list[_Mark]:
        marks = [_Mark(at, text, ORANGE, "5 3") for at, text in self._lanes.world]
        if self._lanes.healed_at is not None:
            marks.append(_Mark(self._lanes.healed_at, "healed", GREEN, "2 3"))
        marks += [
            _Mark(life.end, f"{life.name} dies", INK, "1 3")
            for life in self._lanes.lives.values()
            if life.how == "dies"
        ]
        if self._violation is not None:
            marks.append(_Mark(self._lanes.end, self._violation.invariant, RED))
        return sorted(marks, key=lambda mark: (mark.at, mark.text))

    def _marks_head(self, top: float) -> float:
        """Put the labels into as many rows as they need."""
        ends: list[float] = []
        self._heads: list[float] = []
        for mark in self._marks():
            x, wide = self._x(mark.at), len(mark.text) * CHAR + 8
            left = x - wide if x + wide > RIGHT + 20 else x
            row = next((row for row, end in enumerate(ends) if end <= left), len(ends))
            ends[row:] = [left + wide] if row == len(ends) else [left + wide, *ends[row + 1 :]]
            y = top + 12 + row * MARK_ROW
            self._heads.append(y)
            anchor = "end" if left < x else "start"
            self._text(
                x + (-4 if left < x else 4), y, mark.text, mark.colour, anchor=anchor,
                weight="bold" if mark.colour == RED else "normal", halo=True,
            )  # fmt: skip
        return top + max(1, len(ends)) * MARK_ROW

    def _marks_lines(self, bottom: float) -> None:
        for mark, head in zip(self._marks(), self._heads, strict=True):
            x, red = self._x(mark.at), mark.colour == RED
            line = (
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{head - 9:.1f}" y2="{bottom:.1f}"'
                f' stroke="{mark.colour}" stroke-width="{2 if red else 1}"'
                f' stroke-dasharray="{mark.dashes}"{"" if red else _faded(0.75)}/>'
            )
            (self._front if red else self._back).append(line)

    # -- lanes ---------------------------------------------------------------------------

    def _store(self, y: float) -> float:
        middle = y + 9
        self._name("store", middle + 4)
        self._rule(LEFT, RIGHT, middle, LINE)
        for at, changed in self._lanes.commits:
            half, colour = (7, INK) if changed else (3.5, "#9aa5b1")
            x = self._x(at)
            self._back.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{middle - half:.1f}"'
                f' y2="{middle + half:.1f}" stroke="{colour}"{_faded(0.8)}/>'
            )
        return y + 18 + GAP

    def _life(self, life: Life, y: float) -> float:
        faults = 12 if life.faults else 0
        height = faults + life.rows * RUN_ROW + 6
        begin, end = self._x(life.begin), self._x(life.end) if life.how else self._until(life.end)
        self._name(life.name, y + height / 2 + 4)
        if not life.how:
            self._here(life.name, y + height / 2)
        self._box(begin, end, y, height, "#f3f5f8", stroke=LINE)
        for span in life.leases:
            left, right = self._x(span.begin), min(end, self._until(span.end))
            self._box(left, right, y + height - 3, 3, GREEN, title="holds its lease")
        for run in life.runs:
            self._run(life, run, y + faults + 2 + run.row * RUN_ROW)
        for span in life.blocked:
            until = self._x(min(span.end, life.end))
            self._box(self._x(span.begin), until, y + height - 6, 3, INK, title="loop blocked")
        for span in life.pauses:
            until = self._x(min(span.end, life.end))
            self._box(self._x(span.begin), until, y, height, "url(#paused)", title="paused")
        self._faults(life, y)
        if life.how == "dies":
            self._cross(end, y + height / 2)
        elif life.how == "stops":
            self._box(end - 3, end, y, height, INK, title=f"{life.name} stops")
        return y + height + GAP - 4

    def _run(self, life: Life, run: TaskRun, y: float) -> None:
        begin = self._x(run.begin)
        end = max(self._x(run.end) if run.how else self._until(run.end), begin + 2)
        title = f"{run.task} (token {run.token}) in {life.name}: {run.how or 'still runs'}"
        colour = self._colours.get(run.task, FAINT)
        self._box(begin, end, y, RUN_ROW - 4, colour, title=title, radius=2)
        label = f"{run.task} #{run.token}"
        wide = len(label) * CHAR
        if wide + 4 < end - begin:
            self._text((begin + end) / 2, y + 11, label, "#ffffff", anchor="middle")
            return
        later = [
            self._x(other.begin)
            for other in life.runs
            if other.row == run.row and other.begin > run.begin
        ]
        if end + wide + 6 < min([*later, RIGHT + 30.0]):
            self._text(end + 4, y + 11, label, colour)

    def _faults(self, life: Life, y: float) -> None:
        """Small triangles; each with its words, where there is room."""
        places = [self._x(at) for at, _ in life.faults] + [RIGHT + 30.0]
        for (_, text), x, following in zip(life.faults, places, places[1:], strict=False):
            self._front.append(
                f'<path d="M{x - 4:.1f} {y + 1:.1f}h8l-4 8z" fill="{ORANGE}">'
                f"<title>{escape(text)}</title></path>"
            )
            if x + 8 + len(text) * CHAR * 0.85 < following - 4:
                self._text(x + 7, y + 9, text, ORANGE, size=9, halo=True)

    def _task(self, task: str, stays: list[Stay], y: float) -> float:
        self._name(task, y + 11, self._colours.get(task, INK))
        self._here(task, y + 8)
        for stay in stays:
            begin, end = self._x(stay.begin), self._until(stay.end)
            self._box(
                begin,
                max(end, begin + 1.5),
                y + 2,
                12,
                STATE_COLOURS[stay.state],
                title=f"{task}: {stay.state}, token {stay.token}",
                radius=1,
                opacity=0.55 if is_over(stay) else 1.0,
            )
            label = f"{stay.state} #{stay.token}" if stay.state is S.RUNNING else str(stay.state)
            if len(label) * CHAR * 0.9 + 6 < end - begin:
                self._text(begin + 4, y + 11, label, INK, size=9.5)
        return y + 18

    # -- below the lanes -----------------------------------------------------------------

    def _cuts(self, top: float, bottom: float) -> None:
        for begin, end in self._scale.cuts:
            left, right = self._x(begin), self._x(end)
            self._back.insert(
                0,
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}"'
                f' height="{bottom - top:.1f}" fill="#fafbfc"/>',
            )
            middle = (left + right) / 2
            self._front.append(
                f'<path d="M{middle - 5:.1f} {bottom + 9:.1f}l4 -10m3 10l4 -10" stroke="{FAINT}"'
                ' fill="none"/>'
            )
            self._text(
                middle, bottom + 24, f"{end - begin:.1f} s cut", FAINT, anchor="middle", size=9
            )

    def _axis(self, top: float, y: float) -> None:
        self._rule(LEFT, RIGHT, y + 4, FAINT)
        for at in self._scale.ticks():
            x = self._x(at)
            self._back.insert(
                0,
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{y + 8:.1f}"'
                ' stroke="#eef1f4"/>',
            )
            self._rule(x, x, y + 4, FAINT, down=5)
            self._text(x, y + 24, f"{at:g} s", FAINT, anchor="middle", size=10)

    def _legend(self, y: float) -> float:
        """Explain what is not said where it lies."""
        x = float(LEFT)
        entries = [
            (f'<rect x="{{x}}" y="{y + 3}" width="14" height="3" fill="{GREEN}"/>', "lease"),
            (
                f'<rect x="{{x}}" y="{y - 2}" width="14" height="12" fill="url(#paused)"/>',
                "paused",
            ),
            (f'<rect x="{{x}}" y="{y + 3}" width="14" height="3" fill="{INK}"/>', "loop blocked"),
            (f'<path d="M{{x}} {y}h8l-4 8z" fill="{ORANGE}"/>', "fault"),
            *(
                (
                    f'<rect x="{{x}}" y="{y - 1}" width="14" height="10" rx="1" fill="{colour}"/>',
                    str(state),
                )
                for state, colour in STATE_COLOURS.items()
            ),
        ]
        for shape, text in entries:
            self._front.append(shape.format(x=f"{x:.1f}"))
            self._text(x + 19, y + 8, text, FAINT, size=10)
            x += 19 + len(text) * CHAR + 18
        self._text(x, y + 8, "#n is a token", FAINT, size=10)
        return y + 12

    # -- shapes --------------------------------------------------------------------------

    def _x(self, at: float) -> float:
        return self._scale.x(at)

    def _until(self, end: float) -> float:
        """Return where something ends that may last longer than what is shown."""
        return float(RIGHT) if end >= self._lanes.end else self._x(end)

    def _here(self, name: str, y: float) -> None:
        """Put a ring on this lane, if the violation concerns it."""
        found = self._violation
        if found is not None and self._trial.history:
            event = self._trial.history[found.event]
            if name in {event.who, event.task, *NAMES.findall(found.text)}:
                x = self._x(self._lanes.end)
                self._front.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="none" stroke="{RED}"'
                    ' stroke-width="2.5"/>'
                )

    def _name(self, text: str, y: float, colour: str = INK) -> None:
        self._text(LEFT - 10, y, text, colour, anchor="end", weight="bold")

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str,
        *,
        size: float = 11,
        anchor: str = "start",
        weight: str = "normal",
        halo: bool = False,
    ) -> None:
        shown = escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))
        around = ' stroke="#ffffff" stroke-width="3" paint-order="stroke"' if halo else ""
        self._front.append(
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size:g}"'
            f' text-anchor="{anchor}" font-weight="{weight}"{around}>{shown}</text>'
        )

    def _box(
        self,
        left: float,
        right: float,
        y: float,
        height: float,
        fill: str,
        *,
        title: str = "",
        stroke: str = "none",
        radius: float = 0,
        opacity: float = 1.0,
    ) -> None:
        tooltip = f"<title>{escape(title)}</title>" if title else ""
        self._back.append(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(1.0, right - left):.1f}"'
            f' height="{height:.1f}" rx="{radius:g}" fill="{fill}" stroke="{stroke}"'
            f"{_faded(opacity)}>{tooltip}</rect>"
        )

    def _rule(self, x1: float, x2: float, y: float, colour: str, down: float = 0) -> None:
        self._back.append(
            f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y + down:.1f}"'
            f' stroke="{colour}"/>'
        )

    def _cross(self, x: float, y: float) -> None:
        self._front.append(
            f'<path d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" stroke="{RED}"'
            ' stroke-width="2.5" fill="none"/>'
        )


def _faded(opacity: float) -> str:
    return "" if opacity == 1.0 else f' opacity="{opacity:g}"'


def _wrapped(text: str, most: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + len(word) >= most:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    yield line
